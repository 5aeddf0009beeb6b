"""What every MCMC kernel here keeps: it moves many chains at once, and it is a kernel of Pyro's too.

A state is a dict of tensors by the names of the sites, and the first dimension of each is the chains, so that
a thousand of them are one batch. A kernel T leaves its target as it is:

    ∫ p(s) T(s' | s) ds = p(s').
"""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor, nn
from typing_extensions import override

from inference.density import State


class Kernel(MCMCKernel):
    """A transition of many chains at once; a subclass writes `sample`, and what else it can tell.

    `inference.run_chains` runs it, and so does Pyro's ``MCMC``, where one of Pyro's chains is a whole batch
    of ours. Both call, in this order, `setup`, `prepare` (Pyro through `initial_params`), `sample` as often
    as asked, and `cleanup`, which must leave the kernel as it was before. Pyro calls that one twice, and
    `end_warmup` never: a kernel that adapts counts its steps by what `setup` says.

    Under Pyro's ``MCMC`` the draws of all sites pass through one tensor, so that large integers are rounded
    where some other site is a float. Each site has its own type again afterwards.

    Attributes:
        transforms: By the names of sites, the maps from a site's own space to that where the chains move.
            Sites that are not named move in their own.
        module: Whose mode and place the chains run in; None where nothing has parameters.
        held: Names of the sites that never move.
        dims: Names for the dimensions of a site's value, by site, where they are known.
        apart: Whether no chain may learn from another in warm-up, as where each has a seed of its own.
    """

    transforms: Mapping[str, Any] | None = {}
    module: nn.Module | None = None
    held: frozenset[str] = frozenset()
    dims: Mapping[str, list[str]] = {}
    apart: bool = False
    _initial: State | None = None

    def start(self, num: int) -> State:
        """States to start ``num`` chains from, independent of each other.

        Raises:
            ValueError: If the kernel knows none.
        """
        raise ValueError(
            f"{type(self).__name__} knows no state to start from: expected initial values of its sites, got "
            "none"
        )

    def prepare(self, state: State) -> State:
        """Checks a state at the door; returns that which the chains start from.

        Raises:
            ValueError: If it is none of this kernel's.
        """
        if not isinstance(state, Mapping) or not state:
            came = "an empty one" if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"expected a state to be a dict of tensors by the names of sites, got {came}")
        lengths = set()
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.dim() == 0 or len(value) == 0:
                came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"expected {name} to be a tensor whose first dimension is the chains, got {came}"
                )
            lengths.add(len(value))
        if len(lengths) > 1:
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
            raise ValueError(f"expected as many chains of every site, got {shapes}")
        return dict(state)

    def constrain(self, state: State) -> State:
        """A state's values in the sites' own spaces."""
        moved = self.transforms or {}
        return {name: moved[name].inv(value) if name in moved else value for name, value in state.items()}

    def unconstrain(self, values: State) -> State:
        """The state of values in the sites' own spaces."""
        moved = self.transforms or {}
        for name in moved.keys() & values.keys():
            if not values[name].is_floating_point() and not isinstance(moved[name], OwnType):
                raise ValueError(
                    f"expected values of {name} as floating point numbers, got {values[name].dtype}"
                )
        return {name: moved[name](value) if name in moved else value for name, value in values.items()}

    @property
    def adapted(self) -> dict[str, Any]:
        """What warm-up has taught it, for `adopt`."""
        return {}

    def can_adopt(self, adapted: Mapping[str, Any], state: State) -> bool:
        """Whether what another run of chains at such a state has taught is what this kernel needs."""
        return True

    def adopt(self, adapted: Mapping[str, Any]) -> None:
        """Takes over what another run has taught it, after `prepare`; warm-up, if any, starts from there."""

    def stats(self, state: State) -> dict[str, Tensor]:
        """What is told of a state that is kept, each ``(chains,)``: for instance its energy, in nats."""
        return {}

    # What Pyro's MCMC asks for

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            raise ValueError(f"{type(self).__name__} runs without arguments, got {len(args) + len(kwargs)}")

    @override
    def cleanup(self) -> None:
        self._initial = None

    @override
    def logging(self) -> dict[str, Any]:
        return {}

    @override
    def diagnostics(self) -> dict[str, Any]:
        return {}

    @property
    @override
    def initial_params(self) -> State:
        """Where the chains of the run start: what was set, else one chain from `start`."""
        state = self.prepare(self._initial if self._initial is not None else self.start(1))
        types = {name: OwnType(value.dtype) for name, value in state.items() if not value.is_floating_point()}
        self.transforms = {**types, **(self.transforms or {})}
        return state

    @initial_params.setter
    def initial_params(self, params: State) -> None:
        self._initial = params


class OwnType:
    """Gives what Pyro's MCMC has made a float its own type again; for our own chains it changes nothing."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, value: Tensor) -> Tensor:
        """The value as it is."""
        return value

    def inv(self, value: Tensor) -> Tensor:
        """The value as its site has it."""
        return value.to(self.dtype)
