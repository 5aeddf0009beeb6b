"""What every MCMC kernel here keeps: it moves many chains at once, and it is a kernel of Pyro's too.

A state is a dict of tensors by the names of the sites, and the first dimension of each is the chains, so that
a thousand of them are one batch. A kernel T leaves its target as it is:

    ∫ p(s) T(s' | s) ds = p(s').
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor, nn
from typing_extensions import override

State = dict[str, Tensor]
"""Values by the names of the sites, each ``(chains, *shape)``."""


class Kernel(MCMCKernel):
    """A transition of many chains at once; a subclass writes `sample`, and what else it can tell.

    `inference.run_chains` runs it, and so does Pyro's ``MCMC``, where one of Pyro's chains is a whole batch
    of ours. Both call, in this order, `setup`, `prepare` (Pyro through `initial_params`), `sample` as often
    as asked, and `cleanup`, which must leave the kernel as it was before. Pyro calls that one twice, and
    `end_warmup` never: a kernel that adapts counts its steps by what `setup` says.

    Under Pyro's ``MCMC`` the draws of all sites pass through one tensor, so that integers and booleans come
    back as floats where some other site is one, and large integers rounded. The chains themselves keep their
    types.

    Attributes:
        module: Whose mode and place the chains run in; None where nothing has parameters.
        held: Names of the sites that never move.
    """

    # Pyro asks for it: no site lives in another space than its own.
    transforms: ClassVar[dict[str, Any]] = {}
    module: nn.Module | None = None
    held: frozenset[str] = frozenset()
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
        return self.prepare(self._initial if self._initial is not None else self.start(1))

    @initial_params.setter
    def initial_params(self, params: State) -> None:
        self._initial = params
