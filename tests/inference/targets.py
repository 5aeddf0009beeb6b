"""Targets of known moments, as programs, densities or blocks, for every kernel to be held against.

One more target is one more function in `TARGETS`: it is run by every kernel that can take it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

import inference
import zoo
from tests.undirected.machines import every_value, randomised

State = dict[str, Tensor]

SEVERAL = 20
"""Beyond so many entries the products of neighbours alone are looked at."""


class Known(NamedTuple):
    """First and second moments of x, ``(d,)`` and ``(d, d)``.

    Attributes:
        mean: E[x].
        second: E[x xᵀ].
        num_drawn: How many exact draws they are the means of; None where they are exact themselves.
    """

    mean: Tensor
    second: Tensor
    num_drawn: int | None = None


@dataclass(frozen=True)
class Target:
    """A distribution over named sites whose first and second moments are known.

    The entries of all sites, in their order, are one vector x of d numbers.

    Attributes:
        name: Of the target.
        discrete: Whether each site is.
        dim: d.
        known: Its moments, or a function that finds them once they are asked for.
        draw: Exact draws, so many.
        model: The Pyro program; None where there is a density alone.
        args: What it is called with.
        log_density: That density of a state, up to a constant.
        blocks: What `inference.BlockGibbs` takes, where conditionals are known. Its sites have no plate.
        is_cheap: Whether the density is no more than a few operations.
    """

    name: str
    discrete: dict[str, bool]
    dim: int
    known: Known | Callable[[], Known]
    draw: Callable[[int], State]
    model: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    log_density: Callable[[State], Tensor] | None = None
    blocks: Any = None
    is_cheap: bool = True

    @property
    def density(self) -> dict[str, Any]:
        """What a kernel on a density is made with."""
        return {"log_density": self.log_density} if self.model is None else {"model": self.model}

    def sites(self, *, discrete: bool) -> list[str]:
        return [name for name, each in self.discrete.items() if each == discrete]

    def vectors(self, state: State, dims: int = 1) -> Tensor:
        """x of a state whose tensors begin with ``dims`` dimensions, those of chains and draws."""
        values = (state[name].double() for name in self.discrete)
        return torch.cat([value.reshape(*value.shape[:dims], -1) for value in values], -1)

    def moments(self, samples: State) -> Tensor:
        """Means over the draws of each chain, of x and of products of its entries, ``(chain, moments)``."""
        x = self.vectors(samples, 2)
        if self.dim > SEVERAL:
            products = [(x * x).mean(1), (x[..., 1:] * x[..., :-1]).mean(1)]
        else:
            one, other = torch.triu_indices(self.dim, self.dim)
            products = [torch.einsum("cdi,cdj->cij", x, x)[:, one, other] / x.shape[1]]
        return torch.cat([x.mean(1), *products], 1)

    @cached_property
    def exact(self) -> tuple[Tensor, Tensor | float]:
        """What `moments` should be, and the variance of that."""
        mean, second, num_drawn = self.known() if callable(self.known) else self.known
        if self.dim > SEVERAL:
            products = [second.diagonal(), second.diagonal(1)]
        else:
            one, other = torch.triu_indices(self.dim, self.dim)
            products = [second[one, other]]
        if num_drawn is None:
            return torch.cat([mean, *products]), 0.0
        some = {name: value.unsqueeze(1) for name, value in self.draw(10_000).items()}
        return torch.cat([mean, *products]), self.moments(some).var(0) / num_drawn

    def deviations(self, samples: State) -> Tensor:
        """How far the moments of draws ``(chain, draw, ...)`` are from the exact ones, in MCSE.

        Chains are independent, so that the spread of their own means gives the error of the mean of all.
        """
        found, (exact, variance) = self.moments(samples), self.exact
        return (found.mean(0) - exact) / (found.var(0) / len(found) + variance).sqrt()


def moments_of(mean: Tensor, covariance: Tensor) -> Known:
    return Known(mean.double(), (covariance + torch.outer(mean, mean)).double())


# Continuous


def gaussian(dims: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance: neighbours correlate by 0.6, and scales are from 0.5 to 1.5."""
    place = torch.arange(dims, dtype=torch.float64)
    scale = 1 + 0.5 * (place * 1.7).sin()
    return place.cos(), torch.outer(scale, scale) * 0.6 ** (place[:, None] - place).abs()


@cache
def gaussian_10() -> Target:
    mean, covariance = gaussian(10)
    normal = dist.MultivariateNormal(mean, covariance)
    return Target(
        "Gaussian of 10",
        {"x": False},
        10,
        moments_of(mean, covariance),
        draw=lambda num: {"x": normal.sample((num,))},
        model=lambda: pyro.sample("x", normal),
    )


@cache
def gaussian_100() -> Target:
    mean, covariance = gaussian(100)
    normal, precision = dist.MultivariateNormal(mean, covariance), covariance.inverse()

    def log_density(state: State) -> Tensor:
        x = state["x"] - mean
        return -0.5 * (x @ precision * x).sum(-1)

    return Target(
        "Gaussian of 100",
        {"x": False},
        100,
        moments_of(mean, covariance),
        draw=lambda num: {"x": normal.sample((num,))},
        log_density=log_density,
    )


SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)
MODES = torch.tensor([[-1.2, 0.9], [1.2, -0.9]], dtype=torch.float64)
"""Three standard deviations apart, so that walks cross."""


def two_modes() -> Known:
    mean = SHARES @ MODES
    return moments_of(mean, torch.eye(2) + MODES.T @ (SHARES[:, None] * MODES) - torch.outer(mean, mean))


def draw_modes(num: int) -> State:
    z = SHARES.multinomial(num, replacement=True)
    return {"z": z, "x": MODES[z] + torch.randn(num, 2, dtype=torch.float64)}


def log_modes(x: Tensor) -> Tensor:
    """Log joint density of each mode, up to a constant."""
    return SHARES.log() - 0.5 * (x.unsqueeze(-2) - MODES).square().sum(-1)


@cache
def two_modes_alone() -> Target:
    return Target(
        "two modes",
        {"x": False},
        2,
        two_modes(),
        draw=lambda num: {"x": draw_modes(num)["x"]},
        log_density=lambda state: log_modes(state["x"]).logsumexp(-1),
    )


@cache
def banana() -> Target:
    """x_1 ~ N(0, s²), x_2 ~ N(b (x_1² - s²), 1)."""
    s, b = 1.0, 0.5

    def draw(num: int) -> State:
        x, noise = s * torch.randn(num, dtype=torch.float64), torch.randn(num, dtype=torch.float64)
        return {"x": torch.stack([x, b * (x**2 - s**2) + noise], -1)}

    def log_density(state: State) -> Tensor:
        one, two = state["x"].unbind(-1)
        return -0.5 * (one / s) ** 2 - 0.5 * (two - b * (one**2 - s**2)) ** 2

    covariance = torch.tensor([s**2, 1 + 2 * b**2 * s**4]).diag()  # that of x_1 and x_1² is E[x_1³] = 0
    return Target(
        "banana", {"x": False}, 2, moments_of(torch.zeros(2), covariance), draw=draw, log_density=log_density
    )


@cache
def constrained() -> Target:
    """Sites that are no real numbers: they move through transforms, whose Jacobians count."""
    a = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    sites = {
        "p": dist.Beta(a[1], a[0]),
        "s": dist.Gamma(a[2], a[0]),
        "w": dist.Dirichlet(a),
    }

    def model() -> None:
        for name, distribution in sites.items():
            pyro.sample(name, distribution)

    w = a / a.sum()
    covariance = torch.block_diag(
        sites["p"].variance, sites["s"].variance, (w.diag() - torch.outer(w, w)) / (a.sum() + 1)
    )
    return Target(
        "constrained",
        dict.fromkeys(sites, False),
        5,
        moments_of(torch.cat([sites["p"].mean[None], sites["s"].mean[None], w]), covariance),
        draw=lambda num: {name: each.sample((num,)) for name, each in sites.items()},
        model=model,
    )


@cache
def ppca() -> Target:
    """Codes of three items, given these: a Gaussian of two dimensions for each."""
    generator = torch.Generator().manual_seed(0)
    machine = zoo.PPCA((4,), latent_dim=2).double()
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0.0, 0.7, generator=generator)
        x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        posterior = machine.posterior(x)
    return Target(
        "codes of PPCA",
        {"z": False},
        6,
        moments_of(posterior.mean.flatten(), torch.block_diag(*posterior.covariance_matrix)),
        draw=lambda num: {"z": posterior.sample((num,))},
        model=machine.model,
        args=(x,),
    )


@cache
def fitted() -> zoo.RealNVP:
    """A flow of two measurements of wines."""
    x = zoo.load("red-wine").train.x[:, [0, 8]]
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        network = zoo.RealNVP((2,), layers=3, hidden=(16,), limit=1.0)
        likelihood = inference.MaximumLikelihood(network)
        inference.fit(likelihood, x, epochs=4, batch_size=50, lr=1e-2, progress=False)
    return network.double().eval().requires_grad_(False)


@cache
def flow() -> Target:
    """A trained one: its density is known, and its moments are those of many exact draws."""

    def known() -> Known:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            x = fitted().sample(300_000)
        return Known(x.mean(0), x.T @ x / len(x), len(x))

    return Target(
        "flow",
        {"x": False},
        2,
        known,
        draw=lambda num: {"x": fitted().sample(num)},
        log_density=lambda state: fitted().log_prob(state["x"]),
        is_cheap=False,
    )


# Discrete


def enumerated(every: State, log_prob: Tensor) -> dict[str, Any]:
    """Moments and draws from a table of all values."""
    probs = log_prob.double().softmax(0)
    x = torch.cat([value.double().reshape(len(probs), -1) for value in every.values()], 1)

    def draw(num: int) -> State:
        index = probs.multinomial(num, replacement=True)
        return {name: value[index] for name, value in every.items()}

    return {
        "discrete": dict.fromkeys(every, True),
        "dim": x.shape[1],
        "known": Known(probs @ x, x.T @ (probs[:, None] * x)),
        "draw": draw,
    }


@cache
def dbm() -> Target:
    machine = randomised(zoo.DBM((2, 2), (3, 2)))
    every = every_value(machine)
    with torch.no_grad():
        found = enumerated(
            {name: value.float().unsqueeze(1) for name, value in every.items()},
            -machine.double().energy(every),
        )
    machine.float()
    return Target("DBM", **found, model=lambda: machine.model(num=1), blocks=machine)


@cache
def fvsbn() -> Target:
    """All pixels of a network, in its own order, which a sweep has no need of."""
    num = 6
    network = zoo.FVSBN((num,))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 1.0, generator=generator)
        every = torch.cartesian_prod(*(torch.tensor([0.0, 1.0]),) * num)
        log_prob = network.log_prob(every)
    columns = {f"x_{i}": every[:, i : i + 1] for i in range(num)}
    return Target("FVSBN", **enumerated(columns, log_prob), model=lambda: network.model(num=1))


# Both


class TwoModes:
    """The modes by their conditionals."""

    def blocks(self) -> list[dict[str, Any]]:
        return [
            {"z": lambda state: dist.Categorical(logits=log_modes(state["x"]))},
            {"x": lambda state: dist.Normal(MODES[state["z"]], 1.0).to_event(1)},
        ]

    def initial_state(self, num: int) -> State:
        return {"z": torch.zeros(num, dtype=torch.int64), "x": torch.zeros(num, 2, dtype=torch.float64)}


@cache
def modes_and_place() -> Target:
    def model() -> None:
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Categorical(SHARES))
            pyro.sample("x", dist.Normal(MODES[z], 1.0).to_event(1))

    # z is 0 or 1, so that E[z] = E[z²] = P(z = 1), and E[z x] is that times the mean of mode 1.
    x, z = two_modes(), SHARES[1]
    second = torch.zeros(3, 3, dtype=torch.float64)
    second[0, 0], second[0, 1:], second[1:, 0], second[1:, 1:] = z, z * MODES[1], z * MODES[1], x.second
    return Target(
        "two modes and which",
        {"z": True, "x": False},
        3,
        Known(torch.cat([z[None], x.mean]), second),
        draw=lambda num: {name: value.unsqueeze(1) for name, value in draw_modes(num).items()},
        model=model,
        blocks=TwoModes(),
    )


class Coin(TorchDistribution):
    """True or False, of the type that says so."""

    arg_constraints = {"probs": constraints.unit_interval}
    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs
        super().__init__(probs.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Coin":
        return Coin(self.probs.expand(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.rand(self.shape(sample_shape), dtype=self.probs.dtype) < self.probs

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.where(value, self.probs, 1 - self.probs).log()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.tensor([False, True]).reshape(-1, *(1,) * len(self.batch_shape))
        return values.expand(2, *self.batch_shape) if expand else values


LEVELS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
HEADS = torch.tensor([0.3, 0.8, 0.5], dtype=torch.float64)
PLACES = torch.tensor([-1.0, 0.0, 1.5], dtype=torch.float64)


@cache
def three_types() -> Target:
    """k is an int64, b a bool, and x a float that depends on both."""

    def model() -> None:
        k = pyro.sample("k", dist.Categorical(LEVELS))
        b = pyro.sample("b", Coin(HEADS[k]))
        pyro.sample("x", dist.Normal(PLACES[k] + 1.2 * b, 0.8))

    def draw(num: int) -> State:
        k = LEVELS.multinomial(num, replacement=True)
        b = torch.rand(num, dtype=torch.float64) < HEADS[k]
        return {"k": k, "b": b, "x": PLACES[k] + 1.2 * b + 0.8 * torch.randn(num, dtype=torch.float64)}

    k, b = torch.arange(3).repeat(2), torch.arange(6) >= 3
    cells = LEVELS[k] * torch.where(b, HEADS[k], 1 - HEADS[k])
    x = torch.stack([k, b, PLACES[k] + 1.2 * b], -1).double()
    second = x.T @ (cells[:, None] * x)
    second[2, 2] += 0.8**2
    return Target(
        "three types",
        {"k": True, "b": True, "x": False},
        3,
        Known(cells @ x, second),
        draw=draw,
        model=model,
    )


TARGETS = {
    "gaussian-10": gaussian_10,
    "gaussian-100": gaussian_100,
    "two-modes": two_modes_alone,
    "banana": banana,
    "constrained": constrained,
    "ppca": ppca,
    "flow": flow,
    "dbm": dbm,
    "fvsbn": fvsbn,
    "modes-and-place": modes_and_place,
    "three-types": three_types,
}
