"""Gibbs sampling of a program's discrete sites, one entry at a time, by the joint density alone."""

import itertools
from typing import Any

import torch
from pyro.distributions import Distribution
from torch import Tensor
from typing_extensions import override

from inference.batched_program import by_first
from inference.density import State
from inference.density_kernel import DensityKernel
from inference.program import base_of

MASKS = 64
"""States of the chains, and others, in which the independence of entries along plates is tried."""


class Gibbs(DensityKernel):
    """Draws each entry in turn from p(x_i | all others), which is p at each of its values over their sum.

    The sites are discrete ones of finite support; their conditionals need not be known. A sweep costs one run
    of the program for each entry of an event, on as many times the chains as it has values. Entries along a
    plate are drawn at once, since a plate declares them independent given the rest. That is tried at the
    start, in a hundred states; where it does not hold, entries are drawn one by one. `BlockGibbs` is quicker
    where the conditionals are known.

    Nothing is rejected. The statistic of a draw is its ``energy``, -log p, in nats, with continuous sites in
    unconstrained space.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective.
        sites: Names of those that move; left out, all.

    Raises:
        ValueError: At the start of a run, if a site is continuous or has infinitely many values, or as
            `inference.density_kernel.DensityKernel`.

    References:
        | Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images (Geman & Geman,
          1984)

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Categorical(torch.ones(2)))
        ...         pyro.sample("x", dist.Normal(4. * z, 1.), obs=x)
        >>> x = torch.tensor([-0.3, 1.9, 5.0])
        >>> draws = inference.run_chains(Gibbs(model), 200, x, num_chains=50, progress=False)
        >>> exact = torch.sigmoid(4 * x - 8)
        >>> bool((draws.samples["z"].double().mean((0, 1)) - exact).abs().max() < 0.02)
        True
    """

    moves_discrete = True

    def __init__(self, model: Any, *, sites: Any = None) -> None:
        super().__init__(model, sites=sites)
        self.values: dict[str, Tensor] = {}
        self.independent: dict[str, bool] = {}

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        program = self.density.program
        self.values = {name: _values(name, program.sites[name].distribution) for name in self.moved}
        self.independent = {}

    @override
    def prepare(self, state: State) -> State:
        for name in self.moved:
            if (
                isinstance(state, dict)
                and name in state
                and not self._places(name, state[name])[0].any(0).all()
            ):
                some = ", ".join(str(value) for value in self.values[name].tolist()[:4])
                raise ValueError(f"expected values of {name} out of {some:.60}, …, got others")
        state = super().prepare(state)
        for name in self.moved:
            self.independent[name] = self._is_independent(name, state)
        return state

    @torch.no_grad()
    @override
    def sample(self, params: State) -> State:
        state = dict(params)
        for name in self.moved:
            state[name] = self._swept(name, state)
        return state

    def _swept(self, name: str, state: State) -> Tensor:
        """A site after each of its entries was drawn."""
        values, current = self.values[name], state[name]
        num, count = len(current), len(values)
        whole = values.dim() - 1  # dimensions of what is one value
        shape = self.density.program.sites[name].shape
        split = len(shape) - whole
        along = self._plates(name) if self.independent[name] else ()
        # Indices of the entries that are drawn at once: all along plates, one of each other dimension.
        sizes = [1 if axis in along else size for axis, size in enumerate(shape[:split])]
        kept = [shape[axis] for axis in along]
        current = current.clone()
        for place in itertools.product(*map(range, sizes)):
            index = tuple(slice(None) if axis in along else place[axis] for axis in range(split))
            tried = current.unsqueeze(0).expand(count, *current.shape).clone()
            tried[(slice(None), slice(None), *index)] = values.reshape(
                count, *(1,) * (1 + len(kept)), *values.shape[1:]
            )
            many = {
                other: tried.flatten(0, 1)
                if other == name
                else value.unsqueeze(0).expand(count, *value.shape).flatten(0, 1)
                for other, value in state.items()
            }
            logits = self._scores(many, name, along).reshape(count, num, *kept)
            drawn = torch.distributions.Categorical(logits=logits.movedim(0, -1)).sample()
            current[(slice(None), *index)] = values[drawn]
        return current

    def _plates(self, name: str) -> tuple[int, ...]:
        """The dimensions of a site's value that are plates, from the left."""
        site = self.density.program.sites[name]
        return tuple(axis for axis in range(site.batch_dims) if axis - site.batch_dims in site.plates)

    def _scores(self, state: State, name: str, along: tuple[int, ...]) -> Tensor:
        """The log joint density of what depends on a site, ``(chains, *plates)``."""
        num, program = len(state[name]), self.density.program
        if num > 1 and program.refusal is not None:  # one chain, at several values
            rows = [{each: value[row : row + 1] for each, value in state.items()} for row in range(num)]
            return torch.cat([self.density(row) for row in rows])
        if not along:
            return self.density(state)
        site = program.sites[name]
        dims = [axis - site.batch_dims for axis in along]
        total = torch.zeros((), dtype=torch.float64)
        for score in program.scores(self.density.constrain(state), num).values():
            score = score.double()
            full = score.reshape(
                score.shape[0], *(1,) * (program.nesting + 1 - score.dim()), *score.shape[1:]
            )
            others = [dim for dim in range(-program.nesting, 0) if dim not in dims]
            kept = full.sum(others, keepdim=True) if others else full
            if all(kept.shape[dim] == site.shape[axis] for dim, axis in zip(dims, along, strict=True)):
                total = total + kept.reshape(kept.shape[0], *(kept.shape[dim] for dim in dims))
        return total.expand(num, *(site.shape[axis] for axis in along))

    def _places(self, name: str, current: Tensor) -> tuple[Tensor, Tensor]:
        """Which of its values each entry of a site has: whether each of them, ``(count, ...)``, and which."""
        values = self.values[name]
        of_each = values.reshape(len(values), *(1,) * (current.dim() + 1 - values.dim()), *values.shape[1:])
        same = current == of_each
        same = same.flatten(1 - values.dim()).all(-1) if values.dim() > 1 else same
        return same, same.int().argmax(0)

    def _trial_states(self, state: State) -> State:
        """Some states of the chains, and as many with any values of the discrete sites, others near zero."""
        starts = [self.density.start(1, needs_gradient=False) for _ in range(MASKS)]
        found = {name: torch.cat([each[name] for each in starts]) for name in state}
        for name, values in self.values.items():
            place = torch.randint(len(values), found[name].shape[: found[name].dim() + 1 - values.dim()])
            found[name] = values[place.to(values.device)]
        few = torch.arange(MASKS) % len(next(iter(state.values())))
        return {name: torch.cat([value[few], found[name]]) for name, value in state.items()}

    @torch.no_grad()
    def _is_independent(self, name: str, state: State) -> bool:
        """Whether entries along plates are: changing some moves no score but those of these.

        Tried at states of the chains, and at others that have little to do with them: what ties entries
        together may do so at some values of the other sites alone. Half of the entries, picked at random, get
        other values, drawn at random.
        """
        along = self._plates(name)
        program = self.density.program
        if not along or program.refusal is not None:
            return False
        site, values = program.sites[name], self.values[name]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = self._trial_states(state)
            rows = len(state[name])
            shift = torch.randint(
                1, max(2, len(values)), (rows, *site.shape[: len(site.shape) + 1 - values.dim()])
            )
        current = state[name]
        sizes = [site.shape[axis] for axis in along]
        picked = torch.rand(rows, *sizes, generator=torch.Generator().manual_seed(0)) < 0.5
        picked = picked.to(current.device)
        entries = picked.reshape(
            rows,
            *(size if axis in along else 1 for axis, size in enumerate(site.shape[: site.batch_dims])),
        )
        _, which = self._places(name, current)
        others = values[(which + shift.to(which.device)) % len(values)]
        mask = entries.reshape(*entries.shape, *(1,) * site.event_dim)
        moved = state | {name: torch.where(mask, others, current)}
        before, after = (self._scores(each, name, along) for each in (state, moved))
        rest = [self.density(each) - by_first(scores) for each, scores in ((state, before), (moved, after))]
        still = torch.allclose(before[~picked], after[~picked], rtol=1e-6, atol=1e-6, equal_nan=True)
        return still and torch.allclose(*rest, rtol=1e-9, atol=1e-6, equal_nan=True)


def _values(name: str, distribution: Distribution) -> Tensor:
    """All values of an entry of a site, ``(count, *event)`` with the event of the innermost distribution."""
    base = base_of(distribution)
    if not getattr(base, "has_enumerate_support", False):
        raise ValueError(
            f"Gibbs expects sites of finitely many values, got {name} of a {type(base).__name__}"
        )
    values = base.enumerate_support(expand=False)
    return values.reshape(len(values), *base.event_shape)
