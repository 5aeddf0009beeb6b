"""Programs that draw what they observe, θ and data together: what tests of samplers are made of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution, constraints
from pyro.poutine.messenger import Messenger
from torch import Tensor
from typing_extensions import override

from inference.batched_program import BatchedProgram, by_first
from inference.density import TRIES, State
from inference.density_kernel import DensityKernel
from inference.kernels import Kernel
from inference.program import chosen_sites, is_factor, sample_sites, unpacked

LEVEL = 0.01
"""Probability with which a correct method is called wrong, all entries together."""

SHOWN = 10
"""Rows of a table, the worst first."""

NUMBERS_AT_ONCE = 1 << 21
"""Values of sites that are scored together."""


class Joint:
    """p(θ, data): a program with its arguments, and nothing observed.

    Args:
        model: The program.
        args: What it is called with.

    Raises:
        ValueError: If it can't simulate what it observes.
    """

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...]) -> None:
        args = unpacked(args)
        self.model, self.args = model, args
        try:
            trace = poutine.trace(model).get_trace(*args)
        except NotImplementedError as error:
            raise ValueError(
                "expected a program that draws all its sites, got one that can't: "
                f"{str(error).splitlines()[0]}"
            ) from None
        sites = {
            name: site
            for name, site in sample_sites(trace).items()
            if not site["infer"].get("_deterministic")
        }
        for name, site in sites.items():
            if site["is_observed"] and is_factor(site["fn"]):
                raise ValueError(
                    f"expected a program that draws what it scores, got the factor {name}: nothing can be "
                    "simulated from it"
                )
        self.latent = [name for name, site in sites.items() if not site["is_observed"]]
        self.data = [name for name, site in sites.items() if site["is_observed"]]
        if not self.latent:
            raise ValueError("expected a program with latent sites, got none")
        self.program = BatchedProgram(self._bound(_Simulated(self.data)))
        for name in self.data:
            came, observed = self.program.sites[name].shape, sites[name]["value"].shape
            if came != observed:
                raise ValueError(
                    f"expected {name} to be drawn in the shape that it is observed in, {tuple(observed)}, "
                    f"got {tuple(came)}: it belongs into a plate"
                )

    def _bound(self, handler: Messenger) -> Callable[[], Any]:
        """The program inside a handler, with its arguments."""

        def program() -> Any:
            with handler:
                return self.model(*self.args)

        program.__wrapped__ = self.model  # whose parameters are those of the module that the model is of
        return program

    def observing(self, data: State) -> Callable[[], Any]:
        """The program that observes these data, without arguments."""
        return self._bound(poutine.condition_messenger.ConditionMessenger(data))

    def wanted(self, sites: Sequence[str] | None) -> list[str]:
        """The names of the sites to rank."""
        return self.latent if sites is None else chosen_sites(sites, self.latent)

    def kernel(self, make: Callable[..., Kernel]) -> Kernel:
        """The kernel that a function makes of the program."""
        if self.program.refusal is not None:
            raise ValueError(
                "expected a program that broadcasts, so that chains with data sets of their own are one more "
                f"dimension on the left: {self.program.refusal}; simulation_based_calibration takes a method "
                "too, which sees one data set at a time"
            )
        kernel = make(self.program.model, sites=list(self.latent))
        if not isinstance(kernel, Kernel):
            raise ValueError(
                f"expected kernel to give one that moves many chains at once, got {type(kernel).__name__}: "
                "give what runs one chain as a method"
            )
        for part in _parts(kernel):
            if isinstance(part, DensityKernel) and part.wanted is None and self.data:
                kind = type(part).__name__
                raise ValueError(
                    f"expected {kind} to move {', '.join(self.latent)} alone, got no sites: as in lambda "
                    f"program, sites: {kind}(program, sites=sites)"
                )
        return kernel

    def check_moved(self, kernel: Kernel, data: State, last: State) -> None:
        """Refuses a kernel that moves the data, or never moves a latent site."""
        moved = [name for name, value in data.items() if not torch.equal(value, last[name])]
        if moved:
            raise ValueError(
                f"expected a kernel that leaves the data as they are, got one that moves {moved[0]}"
            )
        held = [name for name in self.latent if name in kernel.held]
        if held:
            raise ValueError(
                f"expected a kernel that moves {', '.join(self.latent)}, got one that holds {held[0]}"
            )

    def starts(self, data: State, num: int) -> State:
        """Values to start from that know nothing of those that the data were drawn with.

        Raises:
            ValueError: If some have no finite density in a hundred tries.
        """
        wrong, values = torch.ones(num, dtype=torch.bool), dict(data)
        for _ in range(TRIES):
            rows = wrong.nonzero().flatten()
            found = [self.program.start() for _ in rows]
            for name in self.latent:
                new = torch.cat([each[name] for each in found])
                values.setdefault(name, new.new_empty(num, *new.shape[1:]))
                values[name] = values[name].index_copy(0, rows.to(new.device), new)
            wrong = ~self.program.log_prob(values, num).isfinite().cpu()
            if not wrong.any():
                return values
        raise ValueError(
            f"no start of positive density was found in {TRIES} tries for {int(wrong.sum())} of {num} "
            "simulated data sets"
        )

    def log_likelihoods(self, truth: State, samples: State) -> tuple[Tensor, Tensor]:
        """Log p(data | θ), nats: of the true θ, ``(replication,)``, and of draws of it."""
        shape = next(iter(samples.values())).shape[:3]
        num = shape[1:].numel()
        values = {
            name: torch.cat([truth[name][:, None], samples[name].flatten(1, 2).to(truth[name])], 1)
            if name in self.latent
            else value.unsqueeze(1).expand(-1, num + 1, *value.shape[1:])
            for name, value in truth.items()
        }
        size = sum(value[0, 0].numel() for value in values.values())
        at_once = max(1, NUMBERS_AT_ONCE // size) if self.program.refusal is None else 1
        parts = []
        for rows in torch.arange(shape[0] * (num + 1)).split(at_once):
            part = {name: value[rows // (num + 1), rows % (num + 1)] for name, value in values.items()}
            scores = self.program.scores(part, len(rows))
            parts.append(sum(by_first(scores[name]) for name in self.data).expand(len(rows)))
        found = torch.cat(parts).reshape(shape[0], num + 1)
        return found[:, 0], found[:, 1:].reshape(shape)


class _Simulated(Messenger):
    """Draws what a program observes, as values that kernels leave as they are."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names and msg["is_observed"]:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False
            msg["fn"] = _Data(msg["fn"])


class _Data(TorchDistribution):
    """What data are drawn from. Its support counts as discrete: no transform is needed of what never moves.

    So data may have a support that depends on θ, and stay the same to the bit.
    """

    arg_constraints = {}

    def __init__(self, base: TorchDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    @override
    def support(self) -> constraints.Constraint:
        return _Held()

    @override
    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.base.sample(*args, **kwargs)

    @override
    def log_prob(self, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.base.log_prob(value, *args, **kwargs)

    @override
    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Data":
        return _Data(self.base.expand(batch_shape))


class _Held(constraints.Constraint):
    """That of a value that never moves."""

    is_discrete = True


def _parts(kernel: Kernel) -> Iterator[Kernel]:
    """A kernel, or those that it is made of."""
    for part in getattr(kernel, "kernels", ()):
        yield from _parts(part)
    if not hasattr(kernel, "kernels"):
        yield kernel
