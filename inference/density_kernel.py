"""Kernels on a log-density: what those that propose, or follow a gradient, have in common."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.distributions.constraints import Constraint
from torch import Tensor
from typing_extensions import override

from inference.density import FunctionDensity, Layout, LogDensity, ProgramDensity, State
from inference.kernels import Kernel, OwnType
from inference.program import Program, unpacked


class Place(NamedTuple):
    """Where chains are on a log-density.

    Attributes:
        state: The values of all sites.
        x: The entries of those that the kernel moves, ``(chains, n)``; None where they are discrete.
        log_density: There, in nats, float64, ``(chains,)``.
        gradient: By x, ``(chains, n)``; None where the kernel needs none.
    """

    state: State
    x: Tensor | None
    log_density: Tensor
    gradient: Tensor | None


class DensityKernel(Kernel):
    """A transition on the log-density of a Pyro program's latent sites, or on one that a function gives.

    Continuous sites move in unconstrained space, by the transforms that Pyro's HMC takes, so that none ever
    leaves its support; discrete sites, and those not in ``sites``, stay. Chains are one more dimension to the
    left of the program's own, so that a step of all costs one run of it. Parameters are constants.

    A subclass writes `sample`. It finds the log-density by `at`, which computes it once for each place.

    Args:
        model: A Pyro program, an object with ``.model``, or an objective. Its arguments are those of
            `run_chains` or of Pyro's ``MCMC.run``.
        log_density: Instead of it, a function from a dict of values, ``(chains, *shape)`` each, to their
            log-density up to a constant, in nats, ``(chains,)``. The run is given ``initial`` values.
        support: With a function, the supports of the sites that are not all real numbers, by name.
        sites: Names of those that move; left out, all.

    Raises:
        ValueError: If not one of program and function is given; at the start of a run, if the kernel can't
            move a site, the program does not broadcast, or no start has a finite density and gradient.
    """

    transforms: Mapping[str, Any] | None = None
    needs_gradient = False
    moves_discrete = False

    def __init__(
        self,
        model: Any = None,
        *,
        log_density: Callable[[State], Tensor] | None = None,
        support: Mapping[str, Constraint] | None = None,
        sites: Iterable[str] | None = None,
    ) -> None:
        if (model is None) == (log_density is None):
            came = "neither" if model is None else "both"
            raise ValueError(f"{type(self).__name__} expects a program or a log_density, got {came}")
        if log_density is not None and not callable(log_density):
            raise ValueError(f"expected log_density to be a function, got {type(log_density).__name__}")
        if isinstance(sites, str):
            raise ValueError(f"expected sites to be a list of names, got {sites!r}")
        self.module = None if model is None else Program.of(model)
        self.model = None if self.module is None else self.module.model
        self.wanted = None if sites is None else tuple(dict.fromkeys(sites))
        self.log_density, self.support = log_density, support
        self.density: LogDensity | None = None
        self.moved: tuple[str, ...] = ()
        self.layout: Layout | None = None
        self._place: Place | None = None
        if log_density is not None:
            self.density = FunctionDensity(log_density, support)
            self.transforms = self.density.transforms

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        self._place = None
        if self.model is None:
            super().setup(warmup_steps, *args, **kwargs)
            return
        args = unpacked(args)
        density = ProgramDensity(self.model, args, kwargs)
        program = density.program
        types = {name: program.sites[name].value.dtype for name in program.latent}
        own = {name: OwnType(dtype) for name, dtype in types.items() if not dtype.is_floating_point}
        self.density, self.transforms = density, {**own, **density.transforms}
        self.dims = {name: program.sites[name].dims(name) for name in program.latent}
        self._choose({name: program.sites[name].discrete for name in program.latent})

    def _choose(self, discrete: dict[str, bool]) -> None:
        """Which sites move, of those there are."""
        name = type(self).__name__
        wanted = self.wanted if self.wanted is not None else tuple(discrete)
        unknown = [each for each in wanted if each not in discrete]
        if unknown or not wanted:
            raise ValueError(
                f"{name} expects sites out of {', '.join(discrete)}, got {unknown[0] if unknown else 'none'}"
            )
        wrong = [each for each in wanted if discrete[each] != self.moves_discrete]
        if wrong and self.moves_discrete:
            raise ValueError(
                f"{name} moves discrete sites, got continuous {wrong[0]}: let another kernel move it, as in "
                f"Cycle([{name}(model, sites=...), MALA(model, sites=[{wrong[0]!r}])])"
            )
        if wrong:
            raise ValueError(
                f"{name} moves continuous sites, got discrete {wrong[0]}: let Gibbs draw it, as in "
                f"Cycle([Gibbs(model, sites=[{wrong[0]!r}]), {name}(model, sites=...)]), or sum it out"
            )
        self.moved = wanted
        self.held = frozenset(discrete) - frozenset(wanted)

    @override
    def start(self, num: int) -> State:
        if not isinstance(self.density, ProgramDensity):
            return super().start(num)
        return self.density.start(num, self.needs_gradient)

    @override
    def prepare(self, state: State) -> State:
        state = self._checked(super().prepare(state))
        assert self.density is not None
        self.layout = None if self.moves_discrete else Layout(state, self.moved)
        place = self.at(state)
        good = place.log_density.isfinite()
        if place.gradient is not None:
            good = good & place.gradient.isfinite().all(1)
        if not good.all():
            raise ValueError(
                "expected chains to start where the log-density and its gradient are finite, got "
                f"{int((~good).sum())} of {len(good)} that do not: {self.density.explain(state)}"
            )
        again = self._computed(state, place.x).log_density
        if not torch.allclose(place.log_density, again, rtol=1e-6, atol=1e-6):
            raise ValueError(
                "expected a log-density that is the same each time, got two for one state: does something in "
                "it draw numbers that are no site, as dropout does?"
            )
        return state

    def _checked(self, state: State) -> State:
        """The sites that there are, each of the shape and kind that it should have."""
        if not isinstance(self.density, ProgramDensity):
            unknown = [name for name in self.support or {} if name not in state]
            if unknown:
                raise ValueError(f"expected supports of some of {', '.join(state)}, got {unknown[0]}")
            self._choose({name: not value.is_floating_point() for name, value in state.items()})
            return state
        for name in self.density.program.latent:
            site, transform = self.density.program.sites[name], self.density.transforms.get(name)
            shape = transform.forward_shape(site.shape) if transform else site.shape
            if name not in state or state[name].shape[1:] != shape:
                came = tuple(state[name].shape[1:]) if name in state else "none"
                raise ValueError(f"expected values of {name} of shape {tuple(shape)} by chain, got {came}")
            expected, came = site.value.dtype, state[name].dtype
            if came.is_floating_point != expected.is_floating_point:
                raise ValueError(f"expected values of {name} in {expected}, got {came}")
        return {name: state[name] for name in self.density.program.latent}

    def at(self, state: State) -> Place:
        """The place of a state: kept from the last time where no site has changed since."""
        if self._place is None or not _are_same(state, self._place.state):
            x = None if self.layout is None else self.layout.flat(state)
            self._place = self._computed(state, x)
        return self._place

    def propose(self, here: Place, x: Tensor) -> Place:
        """The place where the sites that move have the entries x; it is not kept."""
        assert self.layout is not None
        return self._computed(here.state | self.layout.sites(x), x)

    def _computed(self, state: State, x: Tensor | None) -> Place:
        assert self.density is not None
        if self.needs_gradient:
            assert self.layout is not None and x is not None
            log_density, gradient = self.density.gradient(self.layout, x, state)
            return Place(state, x, log_density, gradient)
        with torch.no_grad():
            return Place(state, x, self.density(state), None)

    def settle(self, here: Place, there: Place, accepted: Tensor) -> Place:
        """The place of chains that went there where they are accepted, and else stayed; it is kept."""
        assert self.layout is not None
        went = accepted.unsqueeze(1)
        x = torch.where(went, there.x, here.x)
        gradient = None if here.gradient is None else torch.where(went, there.gradient, here.gradient)
        log_density = torch.where(accepted, there.log_density, here.log_density)
        self._place = Place(here.state | self.layout.sites(x), x, log_density, gradient)
        return self._place

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        return {"energy": -self.at(state).log_density}

    @override
    def cleanup(self) -> None:
        super().cleanup()
        self._place = None


def accept(log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The rule of Metropolis and Hastings: accept with probability min(1, exp(log_ratio)), never NaN.

    Args:
        log_ratio: log p(x') q(x given x') - log p(x) q(x' given x) of each chain, ``(chains,)``.

    Returns:
        Whether each chain accepts, and the probability that it did.
    """
    never = -torch.inf  # nor where the density is infinite: no chain would ever leave such a place
    probability = log_ratio.nan_to_num(nan=never, posinf=never, neginf=never).clamp(max=0.0).exp()
    return torch.rand_like(probability) < probability, probability


def _are_same(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(state[name] is other[name] for name in state)
