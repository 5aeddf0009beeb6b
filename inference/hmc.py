"""Hamiltonian Monte Carlo of many chains at once."""

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from inference.adaptation import AdaptiveKernel
from inference.density import State
from inference.density_kernel import Place, accept
from inference.langevin import DIVERGENT
from inference.program import check_counts


class HMC(AdaptiveKernel):
    """Follows leapfrog steps from a fresh momentum, and accepts with probability min(1, exp(H - H')).

    H = -log p(x) + |v|² / 2, v ~ N(0, I); a step is v += ε Sᵀ ∇log p(x) / 2, x += ε S v, and the first again.
    v is the momentum in units of S, the mass matrix (S Sᵀ)⁻¹. ε is one number for each chain, S the scale of
    its coordinates; both are learnt in warm-up and then frozen. The ε of a transition is drawn from
    ε · U(0.8, 1.2), so that no trajectory closes on itself.

    The statistics of a draw are its ``energy``, -log p in unconstrained space, in nats; ``hamiltonian``, the
    value of H there, with the momentum that it came with; the ``acceptance`` probability of the transition to
    it; the ``step_size`` ε; and whether it was ``divergent``: of an H that rose by more than 1,000 nats.

    Pyro's own ``HMC`` and ``NUTS``, which choose the length of a trajectory themselves, run under
    `run_chains` too, one chain after the other.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        num_steps: Leapfrog steps of a transition.
        step_size: ε, or where its adaptation starts; left out, n^-¼ with n the number of coordinates.
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
        | Hybrid Monte Carlo (Duane, Kennedy, Pendleton & Roweth, 1987)
        | MCMC Using Hamiltonian Dynamics (Neal, 2011), section 5.4.2.2 for ε drawn anew

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("p", dist.Beta(3., 2.))
        >>> draws = inference.run_chains(HMC(model), 200, num_chains=50, progress=False)
        >>> abs(draws.samples["p"].mean().item() - 0.6) < 0.02
        True
    """

    needs_gradient = True
    default_target = 0.8
    tells = {"hamiltonian": math.nan, "divergent": False}
    spread = 0.2

    def __init__(self, model: Any = None, *, num_steps: int = 10, **settings: Any) -> None:
        super().__init__(model, **settings)
        check_counts(num_steps=num_steps)
        self.num_steps = num_steps

    @override
    def default_step_size(self, num: int) -> float:
        return num**-0.25

    @override
    def sample(self, params: State) -> State:
        here = self.at(params)
        step = self.adaptation.step_size
        step = step * torch.empty_like(step).uniform_(1 - self.spread, 1 + self.spread)
        v = torch.randn_like(here.x)
        there, v_there = self.leapfrog(here, v, step.to(v.dtype).unsqueeze(1))
        before, after = kinetic(v) - here.log_density, kinetic(v_there) - there.log_density
        accepted, probability = accept(before - after)
        place = self.settle(here, there, accepted)
        hamiltonian = torch.where(accepted, after, before)
        divergent = ~(before - after > -DIVERGENT)
        return self.moved_to(place, probability, hamiltonian=hamiltonian, divergent=divergent)

    def leapfrog(self, place: Place, v: Tensor, step: Tensor) -> tuple[Place, Tensor]:
        """Where a trajectory ends, and v there."""
        for number in range(self.num_steps + 1):
            half = 0.5 if number in (0, self.num_steps) else 1.0
            v = v + half * step * self.adaptation.transposed(place.gradient)
            if number < self.num_steps:
                place = self.propose(place, place.x + step * self.adaptation.scaled(v))
        return place, v


def kinetic(v: Tensor) -> Tensor:
    """|v|² / 2 of each chain, ``(chains,)``."""
    return 0.5 * v.square().sum(1)
