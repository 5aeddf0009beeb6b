"""What all Boltzmann machines of layers share: energy, block conditionals, mean field, the Pyro program."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Literal, NamedTuple, get_args

import pyro
import torch
from pyro import poutine
from pyro.distributions import Distribution, constraints
from torch import Tensor, nn
from torch.nn.functional import linear

from zoo.model import MISSING, GenerativeModel, check_labels, refuse_constant_entries
from zoo.undirected import enumeration
from zoo.undirected.annealing import Annealing
from zoo.undirected.pair import Pair
from zoo.undirected.units import BernoulliUnits, CategoricalUnit, GaussianUnits, Units

Visible = Literal["bernoulli", "gaussian"]
"""What the entries of an item may be: 0 or 1, or real."""

State = dict[str, Tensor]
"""Values by layer: ``v`` of shape ``(..., *event_shape)``, ``h_1`` ``(..., units)``, …, ``y`` ``(...)``."""


class Block(NamedTuple):
    """Layers that are independent of each other given all others, so that they can be drawn at once.

    Attributes:
        sites: Names of the layers.
        draw: Draws them, given the values of the other layers.
    """

    sites: tuple[str, ...]
    draw: Callable[[State], State]


class BoltzmannMachine(GenerativeModel):
    """Layers of units in a chain, each connected to its neighbours alone.

    With the layers z_0 = v, z_1 = h_1, …, and where there are labels the last of them one unit of as many
    classes, s the statistics of the units and e their base energies (see `zoo.undirected.units`):

        p(z) = exp(-E(z)) / Z,    E(z) = Σ_k [e(z_k) - b_k·s̄_k] - Σ_k s̄_{k-1}·W_k s̄_k,    s̄_k = s(z_k) - o_k.

    The offsets o are 0, or, in a centred machine, the running means of the statistics under the data, which
    keeps the gradients of weights and biases apart. Either way a layer is independent of all but its
    neighbours, and its units of each other given those: so even and odd layers are drawn in turn.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        hidden: Units of each hidden layer, from the visible one on.
        visible: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones.
        num_classes: Classes of the label unit, above the last hidden layer; None is no label unit.
        centred: Whether the energy has offsets.

    Attributes:
        names: Names of the layers, as the sites of the program: ``v``, ``h_1``, …, and ``y`` for the label.

    Raises:
        ValueError: If a number is below its least or ``visible`` is none of the two.

    References:
        | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009)
        | Deep Boltzmann Machines and the Centering Trick (Montavon & Müller, 2012)
    """

    density = "unnormalized"

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: tuple[int, ...],
        *,
        visible: Visible = "bernoulli",
        num_classes: int | None = None,
        centred: bool = False,
    ) -> None:
        super().__init__(event_shape)
        if not isinstance(hidden, Sequence) or not hidden or not all(is_count(num) for num in hidden):
            raise ValueError(f"hidden must be numbers of units of at least 1, got {hidden!r}")
        if visible not in get_args(Visible):
            raise ValueError(f"visible must be one of {', '.join(get_args(Visible))}, got {visible!r}")
        if num_classes is not None and not is_count(num_classes, least=2):
            integer = "" if isinstance(num_classes, Integral) else "an integer of "
            raise ValueError(f"num_classes must be {integer}at least 2, or None, got {num_classes!r}")
        self.support = constraints.boolean if visible == "bernoulli" else constraints.real
        self.num_classes = num_classes
        self.centred = centred
        layers: list[Units] = [
            BernoulliUnits(self.event_shape) if visible == "bernoulli" else GaussianUnits(self.event_shape)
        ]
        layers += [BernoulliUnits((num,)) for num in hidden]
        self.names = ("v", *(f"h_{layer + 1}" for layer in range(len(hidden))))
        if num_classes is not None:
            layers.append(CategoricalUnit(num_classes))
            self.names = (*self.names, "y")
        self.units = nn.ModuleList(layers)
        sizes = [units.num for units in layers]
        self.W = nn.ParameterList(
            0.01 * torch.randn(below, above) for below, above in zip(sizes, sizes[1:], strict=False)
        )
        self.b = nn.ParameterList(torch.zeros(num) for num in sizes)
        for layer, units in enumerate(layers):
            self.register_buffer(f"mean_{layer}", units.mean(torch.zeros(units.num)))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    @property
    def hidden_names(self) -> tuple[str, ...]:
        """Names of the hidden layers, without that of the label unit."""
        return tuple(name for name in self.names if name.startswith("h_"))

    # The joint distribution

    def free_energy(self, state: State) -> Tensor:
        """Minus the log of the unnormalised probability of a state, in nats, shape ``(...)``.

        Layers that the state lacks are summed out analytically: log Σ exp(-E) over them. Means may stand in
        for values of hidden layers: with those of the even ones this is then minus the variational bound on
        log p*(v), but for the entropy of those (see `variational_bound`).

        Args:
            state: Values, or means, of at least every other layer. A layer of zeros and ones given as
                ``(..., units)`` floats may hold probabilities, and so may ``y``, as ``(..., classes)``.

        Raises:
            ValueError: If it lacks two neighbouring layers, whose sum has no closed form, or names one that
                there is not.

        Example:
            >>> machine = BoltzmannMachine((4,), (3, 2))
            >>> machine.free_energy({"v": torch.ones(5, 4), "h_2": torch.zeros(5, 2)}).shape
            torch.Size([5])
        """
        for name in state:
            self._number(name)
        return self._free_energy(state)[0]

    def contrast(self, positive: State, negative: State) -> tuple[Tensor, State]:
        """Mean `free_energy` of one batch of states minus that of another, in nats, and a draw.

        The draw is of the layers that the states lack, given those of the second batch: it takes chains half
        a sweep on, by fields that are known here.

        Args:
            positive: States given items.
            negative: States of chains, with values for the same layers.
        """
        num = len(positive["v"])
        if all(positive[name].shape[1:] == negative[name].shape[1:] for name in positive):
            # One product of twice the height is faster than two.
            both = {name: torch.cat([value, negative[name]]) for name, value in positive.items()}
            energies, fields = self._free_energy(both)
            difference = energies[:num].mean() - energies[num:].mean()
            fields = {layer: field[num:] for layer, field in fields.items()}
        else:  # labels of the chains beside probabilities of the items' labels
            energies, fields = self._free_energy(negative)
            difference = self._free_energy(positive)[0].mean() - energies.mean()
        with torch.no_grad():
            drawn = {
                self.names[layer]: self.units[layer].value(self.units[layer].sample(field))
                for layer, field in fields.items()
            }
        return difference, drawn

    def _free_energy(self, state: State) -> tuple[Tensor, dict[int, Tensor]]:
        """The free energy, and the fields on the layers that are summed out, by their numbers."""
        present = self._statistics(state)
        for below in range(len(self.names) - 1):
            if below not in present and below + 1 not in present:
                raise ValueError(
                    f"the sum over two neighbouring layers has no closed form: expected {self.names[below]} "
                    f"or {self.names[below + 1]} in the state, got {', '.join(state) or 'nothing'}"
                )
        shifted = {layer: self._shifted(layer, value) for layer, value in present.items()}
        fields: dict[int, Tensor] = {}
        total: Tensor | float = 0.0
        for layer in range(len(self.names)):
            units = self.units[layer]
            if layer in present:
                total = total + units.base_energy(present[layer]) - shifted[layer] @ self.b[layer]
                if layer + 1 in present:
                    total = total - (shifted[layer] @ self.W[layer] * shifted[layer + 1]).sum(-1)
            else:
                fields[layer] = field = self._field(layer, shifted)
                total = total - units.log_normalizer(field)
                if self.centred:
                    total = total + field @ self._offset(layer)
        return torch.as_tensor(total), fields

    def energy(self, state: State) -> Tensor:
        """E of values of all layers, in nats, shape ``(...)``.

        Raises:
            ValueError: If a layer is missing.
        """
        missing = [name for name in self.names if name not in state]
        if missing:
            raise ValueError(f"the energy is that of all layers, got none for {', '.join(missing)}")
        return self.free_energy(state)

    def model(self, x: Tensor | None = None, y: Tensor | None = None, *, num: int = 1) -> Tensor:
        """The unnormalised joint: flat sites and a factor of -E, so that a trace scores a configuration.

        It scores and does not draw: what its sites give where nothing is observed are numbers from anywhere
        in the support. `sample` draws.

        Args:
            x: Items to observe as ``v``, ``(batch, *event_shape)``; None leaves it latent.
            y: Labels to observe, ``(batch,)``, in a machine with a label unit; None leaves it latent.
            num: Size of the plate where both are None.
        """
        pyro.module(self.name, self)
        given = x if x is not None else y
        observed = {"v": x, "y": y}
        with pyro.plate("data", num if given is None else len(given)):
            with poutine.mask(mask=False):
                state = {
                    name: pyro.sample(name, units.flat(self.b[0]), obs=observed.get(name))
                    for name, units in zip(self.names, self.units, strict=True)
                }
            pyro.factor("energy", -self.energy(state))
        return state["v"]

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """The factorised q(h | v) of `mean_field`; over the label too, where there is one and y is None."""
        pyro.module(self.name, self)
        means = self.mean_field(x, y)
        with pyro.plate("data", len(x)):
            for layer, name in enumerate(self.names[1:], 1):
                if name != "y" or y is None:
                    units = self.units[layer]
                    pyro.sample(name, units.distribution(units.field(means[name])))

    # Block conditionals

    def conditional(self, name: str, state: State) -> Distribution:
        """The distribution of a layer given its neighbours: exact, and of independent units.

        Args:
            name: One of ``names``.
            state: Values of at least its neighbours.

        Raises:
            ValueError: If there is no such layer, or the state lacks one of its neighbours.

        Example:
            >>> machine = BoltzmannMachine((2, 2), (3,))
            >>> machine.conditional("h_1", {"v": torch.ones(5, 2, 2)}).mean.shape
            torch.Size([5, 3])
        """
        layer = self._number(name)
        near = [self.names[other] for other, _ in self.neighbours(layer)]
        missing = [other for other in near if other not in state]
        if missing:
            raise ValueError(
                f"the conditional of {name} expects values of {' and '.join(near)}, got none for "
                f"{' and '.join(missing)}"
            )
        return self.units[layer].distribution(self._field(layer, self._shifted_neighbours(layer, state)))

    def blocks(self) -> tuple[Block, ...]:
        """The odd layers and the even ones: each block is drawn at once, given the other."""
        return tuple(
            Block(self.names[parity::2], lambda state, parity=parity: self._draw(parity, state))
            for parity in (1, 0)
        )

    def _draw(self, parity: int, state: State) -> State:
        drawn = {}
        for layer in range(parity, len(self.names), 2):
            units = self.units[layer]
            field = self._field(layer, self._shifted_neighbours(layer, state))
            drawn[self.names[layer]] = units.value(units.sample(field))
        return drawn

    def initial_state(self, num: int) -> State:
        """Values to start ``num`` chains from: independent units, with the means seen under the data."""
        state = {}
        for layer, (name, units) in enumerate(zip(self.names, self.units, strict=True)):
            field = units.field(self._mean(layer))
            state[name] = units.value(units.sample(field.expand(num, -1)))
        return state

    # Inference given items

    @torch.no_grad()
    def mean_field(
        self, x: Tensor, y: Tensor | None = None, *, tolerance: float = 1e-4, iterations: int = 100
    ) -> State:
        """The factorised q(h | v) that is nearest to the posterior, by coordinate ascent on the bound.

        Even and odd layers are updated in turn until no mean changes by more than ``tolerance``. They start
        from one pass upwards with doubled weights, which stand for what the layer above would add.

        Args:
            x: Items, ``(..., *event_shape)``.
            y: Labels, ``(...)``, -1 where missing; None where all are.
            tolerance: Largest change of a mean in the last update.
            iterations: Updates of all layers, at most.

        Returns:
            Means of each hidden layer, ``(..., units)``, and of the label, ``(..., classes)``.

        References:
            | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009), section 2.2
        """
        shifted = {0: self._shifted(0, self._statistics({"v": x})[0])}
        means: dict[int, Tensor] = {}
        last = len(self.names) - 1
        # Of the items, which stay as they are: the widest product, made once.
        clamped_field = linear(shifted[0], self.W[0].T, self.b[1])
        for layer in range(1, last + 1):
            doubled = 2.0 if layer < last else 1.0
            field = clamped_field if layer == 1 else shifted[layer - 1] @ self.W[layer - 1] + self.b[layer]
            means[layer] = self._known(layer, self.units[layer].mean(doubled * field), y)
            shifted[layer] = self._shifted(layer, means[layer])
        if last == 1:
            return {self.names[1]: means[1]}
        for _ in range(iterations):
            change = 0.0
            for layer in (*range(1, last + 1, 2), *range(2, last + 1, 2)):
                if layer == 1:
                    field = clamped_field + shifted[2] @ self.W[1].T
                else:
                    field = self._field(layer, shifted)
                mean = self._known(layer, self.units[layer].mean(field), y)
                change = max(change, (mean - means[layer]).abs().max().item())
                means[layer], shifted[layer] = mean, self._shifted(layer, mean)
            if change <= tolerance:
                break
        return {name: means[layer] for layer, name in enumerate(self.names) if layer}

    def posterior(self, x: Tensor, y: Tensor | None = None) -> State:
        """The even layers for `free_energy`: items, and means of the hidden ones; and labels, where given."""
        if len(self.names) == 2:
            return {"v": x}
        means = self.mean_field(x, y)
        state = {"v": x} | {name: means[name] for name in self.names[2::2]}
        return state | {"y": means["y"]} if y is not None and "y" in means else state

    def variational_bound(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Lower bound on log p*(v), or with labels log p*(v, y), in nats, shape ``(batch,)``; without log Z.

            log p*(v) ≥ E_q[-E(v, h)] + H(q),    q by `mean_field`.

        In an RBM it is exact. Labels that are not given are summed out, each with a bound of its own.

        Raises:
            ValueError: If labels are given and there is no label unit.
        """
        if y is not None:
            self._check_labels(y, len(x), lowest=MISSING)
        if self.num_classes is not None and (y is None or (y == MISSING).any()):
            by_label = self.bound_by_label(x)
            if y is None:
                return by_label.logsumexp(-1)
            given = by_label.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            return torch.where(y == MISSING, by_label.logsumexp(-1), given)
        state = self.posterior(x, y)
        bound = -self.free_energy(state)
        for layer in range(2, len(self.names), 2):
            if self.names[layer] != "y":
                bound = bound + self.units[layer].entropy(state[self.names[layer]])
        return bound

    def bound_by_label(self, x: Tensor) -> Tensor:
        """`variational_bound` of the items with each label, ``(batch, classes)``, in nats.

        Raises:
            ValueError: If the machine has no label unit.
        """
        num = self._classes()
        classes = torch.arange(num, device=x.device)
        items = x.repeat_interleave(num, 0)
        return self.variational_bound(items, classes.repeat(len(x))).view(len(x), num)

    @property
    def bound_is_exact(self) -> bool:
        """Whether `variational_bound` is log p*(v) itself: in an RBM, with a label unit or without."""
        return len(self.hidden_names) == 1

    def classify(self, x: Tensor) -> Tensor:
        """The logits log p(y | v), ``(batch, classes)``: exact in an RBM, else from the bound for each label.

        Raises:
            ValueError: If the machine has no label unit.
        """
        return self.bound_by_label(x).log_softmax(-1)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Mean-field means of all hidden layers, ``(batch, units of all)``."""
        means = self.mean_field(x)
        return torch.cat([means[name] for name in self.hidden_names], -1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(v | h_1) at the mean-field mean of h_1."""
        field = self._field(0, {1: self._shifted(1, self.mean_field(x)["h_1"])})
        return self.units[0].value(self.units[0].mean(field))

    # Annealing, and drawing by it

    @torch.no_grad()
    def annealing(
        self, x: Tensor | None = None, y: Tensor | None = None, *, base: Tensor | None = None
    ) -> Annealing:
        """The path from independent units to this machine; with items, to its posterior given them.

        Args:
            x: Items that v is held at, ``(batch, *event_shape)``; the path then starts from `mean_field`.
            y: Labels that the label unit is held at, ``(batch,)``.
            base: Items whose mean entries the visible units start with; left out, as seen in training.

        Raises:
            ValueError: If labels are given and there is no label unit, or one of them is no class of it.
        """
        if y is not None:
            self._check_labels(y, len(y) if x is None else len(x))
        start = [units.field(self._mean(layer)) for layer, units in enumerate(self.units)]
        if base is not None:
            seen = self._statistics({"v": base.to(self.b[0])})[0]
            start[0] = self.units[0].field(seen.reshape(-1, seen.shape[-1]).mean(0))
        clamped: dict[int, Tensor] = {}
        if y is not None:
            clamped[len(self.names) - 1] = self._statistics({"y": y})[len(self.names) - 1]
        if x is not None:
            clamped[0] = self._statistics({"v": x})[0]
            means = self.mean_field(x, y)
            for layer, name in enumerate(self.names[1:], 1):
                start[layer] = self.units[layer].field(means[name])
        return Annealing(self, start, clamped)

    def _sample(self, num: int, y: Tensor | int | None = None, sweeps: int = 1000) -> Tensor:
        """Anneals half of the sweeps from independent units to the machine, and runs it for the others."""
        if not is_count(sweeps):
            integer = "" if isinstance(sweeps, Integral) else "an integer of "
            raise ValueError(f"sweeps must be {integer}at least 1, got {sweeps!r}")
        if y is not None:
            y = torch.as_tensor(y, device=self.b[0].device)
            y = y.expand(num) if y.dim() == 0 else y
            self._check_labels(y, num)
        path = self.annealing(y=y)
        place = path.start(num if y is None else 1)
        for sweep in range(1, sweeps + 1):
            place = path.step(place, min(1.0, 2 * sweep / sweeps))
        v = path.complete(place)["v"]
        return v if y is None else v[0]

    # The truth, where the machine is small

    def log_partition(self) -> Tensor:
        """The exact log Z in nats, float64; see `zoo.undirected.enumeration`."""
        return enumeration.log_partition(self)

    def log_marginal(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The exact log p(v), or with labels log p(v, y), in nats, ``(batch,)``, float64."""
        return enumeration.log_marginal(self, x, y)

    def exact_moments(self) -> enumeration.Moments:
        """The exact means of every layer's statistic and of the products over every connection, float64."""
        return enumeration.exact_moments(self)

    def exact_posterior_means(self, x: Tensor, y: Tensor | None = None) -> State:
        """The exact means of every hidden layer's statistic given items, by its name, float64."""
        return enumeration.exact_posterior_means(self, x, y)

    def exact_sample(self, num: int, *, seed: int | None = None) -> State:
        """Exact, independent draws of all layers, ``(num, ...)``."""
        return enumeration.exact_sample(self, num, seed=seed)

    # Learning

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Sets the biases of the visible units by items of the training, before there has been any.

        Their means become those of the items: log-odds for units 0 or 1. Once `track` has run, nothing.

        References:
            | A Practical Guide to Training Restricted Boltzmann Machines (Hinton, 2012), section 8.1
        """
        if self.batches_seen > 0:
            return
        mean = self._statistics({"v": x})[0].mean(0)
        if self.support is constraints.boolean:  # one more item that is even in every entry
            mean = (mean * len(x) + 0.5) / (len(x) + 1)
        self.mean_0.copy_(mean)
        self.b[0].copy_(self.units[0].field(mean))

    @torch.no_grad()
    def track(self, state: State, *, rate: float = 0.01) -> None:
        """Moves the running means towards those of a state given items; a centred machine stays the same.

        A centred machine's offsets move with them, and its biases by what keeps the distribution. Where
        several processes train together, the means are those over all of them.

        Args:
            state: Values or means of the even layers, as `posterior` gives them.
            rate: Share of the new means.
        """
        statistics = self._statistics(state)
        shifted = {layer: self._shifted(layer, value) for layer, value in statistics.items()}
        changes = {}
        for layer, units in enumerate(self.units):
            if layer in statistics:
                mean = statistics[layer].mean(0)
            elif self.centred:
                mean = units.mean(self._field(layer, shifted)).mean(0)
            else:
                continue
            changes[layer] = rate * (_over_processes(mean) - self._mean(layer))
        for layer, change in changes.items():
            self._mean(layer).add_(change)
        if self.centred:
            for layer in range(len(self.names)):
                for neighbour, weight in self.neighbours(layer):
                    self.b[layer].add_(changes[neighbour] @ weight)
        self.batches_seen.add_(1)

    def pair(self, layer: int) -> Pair:
        """Layers ``layer`` and ``layer + 1`` as a machine to pretrain, of the same weights (see `Pair`)."""
        return Pair(self, layer)

    # Between layers

    def neighbours(self, layer: int) -> Iterator[tuple[int, Tensor]]:
        """The layers next to one, with the weights from their units to its own."""
        if layer > 0:
            yield layer - 1, self.W[layer - 1]
        if layer + 1 < len(self.names):
            yield layer + 1, self.W[layer].T

    def uncentred(self) -> tuple[list[Tensor], Tensor]:
        """The biases of the same machine without offsets, and the constant that its -E lacks."""
        if not self.centred:
            return list(self.b), torch.zeros_like(self.b[0][0])
        offsets = [self._offset(layer) for layer in range(len(self.names))]
        biases = [
            self.b[layer] - sum(offsets[other] @ weight for other, weight in self.neighbours(layer))
            for layer in range(len(self.names))
        ]
        pairs = [
            below @ weight @ above for below, weight, above in zip(offsets, self.W, offsets[1:], strict=False)
        ]
        own = [offset @ bias for offset, bias in zip(offsets, self.b, strict=True)]
        return biases, torch.stack(pairs).sum() - torch.stack(own).sum()

    def statistic(self, name: str, value: Tensor) -> Tensor:
        """The statistic of a layer's values, ``(..., units)``."""
        return self._statistics({name: value})[self.names.index(name)]

    def _statistics(self, state: State) -> dict[int, Tensor]:
        statistics = {}
        for layer, name in enumerate(self.names):
            if name in state:
                value = state[name]
                if name == "y":
                    value = value if value.is_floating_point() else self.units[layer].statistic(value)
                    statistics[layer] = value.to(self.b[0])
                else:
                    statistics[layer] = self.units[layer].statistic(value)
        return statistics

    def _number(self, name: str) -> int:
        """The number of a layer."""
        if name not in self.names:
            raise ValueError(f"{type(self).__name__} has the layers {', '.join(self.names)}, got {name!r}")
        return self.names.index(name)

    def _mean(self, layer: int) -> Tensor:
        return getattr(self, f"mean_{layer}")

    _offset = _mean

    def _shifted(self, layer: int, statistic: Tensor) -> Tensor:
        return statistic - self._offset(layer) if self.centred else statistic

    def _shifted_neighbours(self, layer: int, state: State) -> dict[int, Tensor]:
        near = {self.names[other]: state[self.names[other]] for other, _ in self.neighbours(layer)}
        return {other: self._shifted(other, value) for other, value in self._statistics(near).items()}

    def _field(self, layer: int, shifted: dict[int, Tensor]) -> Tensor:
        """The field on a layer: its biases, and what those of its neighbours add that are given."""
        field = None
        for neighbour, weight in self.neighbours(layer):
            if neighbour in shifted:
                if field is None:
                    field = linear(shifted[neighbour], weight.T, self.b[layer])
                else:
                    field = field + shifted[neighbour] @ weight
        assert field is not None
        return field

    def _known(self, layer: int, mean: Tensor, y: Tensor | None) -> Tensor:
        """The means of a layer, with labels that are known in place of those of the label unit."""
        if y is None or self.names[layer] != "y":
            return mean
        known = self.units[layer].statistic(y.clamp(min=0)).to(mean)
        return torch.where((y != MISSING).unsqueeze(-1), known, mean)

    def check(self, x: Tensor, y: Tensor | None = None) -> None:
        """As `GenerativeModel.check`; and labels must be ``(batch,)`` integers, -1 (missing) to C - 1."""
        super().check(x)
        if y is not None:
            self._check_labels(y, len(x), lowest=MISSING)

    def check_training(self, x: Tensor, y: Tensor | None = None) -> None:
        """Refuses real entries that are the same in all items: their scale would shrink without end."""
        if self.support is constraints.real:
            refuse_constant_entries(type(self).__name__, x)

    def _check_labels(self, y: Tensor, num: int, *, lowest: int = 0) -> None:
        check_labels(y, num, self._classes(), lowest=lowest)

    def _classes(self) -> int:
        if self.num_classes is None:
            raise ValueError(f"{type(self).__name__} has no label unit; build it with num_classes")
        return self.num_classes


def is_count(value: object, *, least: int = 1) -> bool:
    """Whether something is an integer, and no bool, of at least so much."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _over_processes(mean: Tensor) -> Tensor:
    """The mean over the processes that train together: their biases would part ways by their own means."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        mean = mean.clone()
        torch.distributed.all_reduce(mean)
        return mean / torch.distributed.get_world_size()
    return mean
