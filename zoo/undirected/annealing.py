"""The path from independent units to a Boltzmann machine, along which annealing moves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo.undirected.boltzmann import BoltzmannMachine, State


class Kept(NamedTuple):
    """Where a chain of the path is: every other layer, and how it acts on those between.

    Attributes:
        values: Statistic of each layer that is kept, ``(num, ..., units)``.
        fields: What those layers add to the field of each layer that is summed out, biases left out.
    """

    values: list[Tensor]
    fields: list[Tensor]


class Annealing:
    """Boltzmann machines between independent units (β = 0) and the machine itself (β = 1).

    The energy is mixed, E_β = (1 - β) E_0 + β E, with E_0 = -Σ_k a_k·s(z_k) for given fields a; every layer
    stays independent of all but its neighbours. Every other free layer is kept, and those between are summed
    out analytically:

        log p*_β(z_kept) = Σ_kept [f_k(β)·s(z_k) - e(z_k)] + Σ_out A(f_k(β)),
        f_k(β) = a_k + β (b_k - a_k + what the neighbours add).

    Of the two ways to choose, the one that keeps fewer units is taken: fewer units vary the weights less.

    Args:
        machine: The machine at β = 1.
        start: The fields a, one for each layer, ``(units,)`` or ``(batch, units)``.
        clamped: Statistics ``(batch, units)`` of layers that stay as they are, by their number. The machine
            at β = 1 is then the posterior, whose normaliser is the sum over the free layers alone.

    References:
        | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov & Murray, 2008), section 4
        | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009), section 3
    """

    def __init__(
        self,
        machine: "BoltzmannMachine",
        start: Sequence[Tensor],
        clamped: dict[int, Tensor] | None = None,
    ) -> None:
        clamped = clamped or {}
        self.machine, self.clamped = machine, clamped
        free = [layer for layer in range(len(machine.names)) if layer not in clamped]
        sides = [[layer for layer in free if layer % 2 == parity] for parity in (0, 1)]
        units = [sum(machine.units[layer].num for layer in side) for side in sides]
        self.kept, self.out = sides if 0 < units[0] <= units[1] or not units[1] else reversed(sides)
        biases, constant = machine.uncentred()
        self.start_fields = {layer: start[layer] for layer in free}
        self.slopes: dict[int, Tensor] = {}
        for layer in free:
            total = biases[layer]
            for neighbour, weight in machine.neighbours(layer):
                if neighbour in clamped:
                    total = total + clamped[neighbour] @ weight
            self.slopes[layer] = total - start[layer]
        self.constant: Tensor = constant.double()
        for layer, value in clamped.items():
            own = (value * biases[layer]).sum(-1) - machine.units[layer].base_energy(value)
            self.constant = self.constant + own.double()
            if layer + 1 in clamped:
                pair = (value @ machine.W[layer] * clamped[layer + 1]).sum(-1)
                self.constant = self.constant + pair.double()

    @property
    def log_z_start(self) -> Tensor:
        """The log-normaliser at β = 0, in nats, float64."""
        parts = [
            self.machine.units[layer].log_normalizer(field.double())
            for layer, field in self.start_fields.items()
        ]
        return torch.stack([part.expand(self.constant.shape) for part in parts]).sum(0)

    def start(self, num: int) -> Kept:
        """Exact, independent draws at β = 0, ``num`` for each item that is clamped."""
        values = []
        for layer in self.kept:
            field = self.start_fields[layer].expand(*self.constant.shape, -1)
            values.append(self.machine.units[layer].sample(field.expand(num, *field.shape)))
        return self._with_fields(values)

    def at(self, state: "State") -> Kept:
        """The place of given values, ``(num, ...)``, of at least the layers that are kept.

        Raises:
            ValueError: If one of these is missing, or values of a layer are none of its units'.
        """
        names = self.machine.names
        given = state if isinstance(state, dict) else {}
        if any(names[layer] not in given for layer in self.kept):
            came = ", ".join(given) or "none" if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"expected values of {', '.join(names[layer] for layer in self.kept)}, as the last state of "
                f"chains has them, got {came}"
            )
        leads = {self._lead(layer, state[name]) for layer, name in enumerate(names) if name in state}
        if len(leads) > 1:
            raise ValueError(f"expected as many chains of every layer, got {sorted(map(tuple, leads))}")
        return self._with_fields(
            [self.machine.statistic(names[layer], state[names[layer]]) for layer in self.kept]
        )

    def _lead(self, layer: int, value: Tensor) -> torch.Size:
        """The dimensions of the chains; refuses values that a layer cannot have."""
        name, units = self.machine.names[layer], self.machine.units[layer]
        flat = units.flat(self.machine.b[0])
        if not isinstance(value, Tensor) or value.shape[value.dim() - len(units.shape) :] != units.shape:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"expected {name} of shape (chains, {', '.join(map(str, units.shape))}), got {came}"
            )
        if value.dtype != flat.sample().dtype:
            raise ValueError(f"expected {name} in {flat.sample().dtype}, got {value.dtype}")
        if not (value.isfinite().all() and flat.support.check(value).all()):
            raise ValueError(f"expected {name} to be values that its units have, got others")
        return value.shape[: value.dim() - len(units.shape)]

    def log_ratio(self, state: Kept, before: float, after: float) -> Tensor:
        """The log of p*_after / p*_before where the chain is, in nats, float64, shape ``(num, ...)``."""
        total = (after - before) * self.constant
        for layer, value in zip(self.kept, state.values, strict=True):
            total = total + (after - before) * (value * self.slopes[layer]).double().sum(-1)
        for layer, field in zip(self.out, state.fields, strict=True):
            slope, start = (self.slopes[layer] + field).double(), self.start_fields[layer].double()
            log_normalizer = self.machine.units[layer].log_normalizer
            total = total + log_normalizer(start + after * slope) - log_normalizer(start + before * slope)
        return total

    def step(self, state: Kept, beta: float) -> Kept:
        """One Gibbs sweep that leaves p_β as it is: the layers between, and then those that are kept."""
        between = dict(zip(self.out, self._draw_between(state, beta), strict=True))
        values = []
        for layer in self.kept:
            field = self.start_fields[layer] + beta * self.slopes[layer]
            for neighbour, weight in self.machine.neighbours(layer):
                if neighbour in between:
                    field = field + beta * (between[neighbour] @ weight)
            field = field.expand(*state.values[0].shape[:-1], -1)
            values.append(self.machine.units[layer].sample(field))
        return self._with_fields(values)

    def complete(self, state: Kept, beta: float = 1.0) -> "State":
        """The values of all layers, those between drawn at β and those clamped as they are."""
        statistics = dict(zip(self.kept, state.values, strict=True))
        statistics |= dict(zip(self.out, self._draw_between(state, beta), strict=True))
        batch = state.values[0].shape[:-1]
        statistics |= {layer: value.expand(*batch, -1) for layer, value in self.clamped.items()}
        return {
            name: self.machine.units[layer].value(statistics[layer])
            for layer, name in enumerate(self.machine.names)
        }

    def _draw_between(self, state: Kept, beta: float) -> list[Tensor]:
        return [
            self.machine.units[layer].sample(self.start_fields[layer] + beta * (self.slopes[layer] + field))
            for layer, field in zip(self.out, state.fields, strict=True)
        ]

    def _with_fields(self, values: list[Tensor]) -> Kept:
        kept = dict(zip(self.kept, values, strict=True))
        fields = []
        for layer in self.out:
            parts = [
                kept[neighbour] @ weight
                for neighbour, weight in self.machine.neighbours(layer)
                if neighbour in kept
            ]
            nothing = values[0].new_zeros(*values[0].shape[:-1], self.machine.units[layer].num)
            fields.append(sum(parts[1:], parts[0]) if parts else nothing)
        return Kept(values, fields)
