"""Langevin dynamics: noise, and a drift along the gradient; as it is, and corrected by Metropolis' rule."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from inference.adaptation import AdaptiveKernel, positive
from inference.density import State
from inference.density_kernel import DensityKernel, accept

DIVERGENT = 1000.0
"""A log-ratio this far below zero, in nats, is not one of a step that follows the density."""


class Langevin(DensityKernel):
    """Moves x' = x + ε ∇log p(x) + √(2ε) z, z ~ N(0, I), and accepts always.

    The draws follow p as ε → 0 alone: at a fixed ε they are off by about as much as ε is large. Of a Gaussian
    of variance σ², for instance, they have the variance σ² / (1 - ε / 2σ²), and none once ε > 2σ².
    `MALA` corrects this.

    The statistics of a draw are its ``energy``, -log p in unconstrained space, in nats, and the
    ``step_size``.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        step_size: ε, a positive number, or a function that gives it for transition 0, 1, …: to draw from p
            itself it must fall to zero, slowly enough that its sum is infinite.
        log_density: See `inference.density_kernel.DensityKernel`.
        support: See there.
        sites: See there.

    Raises:
        ValueError: If ``step_size`` is not positive; at the start of a run, as `DensityKernel`.
        FloatingPointError: If a chain is no longer finite: ε is too large.

    References:
        | Exponential Convergence of Langevin Distributions and Their Discrete Approximations (Roberts &
          Tweedie, 1996)

    Example:
        >>> import inference
        >>> normal = lambda state: -0.5 * state["x"] ** 2
        >>> langevin = Langevin(log_density=normal, step_size=0.5)
        >>> start = {"x": torch.zeros(2000)}
        >>> draws = inference.run_chains(langevin, 100, initial=start, progress=False)
        >>> abs(draws.samples["x"].var().item() - 1 / (1 - 0.5 / 2)) < 0.05
        True
    """

    needs_gradient = True

    def __init__(
        self, model: Any = None, *, step_size: float | Callable[[int], float] = 0.01, **density: Any
    ) -> None:
        super().__init__(model, **density)
        self.step_size = step_size if callable(step_size) else positive("step_size", step_size)
        self._steps = 0
        self._last_step = 0.0

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self._steps = 0

    @override
    def sample(self, params: State) -> State:
        here = self.at(params)
        step = (
            positive("step_size", self.step_size(self._steps)) if callable(self.step_size) else self.step_size
        )
        self._steps, self._last_step = self._steps + 1, step
        drift, noise = step * here.gradient, (2 * step) ** 0.5 * torch.randn_like(here.x)
        self._place = there = self.propose(here, here.x + drift + noise)
        lost = ~there.log_density.isfinite()
        if lost.any():
            raise FloatingPointError(
                f"{int(lost.sum())} of {len(lost)} chains of Langevin left where the log-density is finite, "
                f"after {self._steps:,} transitions: a step_size below {step:g} is needed, or MALA"
            )
        return there.state

    @property
    @override
    def adapted(self) -> dict[str, Any]:
        return {"steps": self._steps}

    @override
    def adopt(self, adapted: Mapping[str, Any]) -> None:
        self._steps = adapted.get("steps", 0)

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        energy = super().stats(state)["energy"]
        return {"energy": energy, "step_size": torch.full_like(energy, self._last_step)}


class MALA(AdaptiveKernel):
    """Proposes x' = x + ε S Sᵀ ∇log p(x) + √(2ε) S z, accepts with min(1, p(x') q(x | x') / p(x) q(x' | x)).

    The Metropolis-adjusted Langevin algorithm: z ~ N(0, I), q(x' | x) = N(x + ε S Sᵀ ∇log p(x), 2ε S Sᵀ). ε
    is one number for each chain, S the scale of its coordinates; both are learnt in warm-up and then frozen.

    The statistics of a draw are its ``energy``, -log p in unconstrained space, in nats; the ``acceptance``
    probability of the transition to it; the ``step_size`` ε; and whether the proposal was ``divergent``: of a
    log-ratio that is not a number, or below -1,000 nats.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        step_size: ε, or where its adaptation starts; left out, 1.36 / n^⅓ with n the number of coordinates,
            the best for a Gaussian of unit scale.
        adapt_step_size: Whether warm-up moves ε.
        adapt_scale: Whether warm-up learns S.
        dense: Whether S is of the whole covariance of the coordinates, else of their variances.
        target_accept_prob: Mean acceptance probability that ε is moved to.
        log_density: See `inference.density_kernel.DensityKernel`.
        support: See there.
        sites: See there.

    Raises:
        ValueError: If a number is out of its range; at the start of a run, as `DensityKernel`.

    References:
        | Optimal Scaling of Discrete Approximations to Langevin Diffusions (Roberts & Rosenthal, 1998), for
          1.36 / n^⅓ (ℓ²/2 with ℓ = 1.65) and 0.574

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0., 10.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 1.), obs=x)
        >>> x = torch.tensor([1., 2., 3.])
        >>> draws = inference.run_chains(MALA(model), 500, x, num_chains=50, progress=False)
        >>> abs(draws.samples["mean"].mean().item() - 6 / 3.01) < 0.05
        True
    """

    needs_gradient = True
    default_target = 0.574
    tells = {"divergent": False}

    @override
    def default_step_size(self, num: int) -> float:
        return 1.36 / num ** (1 / 3)

    @override
    def sample(self, params: State) -> State:
        here, tuned = self.at(params), self.adaptation
        half = (tuned.step_size / 2).sqrt().to(here.x.dtype).unsqueeze(1)  # √(ε/2)
        z = torch.randn_like(here.x)
        drift = half * tuned.transposed(here.gradient)
        there = self.propose(here, here.x + 2 * half * tuned.scaled(drift + z))
        # That z which would lead back: x = x' + ε S Sᵀ ∇log p(x') + √(2ε) S z_back.
        z_back = -z - drift - half * tuned.transposed(there.gradient)
        forward, back = -0.5 * z.square().sum(1), -0.5 * z_back.square().sum(1)
        log_ratio = there.log_density - here.log_density + back - forward
        accepted, probability = accept(log_ratio)
        place = self.settle(here, there, accepted)
        return self.moved_to(place, probability, divergent=~(log_ratio > -DIVERGENT))
