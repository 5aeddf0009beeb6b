"""Warm-up: the step size of each chain, and the scale of its coordinates, are learnt and then frozen."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.ops.dual_averaging import DualAveraging
from torch import Tensor
from typing_extensions import override

from inference.density import State
from inference.density_kernel import DensityKernel, Place

FIRST, WINDOW, LAST = 0.15, 25, 0.25
"""Share of the warm-up before the first window of the scale, transitions in that, share after the last."""


class Adaptation:
    """Moves step size and scale in warm-up; afterwards they stay.

    The step size ε is moved so that the mean acceptance probability comes to a target, by dual averaging; the
    scale S, with S Sᵀ the covariance of x or its diagonal, is estimated anew in windows that double.

    Args:
        x: Where the chains start, ``(chains, n)``.
        step_size: Where ε starts, a positive number.
        target: Mean acceptance probability to reach.
        warmup: Transitions in which it moves.
        moves_step_size: Whether ε moves.
        moves_scale: Whether S does; else it is the identity.
        dense: Whether S is of the whole covariance, else of its diagonal.
        apart: Whether each chain learns from itself alone; else all learn the same, from all.

    Attributes:
        step_size: ε, ``(chains,)``, float64.
        scale: S, ``(chains or 1, n)``, or dense a lower triangle ``(chains or 1, n, n)``; None for the
            identity.

    References:
        | The No-U-Turn Sampler (Hoffman & Gelman, 2014), section 3.2, for dual averaging
        | Stan Reference Manual, on warm-up, for windows that double, and shrinking the covariance
    """

    def __init__(
        self,
        x: Tensor,
        step_size: float,
        *,
        target: float,
        warmup: int,
        moves_step_size: bool,
        moves_scale: bool,
        dense: bool,
        apart: bool,
    ) -> None:
        self.apart = apart
        self.step_size = torch.full((len(x),), step_size, dtype=torch.float64, device=x.device)
        self.scale: Tensor | None = None
        self.target, self.warmup, self.dense = target, warmup, dense
        self.moves_step_size, self.moves_scale = moves_step_size, moves_scale
        self.active = warmup > 0 and (moves_step_size or moves_scale)
        self._initial = self.step_size
        self._restart()
        self._steps, self._start, self._ends = 0, window_start(warmup), set(window_ends(warmup))
        self._moments = Moments(dense, apart)

    def scaled(self, v: Tensor) -> Tensor:
        """S v, ``(chains, n)``."""
        if self.scale is None:
            return v
        return self._product(self.scale, v) if self.dense else self.scale * v

    def transposed(self, v: Tensor) -> Tensor:
        """Sᵀ v, ``(chains, n)``."""
        if self.scale is None:
            return v
        return self._product(self.scale.mT, v) if self.dense else self.scale * v

    def _product(self, matrix: Tensor, v: Tensor) -> Tensor:
        return (matrix @ v.unsqueeze(2)).squeeze(2) if len(matrix) > 1 else v @ matrix[0].T

    def update(self, probability: Tensor, x: Tensor) -> None:
        """Takes in a transition: the acceptance probability of each chain, and where it led."""
        if not self.active:
            return
        self._steps += 1
        if self.moves_step_size:
            self._averaging.step(self.target - (probability if self.apart else probability.mean().item()))
            self._averaged = True
            self.step_size = self._exp(self._averaging.get_state()[0])
        if self.moves_scale and self._ends and self._steps > self._start:
            self._moments.add(x)
            if self._steps in self._ends:
                self.scale = self._moments.scale()
                self._moments = Moments(self.dense, self.apart)
                if self._steps < self.warmup:
                    self._restart()
        if self._steps == self.warmup:
            self.freeze()

    def freeze(self) -> None:
        """Ends the warm-up; what was learnt stays."""
        if self.active and self.moves_step_size and self._averaged:
            self.step_size = self._exp(self._averaging.get_state()[1])
        self.active = False

    def _restart(self) -> None:
        """Begins the averaging anew, from where ε began: of each chain, or one number for all."""
        centre = self._initial.log()
        self._averaging = DualAveraging(prox_center=centre if self.apart else centre.mean().item())
        self._averaged = False

    def _exp(self, log_step: Tensor | float) -> Tensor:
        if isinstance(log_step, Tensor):
            return log_step.exp()
        return torch.full_like(self.step_size, math.exp(log_step))

    def adopt(self, step_size: Tensor, scale: Tensor | None) -> None:
        """Starts from what was learnt elsewhere, for as many chains."""
        self.step_size = self._initial = step_size
        self.scale = scale
        self._restart()


class Moments:
    """The spread of points that come one after the other.

    Args:
        dense: Whether of all pairs of coordinates.
        apart: Whether of each chain by itself.
    """

    def __init__(self, dense: bool, apart: bool) -> None:
        self.dense, self.apart, self.num = dense, apart, 0
        self.sum: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0
        self.jumps: Tensor | float = 0.0
        self._last: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Takes in a point of each chain, ``(chains, n)``."""
        if self._last is None:
            self._origin = x if self.apart else x[:1]  # near which sums of squares lose nothing
            self._last = x
        away = x - self._origin
        self.num += 1 if self.apart else len(x)
        self.sum = self.sum + self._of_all(away)
        if not self.dense:
            self.squares = self.squares + self._of_all(away.square())
            self.jumps = self.jumps + self._of_all((x - self._last).square())
            self._last = x
        elif self.apart:
            self.squares = self.squares + away.unsqueeze(2) * away.unsqueeze(1)
        else:
            self.squares = self.squares + (away.T @ away).unsqueeze(0)

    def _of_all(self, values: Tensor) -> Tensor:
        return values if self.apart else values.sum(0, keepdim=True)

    def spread(self) -> Tensor:
        """Variances, or the covariance, shrunk a little towards a small multiple of the identity."""
        mean = self.sum / self.num
        product = mean.unsqueeze(2) * mean.unsqueeze(1) if self.dense else mean**2
        spread = (self.squares / self.num - product) * (self.num / (self.num - 1))
        weight = self.num / (self.num + 5.0)
        if not self.dense:
            return weight * spread.clamp(min=0.0) + 1e-3 * (1 - weight)
        return weight * spread + 1e-3 * (1 - weight) * torch.eye(mean.shape[1]).to(spread)

    def scale(self) -> Tensor:
        """S of that spread; standard deviations no further apart than they are known to be.

        The logarithm of one that is estimated from m independent points is off by about 1/√(2m), m the number
        of points over their integrated time, (1 + ρ) / (1 - ρ) with the correlation ρ of one to the next. As
        far as this explains how they differ they are taken for the same: log s moves towards its mean by the
        share that the noise has in its variance.
        """
        spread = self.spread()
        if self.dense:
            return torch.linalg.cholesky(spread.double()).to(spread.dtype)
        jump = self.jumps / self.num  # 2 (1 - ρ) times the variance
        points = (self.num * jump / (4 * spread - jump).clamp(min=1e-30)).clamp(1.0, self.num)
        noise = (0.5 / points).mean(1, keepdim=True)
        log_scale = 0.5 * spread.log()
        mean = log_scale.mean(1, keepdim=True)
        around = (log_scale - mean).square().sum(1, keepdim=True) / max(1, spread.shape[1] - 1)
        share = (1 - noise / around.clamp(min=1e-30)).clamp(0.0, 1.0)
        return (mean + share * (log_scale - mean)).exp()


class AdaptiveKernel(DensityKernel):
    """A kernel that accepts or rejects, with a step size and a scale that warm-up learns, by chain.

    Args:
        model: See `DensityKernel`.
        step_size: ε, or where its adaptation starts; left out, `default_step_size`.
        adapt_step_size: Whether warm-up moves ε.
        adapt_scale: Whether warm-up learns the scale S.
        dense: Whether S is of the whole covariance of the coordinates, else of their variances.
        target_accept_prob: Mean acceptance probability that ε is moved to; left out, `default_target`.
        **density: ``log_density``, ``support`` and ``sites`` of `DensityKernel`.

    Raises:
        ValueError: If a number is out of its range; at the start of a run, as `DensityKernel`.
    """

    default_target: float
    tells: Mapping[str, float | bool] = {}
    """What is told of a transition besides, with what stands for none."""

    def __init__(
        self,
        model: Any = None,
        *,
        step_size: float | None = None,
        adapt_step_size: bool = True,
        adapt_scale: bool = True,
        dense: bool = False,
        target_accept_prob: float | None = None,
        **density: Any,
    ) -> None:
        super().__init__(model, **density)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        target = self.default_target if target_accept_prob is None else target_accept_prob
        if not isinstance(target, float) or not 0 < target < 1:
            raise ValueError(f"expected target_accept_prob between 0 and 1, got {target!r}")
        self.target_accept_prob = target
        self.adapt_step_size, self.adapt_scale, self.dense = adapt_step_size, adapt_scale, dense
        self.adaptation: Adaptation | None = None
        self._warmup = 0
        self._last: dict[str, Tensor] = {}

    def default_step_size(self, num: int) -> float:
        """Where ε starts for so many coordinates of unit scale."""
        raise NotImplementedError

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self._warmup, self._last = warmup_steps, {}

    @override
    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        x = self.at(state).x
        num = x.shape[1]
        self.adaptation = Adaptation(
            x,
            self.default_step_size(num) if self.step_size is None else self.step_size,
            target=self.target_accept_prob,
            warmup=self._warmup,
            moves_step_size=self.adapt_step_size,
            moves_scale=self.adapt_scale,
            dense=self.dense,
            apart=self.apart,
        )
        step = self.adaptation.step_size
        self._last = {  # as long as it has not moved, in a mixture of kernels
            name: torch.full_like(step, value, dtype=torch.bool if value is False else step.dtype)
            for name, value in {"acceptance": math.nan, **self.tells}.items()
        }
        return state

    def moved_to(self, place: Place, probability: Tensor, **told: Tensor) -> State:
        """Ends a transition: warm-up learns from it, and its statistics are kept."""
        assert self.adaptation is not None
        self._last = {"acceptance": probability, "step_size": self.adaptation.step_size, **told}
        self.adaptation.update(probability, place.x)
        return place.state

    @override
    def end_warmup(self) -> None:
        if self.adaptation is not None:
            self.adaptation.freeze()

    @property
    @override
    def adapted(self) -> dict[str, Any]:
        if self.adaptation is None:
            return {}
        return {
            "kernel": type(self).__name__,
            "sites": self.moved,
            "dense": self.dense,
            "finished": not self.adaptation.active,
            "step_size": self.adaptation.step_size,
            "scale": self.adaptation.scale,
        }

    @override
    def can_adopt(self, adapted: Mapping[str, Any], state: State) -> bool:
        same = {"kernel": type(self).__name__, "dense": self.dense, "finished": True}
        sites = state if self.wanted is None else self.wanted
        return (
            same.items() <= dict(adapted).items()
            and set(adapted["sites"]) == set(sites)
            and all(len(value) == len(adapted["step_size"]) for value in state.values())
        )

    @override
    def adopt(self, adapted: Mapping[str, Any]) -> None:
        assert self.adaptation is not None
        self.adaptation.adopt(adapted["step_size"], adapted["scale"])

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        assert self.adaptation is not None
        return super().stats(state) | self._last | {"step_size": self.adaptation.step_size}

    @override
    def logging(self) -> dict[str, Any]:
        return {name: f"{value.double().mean():.3g}" for name, value in self._last.items()}

    @override
    def cleanup(self) -> None:
        super().cleanup()
        self.adaptation = None


def positive(name: str, number: Any) -> float:
    """A positive, finite number.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ValueError(f"expected {name} to be a positive number, got {number!r}")
    return float(number)


def window_start(warmup: int) -> int:
    """Transitions before the first window of the scale."""
    return int(FIRST * warmup)


def window_ends(warmup: int) -> list[int]:
    """After which transitions the scale is learnt anew: windows double, and the last takes the rest."""
    place, end, size = window_start(warmup), warmup - int(LAST * warmup), WINDOW
    if end - place < WINDOW:
        return []
    ends = []
    while place < end:
        place = place + size if place + 3 * size <= end else end
        ends.append(place)
        size *= 2
    return ends
