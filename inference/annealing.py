"""Annealed importance sampling: the log-normaliser of an unnormalised density, from both sides.

Chains start from a density whose normaliser Z_0 is known, and follow p_β to the one in question. With
p*_β the unnormalised densities, 0 = β_0 < … < β_n = 1, and T_β a transition that leaves p_β as it is,

    w = ∏_i p*_{β_i}(s_{i-1}) / p*_{β_{i-1}}(s_{i-1}),    s_0 ~ p_0,    s_i ~ T_{β_i}(s_{i-1}),

has the mean E[w] = Z_1 / Z_0, at any number of steps: each
factor is that of the state before the transition (Neal's order).

References:
    | Annealed Importance Sampling (Neal, 2001)
    | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov & Murray, 2008)
    | Accurate and Conservative Estimates of MRF Log-likelihood using Reverse Annealing (Burda, Grosse &
      Salakhutdinov, 2015), for the reverse direction
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from statistics import NormalDist
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from inference.program import forked_rng
from inference.progress import progress as show_progress

FEW = 5
"""Chains of equal weight that an estimate must be worth, below which it warns."""

TOO_FEW = "too few chains carry the weight: take more steps"


@runtime_checkable
class Path(Protocol):
    """What annealing asks for: densities p_β from β = 0, where all is known, to β = 1.

    A place on the path is an object of the path's own. The first dimension of what comes from it is the
    chains; further ones, for instance one for each item that a posterior is annealed for, are its own too.
    `zoo.undirected.Annealing` is one.
    """

    @property
    def log_z_start(self) -> Tensor:
        """The log-normaliser of p*_0, in nats, float64; of the shape of the further dimensions."""

    def start(self, num: int) -> Any:
        """Exact, independent draws from p_0, one for each chain."""

    def at(self, state: Any) -> Any:
        """The place of given states, for instance of draws from p_1."""

    def log_ratio(self, place: Any, before: float, after: float) -> Tensor:
        """The log of p*_after / p*_before at a place, in nats, float64, ``(num, ...)``."""

    def step(self, place: Any, beta: float) -> Any:
        """A transition that leaves p_β as it is; for the reverse direction it must be reversible."""


@dataclass(frozen=True)
class LogZEstimate:
    """An estimate of a log-normaliser, in nats.

    Attributes:
        log_z: The estimate, float64: of one number shape ``()``, else one for each item.
        log_weights: Of each chain, ``(chains, ...)``, float64: of Z_1/Z_0 forward, of Z_0/Z_1 in reverse.
        log_z_start: The log-normaliser at β = 0.
        betas: How many transitions there were between 0 and 1.
        reverse: Whether the chains ran from β = 1 to 0. The estimate then lies above the truth in
            expectation; forward, it lies below.
        final: Places of the chains at the end.
    """

    log_z: Tensor
    log_weights: Tensor
    log_z_start: Tensor
    betas: int
    reverse: bool
    final: Any

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Ends of an interval that covers log Z with a probability of about ``level``.

        From the mean weight m, its standard error s and the skewness of the weights, which is what makes
        m ± t s miss: most samples of skewed weights hold too few of the large ones to show it in s. With a
        the skewness over the root of the number of chains, and t the quantile of a standard normal,

            m - s g⁻¹(±t),    g(x) = x + a x²/3 + a² x³/27 + a/6,

        whose logs the ends are. They are not symmetric about the estimate; the lower end of m may be below
        0, and the interval of log Z is then open.

        Raises:
            ValueError: If ``level`` does not lie between 0 and 1.

        References:
            | On the Removal of Skewness by Transformation (Hall, 1992)
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        t = NormalDist().inv_cdf(0.5 + level / 2)
        weights = (self.log_weights - self.log_weights.amax(0)).exp()
        spread = weights - weights.mean(0)
        skewness = (spread**3).mean(0) / spread.square().mean(0) ** 1.5
        a = skewness.nan_to_num(0.0) / math.sqrt(len(weights))  # weights that are all the same have none
        low, high = (
            torch.log1p(-(self.relative_error * _without_skewness(x, a)).clamp(max=1.0)) for x in (t, -t)
        )
        if self.reverse:  # the mean is that of 1/Z
            return self.log_z - high, self.log_z - low
        return self.log_z + low, self.log_z + high

    @property
    def relative_error(self) -> Tensor:
        """Standard error of the mean weight over that mean: about the standard error of ``log_z`` in nats."""
        num = len(self.log_weights)
        if num == 1:
            return torch.full_like(self.log_z, math.nan)
        scaled = (self.log_weights - self.log_weights.amax(0)).exp()
        return scaled.std(0) / scaled.mean(0) / math.sqrt(num)

    @property
    def effective_sample_size(self) -> Tensor:
        """How many chains of equal weight would tell as much: (Σ w)² / Σ w²."""
        return (2 * self.log_weights.logsumexp(0) - (2 * self.log_weights).logsumexp(0)).exp()

    def __str__(self) -> str:
        how = "reverse AIS" if self.reverse else "AIS"
        num = len(self.log_weights)
        what = f"{num:,} chain{'' if num == 1 else 's'}, {self.betas:,} step{'' if self.betas == 1 else 's'}"
        if self.log_z.dim():
            densities = "1 density" if self.log_z.numel() == 1 else f"{self.log_z.numel():,} densities"
            return f"log Z of {densities} by {how}, {what}"
        if num == 1:
            return f"log Z = {self.log_z.item():.3f} nats by {how}, no interval from one chain ({what})"
        worth = self.effective_sample_size.item()
        low, high = (end.item() for end in self.interval())
        return (
            f"log Z = {self.log_z.item():.3f} nats by {how}, 95 % within {low:.3f} … {high:.3f} ({what}, "
            f"worth {worth:.0f} of equal weight{f'; {TOO_FEW}' if round(worth, 6) < FEW else ''})"
        )


@torch.no_grad()
def ais(
    model: Any,
    *,
    chains: int = 100,
    betas: int | Tensor = 1000,
    seed: int = 0,
    progress: bool = False,
) -> LogZEstimate:
    """Estimates log Z from below: the weights' mean is unbiased for Z, so that its log is low on average.

    Args:
        model: A `Path`, or a model with a method ``annealing()`` that gives one (the zoo's machines).
        chains: How many, at least 1; with one there is no interval.
        betas: How many steps, evenly spaced; or the ladder itself, from 0 to 1 in increasing order.
        seed: Seed of the chains; torch's generators are left as they were.
        progress: Whether to show a bar.

    Raises:
        ValueError: If an argument is out of its range, or the model gives no path.
        FloatingPointError: If a weight is not finite.

    Example:
        >>> import zoo
        >>> estimate = ais(zoo.RBM((4, 4), hidden=5), chains=20, betas=10)
        >>> bool(estimate.interval()[0] <= estimate.log_z <= estimate.interval()[1])
        True
    """
    path, ladder = _path(model), _ladder(betas)
    if isinstance(chains, bool) or not isinstance(chains, Integral) or chains < 1:
        integer = "" if isinstance(chains, Integral) else "an integer of "
        raise ValueError(f"chains must be {integer}at least 1, got {chains!r}")
    return _anneal(path, ladder, lambda: path.start(chains), seed=seed, progress=progress)


@torch.no_grad()
def reverse_ais(
    model: Any,
    state: Any,
    *,
    betas: int | Tensor = 1000,
    seed: int = 0,
    progress: bool = False,
) -> LogZEstimate:
    """Estimates log Z from above: chains run from β = 1 to 0, and their weights' mean is unbiased for 1/Z.

    That holds where they start from exact draws of the density. Started from elsewhere, for instance from a
    long Gibbs run or from data that a model was trained on, the estimate is off by how far that is.

    Args:
        model: As for `ais`.
        state: Where the chains start: what the path's ``at`` takes; of the zoo's machines values of all
            layers, ``(chains, ...)``.
        betas: As for `ais`.
        seed: Seed of the chains; torch's generators are left as they were.
        progress: Whether to show a bar.

    Raises:
        ValueError: As `ais`.
        FloatingPointError: As `ais`.
    """
    path, ladder = _path(model), _ladder(betas)[::-1]
    return _anneal(path, ladder, lambda: path.at(state), seed=seed, progress=progress)


def _without_skewness(x: float, a: Tensor) -> Tensor:
    """The inverse of g in `LogZEstimate.interval`: g(x) = ((1 + a x/3)³ - 1) / a + a/6."""
    cube = 1 + a * (x - a / 6)
    root = cube.sign() * cube.abs() ** (1 / 3)
    return torch.where(a.abs() < 1e-6, torch.full_like(a, x), 3 * (root - 1) / a)


def _path(model: Any) -> Path:
    if callable(getattr(model, "annealing", None)):
        return model.annealing()
    if not isinstance(model, Path):
        raise ValueError(
            "annealing expects a path, or a model whose method annealing() gives one, got "
            f"{type(model).__name__}"
        )
    return model


def _ladder(betas: int | Tensor) -> list[float]:
    if isinstance(betas, int):
        if isinstance(betas, bool) or betas < 1:
            raise ValueError(f"betas must be at least 1, got {betas}")
        return torch.linspace(0, 1, betas + 1, dtype=torch.float64).tolist()
    try:
        ladder = torch.as_tensor(betas, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):  # nothing that torch makes numbers of
        raise ValueError(f"betas must rise from 0 to 1, or be their number, got {betas!r}") from None
    ends_meet = ladder.dim() == 1 and len(ladder) > 1 and ladder[0] == 0 and ladder[-1] == 1
    if not ends_meet or not (ladder.diff() > 0).all():
        raise ValueError(
            f"betas must rise from 0 to 1, got {ladder.flatten()[:3].tolist()} … of {ladder.numel()}"
        )
    return ladder.tolist()


def _anneal(
    path: Path, ladder: list[float], begin: Callable[[], Any], *, seed: int, progress: bool
) -> LogZEstimate:
    """Runs chains from where they begin along a ladder, up or down, and weighs them."""
    start, betas, reverse = path.log_z_start, len(ladder) - 1, ladder[0] > ladder[-1]
    with forked_rng(start.device), show_progress("annealing", betas, enabled=progress) as bar:
        torch.manual_seed(seed)
        place = begin()
        log_weights = torch.zeros((), dtype=torch.float64, device=start.device)
        for before, after in zip(ladder, ladder[1:], strict=False):
            log_weights = log_weights + path.log_ratio(place, before, after)
            place = path.step(place, after)
            bar.advance()
    if not log_weights.isfinite().all():
        raise FloatingPointError(
            f"{int((~log_weights.isfinite()).sum())} of {log_weights.numel()} weights are not finite: "
            "are the parameters?"
        )
    log_ratio = log_weights.logsumexp(0) - math.log(len(log_weights))
    return LogZEstimate(
        log_z=start - log_ratio if reverse else start + log_ratio,
        log_weights=log_weights,
        log_z_start=start,
        betas=betas,
        reverse=reverse,
        final=place,
    )
