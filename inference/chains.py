"""Markov chains run side by side: a thousand are one batch, and their draws come back by chain."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from inference.kernels import Kernel, State
from inference.program import forked_rng, restored_modes
from inference.progress import progress as show_progress


@dataclass(frozen=True)
class Draws:
    """What chains have drawn.

    Attributes:
        samples: Values of each site that was asked for, ``(chain, draw, *shape)``, in its own type.
        stats: What the kernel tells of each draw, ``(chain, draw)``: for instance its energy, in nats.
        last: The state of all sites where the chains stopped, ``(chains, *shape)``, to go on from:
            ``run_chains(kernel, …, initial=draws.last, warmup=0, seed=…)``, with another seed.
        warmup: Transitions before the first draw.
        thin: Transitions from one draw to the next.
        seed: Of the run.
        interrupted: Whether Ctrl-C ended it; what was drawn until then is here.
    """

    samples: dict[str, Tensor]
    stats: dict[str, Tensor]
    last: State
    warmup: int
    thin: int
    seed: int
    interrupted: bool = False

    @property
    def num_chains(self) -> int:
        """How many chains there are."""
        return len(next(iter(self.last.values())))

    @property
    def num_draws(self) -> int:
        """How many draws of each chain there are."""
        return next(iter(self.samples.values())).shape[1]

    def __str__(self) -> str:
        sites = ", ".join(f"{name} {tuple(value.shape[2:])}" for name, value in self.samples.items())
        ended = ", interrupted" if self.interrupted else ""
        return (
            f"{self.num_chains:,} chains of {self.num_draws:,} draws, one in {self.thin:,} transitions after "
            f"{self.warmup:,}{ended}: {sites}"
        )


@torch.no_grad()
def run_chains(
    kernel: Kernel,
    num_draws: int,
    *,
    num_chains: int | None = None,
    warmup: int | None = None,
    thin: int = 1,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    initial: State | None = None,
    progress: bool = True,
) -> Draws:
    """Runs many chains of a kernel at once.

    All draws are held in memory: of a site with n entries, chains · draws · n numbers. ``thin`` and ``sites``
    keep that small.

    Args:
        kernel: For instance an `inference.BlockGibbs`.
        num_draws: Draws of each chain to keep, at least 1.
        num_chains: How many; left out, as many as ``initial`` has, or 16.
        warmup: Transitions before the first draw; left out, as many as the draws take.
        thin: Transitions from one draw to the next, at least 1.
        sites: Whose values to keep; left out, all that are not wholly clamped.
        seed: Seed of the start and of the draws; torch's generators are left as they were.
        initial: Values of all sites to start from, ``(chains, *shape)``; left out, the kernel's own.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a number is below its least, a site unknown, or the state none of the kernel's; or if
            there is no ``initial`` and the kernel knows no state to start from.

    Example:
        >>> import inference, zoo
        >>> rbm = zoo.RBM((4, 4), hidden=3)
        >>> draws = run_chains(inference.BlockGibbs(rbm), 50, num_chains=10, progress=False)
        >>> draws.samples["v"].shape, draws.stats["energy"].shape
        (torch.Size([10, 50, 4, 4]), torch.Size([10, 50]))
    """
    if not isinstance(kernel, Kernel):
        raise ValueError(f"expected a kernel that moves many chains at once, got {type(kernel).__name__}")
    least = {"num_draws": 1, "num_chains": 1, "warmup": 0, "thin": 1}
    given = {"num_draws": num_draws, "num_chains": num_chains, "warmup": warmup, "thin": thin}
    for name, value in given.items():
        optional = name in ("num_chains", "warmup") and value is None
        if not optional and (not isinstance(value, int) or value < least[name]):
            raise ValueError(f"expected {name} to be an integer of at least {least[name]}, got {value!r}")
    warmup = num_draws * thin if warmup is None else warmup
    module = kernel.module if kernel.module is not None else nn.Module()
    placed = [*module.parameters(), *(initial.values() if isinstance(initial, dict) else ())]
    device = next((each.device for each in placed if isinstance(each, Tensor)), None)
    done, interrupted = 0, False
    with ExitStack() as stack:
        stack.enter_context(restored_modes(module))
        stack.enter_context(forked_rng(device))
        stack.callback(kernel.cleanup)
        module.eval()
        torch.manual_seed(seed)
        kernel.setup(warmup)
        state = kernel.prepare(kernel.start(num_chains or 16) if initial is None else initial)
        came = len(next(iter(state.values())))
        if num_chains not in (None, came):
            raise ValueError(f"expected initial values of {num_chains} chains, got {came}")
        kept = _sites(kernel, state, sites)
        samples = {name: _room(num_draws, state[name]) for name in kept}
        stats: dict[str, Tensor] = {}
        total = warmup + num_draws * thin
        bar = stack.enter_context(show_progress("drawing", total, enabled=progress))
        try:
            for step in range(total):
                if step == warmup:
                    kernel.end_warmup()
                state = kernel.sample(state)
                if step == 0:  # where arguments are out of their range, that has shown by now
                    stack.enter_context(pyro.validation_enabled(False))
                if step >= warmup and (step - warmup + 1) % thin == 0:
                    for name, room in samples.items():
                        room[:, done] = state[name]
                    for name, value in kernel.stats(state).items():
                        if value.shape != (came,):
                            raise ValueError(f"expected {name} of shape ({came},), got {tuple(value.shape)}")
                        stats.setdefault(name, _room(num_draws, value))[:, done] = value
                    done += 1
                bar.advance()
        except KeyboardInterrupt:
            interrupted = True
    return Draws(
        samples={name: room[:, :done] for name, room in samples.items()},
        stats={name: room[:, :done] for name, room in stats.items()},
        last=state,
        warmup=warmup,
        thin=thin,
        seed=seed,
        interrupted=interrupted,
    )


def _sites(kernel: Kernel, state: State, sites: Sequence[str] | None) -> list[str]:
    """The names of the sites to keep."""
    if sites is None:
        return [name for name in state if name not in kernel.held] or list(state)
    if isinstance(sites, str) or not sites or any(name not in state for name in sites):
        came = sites if isinstance(sites, str) else ", ".join(map(str, sites)) or "none"
        raise ValueError(f"expected sites to be a list of some of {', '.join(state)}, got {came}")
    return list(dict.fromkeys(sites))


def _room(num_draws: int, value: Tensor) -> Tensor:
    """Where the draws go, ``(chain, draw, *shape)``."""
    return value.new_empty(len(value), num_draws, *value.shape[1:])
