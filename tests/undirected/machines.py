"""Machines small enough to enumerate, and their joint distribution by the formula alone."""

import math

import torch

from zoo import DBM, RBM
from zoo.undirected import BoltzmannMachine

BINARY = {
    "rbm": lambda: RBM((2, 2), 3),
    "labelled rbm": lambda: RBM((3,), 2, num_classes=3),
    "centred rbm": lambda: RBM((2, 2), 3, centred=True),
    "dbm": lambda: DBM((2, 2), (3, 2)),
    "labelled dbm": lambda: DBM((3,), (2, 2), num_classes=3),
    "deep dbm": lambda: DBM((3,), (2, 2, 2), num_classes=2, centred=True),
}
REAL = {
    "gaussian rbm": lambda: RBM((2,), 3, visible="gaussian"),
    "labelled gaussian rbm": lambda: RBM((2,), 3, visible="gaussian", num_classes=3, centred=True),
    "gaussian dbm": lambda: DBM((2,), (3, 2), visible="gaussian"),
}
ALL = BINARY | REAL


def randomised(machine: BoltzmannMachine, scale: float = 0.8, seed: int = 0) -> BoltzmannMachine:
    """The machine with random parameters, and random means of the layers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0.0, scale, generator=generator)
        for layer, units in enumerate(machine.units):
            field = torch.empty(units.num).normal_(0.0, 0.5, generator=generator)
            getattr(machine, f"mean_{layer}").copy_(units.mean(field))
    return machine


def built(name: str, scale: float = 0.8) -> BoltzmannMachine:
    return randomised(ALL[name](), scale).double()


def random_machine(seed: int, least: float = 0.1, most: float = 0.5) -> BoltzmannMachine:
    """One of 1 to 3 hidden layers; some are centred, some have labels, some real visible units."""
    depth = 1 + seed % 3
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(2, 6, (1 + depth,), generator=generator).tolist()
    scale = least + (most - least) * torch.rand((), generator=generator).item()
    machine = BoltzmannMachine(
        (sides[0],),
        tuple(sides[1:]),
        visible="gaussian" if seed % 5 == 4 else "bernoulli",
        num_classes=3 if seed % 4 == 1 else None,
        centred=seed % 2 == 1,
    )
    return randomised(machine, scale, seed)


def every_value(machine: BoltzmannMachine, names: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
    """All joint values of the named layers, of all if None: ``(count, ...)`` by name."""
    names = machine.names if names is None else names
    units = [machine.units[machine.names.index(name)] for name in names]
    tables = [each.configurations(torch.zeros((), dtype=torch.float64)) for each in units]
    index = torch.cartesian_prod(*(torch.arange(len(table)) for table in tables)).reshape(-1, len(tables))
    return {
        name: each.value(table[index[:, place]])
        for place, (name, each, table) in enumerate(zip(names, units, tables, strict=True))
    }


def energy_by_formula(machine: BoltzmannMachine, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Σ_k [e(z_k) - b_k·s̄_k] - Σ_k s̄_{k-1}·W_k s̄_k, unit by unit."""
    energy = torch.zeros((), dtype=torch.float64)
    shifted = []
    for layer, name in enumerate(machine.names):
        if name == "y":
            s = torch.nn.functional.one_hot(state[name], machine.num_classes).double()
        else:
            s = state[name].flatten(1)
        if name == "v" and hasattr(machine.units[0], "log_scale"):
            s = s / machine.units[0].log_scale.exp()
            energy = energy + 0.5 * s.square().sum(1)
        if machine.centred:
            s = s - getattr(machine, f"mean_{layer}")
        shifted.append(s)
        energy = energy - s @ machine.b[layer]
    for below, W, above in zip(shifted, machine.W, shifted[1:], strict=False):
        energy = energy - torch.einsum("ni,ij,nj->n", below, W, above)
    return energy.detach()


def groups(state: dict[str, torch.Tensor], names: tuple[str, ...]) -> torch.Tensor:
    """For each joint value the number of the group that agrees with it in these layers, ``(count,)``."""
    count = len(next(iter(state.values())))
    columns = torch.cat([torch.zeros(count, 1), *(state[name].reshape(count, -1) for name in names)], 1)
    return columns.unique(dim=0, return_inverse=True)[1]


def log_sum(log_values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """For each value the logsumexp of those in its group."""
    largest = log_values.max()
    total = torch.zeros(int(group.max()) + 1, dtype=log_values.dtype)
    return (total.index_add(0, group, (log_values - largest).exp()).log() + largest)[group]


def is_distributed_as(counts: torch.Tensor, probabilities: torch.Tensor) -> bool:
    """Whether chi-squared is within five of its standard deviations; rare cells are taken together."""
    expected = counts.sum() * probabilities
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum().unsqueeze(0)])
        expected = torch.cat([expected[~rare], expected[rare].sum().unsqueeze(0)])
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected).square() / expected).sum().item()
    freedom = len(expected) - 1
    return statistic < freedom + 5 * math.sqrt(2 * freedom)


def tally(drawn: dict[str, torch.Tensor], every: dict[str, torch.Tensor]) -> torch.Tensor:
    """How often each of ``every`` was drawn."""
    count = len(next(iter(every.values())))
    both = {name: torch.cat([value, drawn[name].to(value)]) for name, value in every.items()}
    group = groups(both, tuple(every))
    size = int(group.max()) + 1
    assert size == count
    return torch.bincount(group[count:], minlength=size)[group[:count]].double()
