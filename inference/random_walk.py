"""Two walks by Gaussian steps: Metropolis', which samples, and a hill climb, which finds a mode."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from inference.adaptation import AdaptiveKernel, positive
from inference.density import State
from inference.density_kernel import DensityKernel, Place, accept

AHEAD = 8
"""Proposals that a lone chain tries by one run of the program; it accepts about one in four."""


class RandomWalkMetropolis(AdaptiveKernel):
    """Proposes x' = x + ε S z, z ~ N(0, I), and accepts with probability min(1, p(x') / p(x)).

    ε is one number for each chain, S the scale of its coordinates; both are learnt in warm-up and then
    frozen. The statistics of a draw are its ``energy``, -log p in unconstrained space, in nats; the
    ``acceptance`` probability of the transition to it; and the ``step_size`` ε.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        step_size: ε, or where its adaptation starts; left out, 2.38 / √n with n the number of coordinates,
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
        | Equation of State Calculations by Fast Computing Machines (Metropolis, Rosenbluth, Rosenbluth,
          Teller & Teller, 1953)
        | Weak Convergence and Optimal Scaling of Random Walk Metropolis Algorithms (Roberts, Gelman & Gilks,
          1997), for 2.38 / √n and 0.234

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("scale", dist.LogNormal(0., 1.))
        >>> draws = inference.run_chains(RandomWalkMetropolis(model), 500, num_chains=20, progress=False)
        >>> draws.samples["scale"].shape, sorted(draws.stats)
        (torch.Size([20, 500]), ['acceptance', 'energy', 'step_size'])
    """

    default_target = 0.234
    _looks_ahead = False
    _ahead: Iterator[tuple[Place, Tensor]] = iter(())
    _ahead_of: Place | None = None

    @override
    def default_step_size(self, num: int) -> float:
        return 2.38 / num**0.5

    @override
    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        alone = len(next(iter(state.values()))) == 1 and not self.apart
        self._looks_ahead = alone and self.density.is_cheap(AHEAD, state)
        self._ahead_of = None
        return state

    @override
    def sample(self, params: State) -> State:
        here = self.at(params)
        if self._looks_ahead and not self.adaptation.active:
            if self._ahead_of is not here:
                self._ahead_of, self._ahead = here, self._look_ahead(here)
            place, probability = next(self._ahead)
            self._place = place
            return self.moved_to(place, probability)
        there = self.propose(here, self._jumped(here.x))
        accepted, probability = accept(there.log_density - here.log_density)
        return self.moved_to(self.settle(here, there, accepted), probability)

    @override
    def cleanup(self) -> None:
        super().cleanup()
        self._ahead, self._ahead_of = iter(()), None

    def _jumped(self, x: Tensor) -> Tensor:
        step = self.adaptation.step_size.to(x.dtype).unsqueeze(1)
        return x + step * self.adaptation.scaled(torch.randn_like(x))

    def _look_ahead(self, here: Place) -> Iterator[tuple[Place, Tensor]]:
        """The next transitions of a lone chain, up to the first that is accepted.

        As long as it rejects, it proposes from where it is: so several proposals are tried by one run of the
        program, and those after the first that is accepted are dropped.
        """
        while True:
            many = Place(
                {name: value.expand(AHEAD, *value.shape[1:]) for name, value in here.state.items()},
                here.x.expand(AHEAD, -1),
                here.log_density,
                None,
            )
            there = self.propose(many, self._jumped(many.x))
            accepted, probability = accept(there.log_density - here.log_density)
            chances = probability.split(1)
            goes = accepted.tolist()
            first = goes.index(True) if any(goes) else AHEAD
            yield from ((here, chance) for chance in chances[:first])
            if first < AHEAD:
                tried = slice(first, first + 1)
                x = there.x[tried]
                state = here.state | self.layout.sites(x)
                yield Place(state, x, there.log_density[tried], None), chances[first]
                return


class StochasticHillClimb(DensityKernel):
    """Perturbs x' = x + σ z, z ~ N(0, I), and accepts if p(x') ≥ p(x): it finds a mode, and does not sample.

    Since nothing is ever accepted that is less likely, chains end at local maxima of p, of the density in
    unconstrained space, and stay: their draws tell nothing of p's spread. Metropolis' rule, which accepts
    with probability min(1, p(x') / p(x)), is what makes a sampler of this walk (`RandomWalkMetropolis`).

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        step_size: σ, a positive number.
        log_density: See `inference.density_kernel.DensityKernel`.
        support: See there.
        sites: See there.

    Raises:
        ValueError: If ``step_size`` is not positive; at the start of a run, as `DensityKernel`.

    Example:
        >>> import inference
        >>> climb = StochasticHillClimb(log_density=lambda state: -(state["x"] - 3.0) ** 2, step_size=0.5)
        >>> draws = inference.run_chains(climb, 200, initial={"x": torch.zeros(8)}, progress=False)
        >>> bool((draws.last["x"] - 3.0).abs().max() < 0.1)
        True
    """

    def __init__(self, model: Any = None, *, step_size: float = 0.1, **density: Any) -> None:
        super().__init__(model, **density)
        self.step_size = positive("step_size", step_size)

    @override
    def sample(self, params: State) -> State:
        here = self.at(params)
        there = self.propose(here, here.x + self.step_size * torch.randn_like(here.x))
        return self.settle(here, there, there.log_density >= here.log_density).state
