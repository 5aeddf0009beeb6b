"""The exact truth of small machines: every configuration of one side, with the other summed out.

Even and odd layers are independent given each other, so that a sum over all layers is one over the side with
fewer configurations, of `free_energy`, which sums the other side out analytically:

    Z = Σ_kept exp(-F(kept)),    E[s_out | kept] = ∂A(f)/∂f,    f the field of the kept layers.

Everything is in float64 and goes by pieces; one side may have up to `MOST` configurations, the other may be
of any size, and real.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo.model import check_labels

if TYPE_CHECKING:
    from zoo.undirected.boltzmann import BoltzmannMachine, State

MOST = 2**20
"""Configurations of a side that are summed over at most: those of 20 units that are 0 or 1."""

PIECE = 2**22
"""Numbers that are held at once for one layer."""


class Moments(NamedTuple):
    """What the gradient of log Z is made of.

    Attributes:
        means: Mean of the statistic of each layer, ``(units,)``, by its name.
        pairs: For each weight matrix, the mean of the products of statistics, as large as the matrix.
    """

    means: dict[str, Tensor]
    pairs: list[Tensor]


def log_partition(machine: "BoltzmannMachine") -> Tensor:
    """The log-normaliser log Z, in nats, a float64 number.

    Raises:
        ValueError: If both sides have more than `MOST` configurations.

    Example:
        >>> from zoo import RBM
        >>> rbm = RBM((28, 28), hidden=3)
        >>> _ = torch.nn.init.zeros_(rbm.W[0])
        >>> round(log_partition(rbm).item() / math.log(2), 6)
        787.0
    """
    return _Enumeration(machine).log_sum()[0]


def log_marginal(machine: "BoltzmannMachine", x: Tensor, y: Tensor | None = None) -> Tensor:
    """The exact log p(v), or with labels log p(v, y), in nats, ``(batch,)``, float64: all else is summed out.

    Args:
        machine: A machine small enough for `log_partition`.
        x: Items, ``(batch, *event_shape)``.
        y: Their labels, ``(batch,)``, none of them missing; None sums them out too.

    Raises:
        ValueError: As `log_partition`, or if the items or labels do not suit the machine.

    Example:
        >>> from zoo import DBM
        >>> dbm = DBM((2, 2), hidden=(3, 2))
        >>> everything = dbm.units[0].configurations(torch.zeros(())).view(-1, 2, 2)
        >>> round(log_marginal(dbm, everything).exp().sum().item(), 6)
        1.0
    """
    return _Enumeration(machine, x, y).log_sum() - log_partition(machine)


def exact_moments(machine: "BoltzmannMachine") -> Moments:
    """Means of every layer's statistic and of the products over every connection, float64.

    Raises:
        ValueError: As `log_partition`.
    """
    enumeration = _Enumeration(machine)
    return Moments(enumeration.means(), enumeration.pairs())


def exact_posterior_means(machine: "BoltzmannMachine", x: Tensor, y: Tensor | None = None) -> "State":
    """Means of every hidden layer's statistic given items, ``(batch, units)``, by its name, float64.

    Args:
        machine: A machine whose hidden layers have a side of at most `MOST` configurations.
        x: Items, ``(batch, *event_shape)``.
        y: Their labels, ``(batch,)``, none missing; None leaves the label unit among the hidden layers.

    Raises:
        ValueError: As `log_marginal`.
    """
    return _Enumeration(machine, x, y).means()


def exact_sample(machine: "BoltzmannMachine", num: int, *, seed: int | None = None) -> "State":
    """Exact, independent draws of all layers, ``(num, ...)``, in the type of the machine.

    Args:
        machine: A machine small enough for `log_partition`.
        num: How many, at least 1.
        seed: Makes the draw reproducible, and leaves torch's generators alone; None draws from them.

    Raises:
        ValueError: As `log_partition`, or if ``num`` is below 1.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    enumeration = _Enumeration(machine)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        drawn = enumeration.draw(num)
    return {
        name: machine.units[layer].value(drawn[layer].to(machine.b[0]))
        for layer, name in enumerate(machine.names)
    }


class _Enumeration:
    """The sum over all layers but those that items hold: one side is enumerated, the other summed out."""

    @torch.no_grad()
    def __init__(self, machine: "BoltzmannMachine", x: Tensor | None = None, y: Tensor | None = None) -> None:
        if x is not None:
            machine.check(x)
        if y is not None:
            machine.check(x, y)
            check_labels(y, len(y), machine.num_classes)
        self.names = machine.names
        held = {name for name, value in (("v", x), ("y", y)) if value is not None}
        self.kept = _smaller_side(machine, held)
        self.machine = machine if machine.b[0].dtype == torch.float64 else deepcopy(machine).double()
        self.biases = self.machine.uncentred()[0]
        self.held: dict[str, Tensor] = {}
        if x is not None:
            self.held["v"] = x.double()
        if y is not None:
            self.held["y"] = self.machine.statistic("y", y)
        self.items = 1 if x is None else len(x)
        # Of a type that takes little room: a piece of them becomes numbers when its turn comes.
        like = torch.zeros((), dtype=torch.bool, device=machine.b[0].device)
        self.tables = {layer: machine.units[layer].configurations(like) for layer in self.kept}
        self.count = math.prod(len(table) for table in self.tables.values())

    def configurations(self, index: Tensor) -> dict[int, Tensor]:
        """Statistics of the layers that are kept, in the configurations of these numbers."""
        statistics = {}
        for layer, table in self.tables.items():
            statistics[layer] = table[index % len(table)].double()
            index = index // len(table)
        return statistics

    def pieces(self) -> Iterator[tuple[slice, dict[int, Tensor], Tensor]]:
        """Which items, the statistics ``(i, 1, ...)`` or ``(c, ...)`` of both, and their -F, ``(i, c)``."""
        widest = max(self.machine.units[layer].num for layer in range(len(self.names)))
        num_items = max(1, min(self.items, PIECE // widest))
        num_indices = max(1, PIECE // widest // num_items)
        indices = torch.arange(self.count, device=self.biases[0].device).split(num_indices)
        for start in range(0, self.items, num_items):
            part = slice(start, min(start + num_items, self.items))
            held = {name: value[part].unsqueeze(1) for name, value in self.held.items()}
            for index in indices:
                statistics = self.configurations(index)
                state = held | {
                    self.names[k]: s if self.names[k] == "y" else self.machine.units[k].value(s)
                    for k, s in statistics.items()
                }
                log_weights = -self.machine.free_energy(state)
                for name, value in held.items():
                    statistics[self.names.index(name)] = self.machine.statistic(name, value)
                yield part, statistics, log_weights.expand(part.stop - part.start, len(index))

    @torch.no_grad()
    def log_sum(self) -> Tensor:
        """The log of the sum for each item, ``(items,)``."""
        total = self.biases[0].new_full((self.items,), -math.inf)
        for part, _, log_weights in self.pieces():
            total[part] = torch.logaddexp(total[part], log_weights.logsumexp(-1))
        return total

    def field(self, layer: int, statistics: dict[int, Tensor]) -> Tensor:
        """The field on a layer that is summed out, of all its neighbours."""
        field = self.biases[layer]
        for neighbour, weight in self.machine.neighbours(layer):
            field = field + statistics[neighbour] @ weight
        return field

    def complete(self, statistics: dict[int, Tensor]) -> dict[int, Tensor]:
        """The same, with the means of the layers that are summed out."""
        means = {
            layer: self.machine.units[layer].mean(self.field(layer, statistics))
            for layer in range(len(self.names))
            if layer not in statistics
        }
        return statistics | means

    @torch.no_grad()
    def means(self) -> dict[str, Tensor]:
        """Means of every layer that no item holds: ``(items, units)``, without items ``(units,)``."""
        log_sum = self.log_sum()
        free = [layer for layer, name in enumerate(self.names) if name not in self.held]
        total = {layer: self.biases[layer].new_zeros(self.items, len(self.biases[layer])) for layer in free}
        for part, statistics, log_weights in self.pieces():
            shares = (log_weights - log_sum[part].unsqueeze(-1)).exp().unsqueeze(-2)
            for layer, value in self.complete(statistics).items():
                if layer in total:
                    total[layer][part] += (shares @ value).squeeze(-2)
        return {self.names[layer]: value if self.held else value.squeeze(0) for layer, value in total.items()}

    @torch.no_grad()
    def pairs(self) -> list[Tensor]:
        """Means of the products over every connection, without items."""
        log_sum = self.log_sum()
        total = [torch.zeros_like(weight) for weight in self.machine.W]
        for _, statistics, log_weights in self.pieces():
            shares = (log_weights - log_sum).exp().squeeze(0).unsqueeze(-1)
            value = self.complete(statistics)
            for below, pair in enumerate(total):
                pair += value[below].T @ (shares * value[below + 1])
        return total

    @torch.no_grad()
    def draw(self, num: int) -> dict[int, Tensor]:
        """Statistics of all layers: those kept by their exact probabilities, those between given them."""
        weights = torch.cat([log_weights.squeeze(0) for _, _, log_weights in self.pieces()])
        cumulative = (weights - weights.max()).exp().cumsum(0)
        point = torch.rand(num, dtype=torch.float64, device=weights.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, point, right=True).clamp(max=self.count - 1)
        statistics = self.configurations(index)
        between = {
            layer: self.machine.units[layer].sample(self.field(layer, statistics))
            for layer in range(len(self.names))
            if layer not in statistics
        }
        return statistics | between


def _smaller_side(machine: "BoltzmannMachine", held: set[str]) -> list[int]:
    """The layers, even or odd, that are enumerated: those with fewer configurations.

    Raises:
        ValueError: If either side has more than `MOST`.
    """
    layers = [layer for layer, name in enumerate(machine.names) if name not in held]
    sides = [[layer for layer in layers if layer % 2 == parity] for parity in (0, 1)]
    counts = [math.prod(machine.units[layer].count for layer in side) for side in sides]
    if min(counts) > MOST:
        got = " and ".join(
            f"{', '.join(machine.names[layer] for layer in side)} with "
            + ("real values" if count == math.inf else f"2^{math.log2(count):.4g}")
            for side, count in zip(sides, counts, strict=True)
        )
        raise ValueError(
            f"enumeration expects even or odd layers of at most 2^{math.log2(MOST):g} configurations, "
            f"got {got}"
        )
    return sides[counts.index(min(counts))]
