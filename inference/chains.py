"""Markov chains run side by side: a thousand are one batch, and their draws come back by chain."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import index
from typing import Any

import pyro
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor, nn

from inference.chain_seeds import SeededByChain
from inference.density import State
from inference.kernels import Kernel
from inference.program import as_found, chosen_sites, unpacked
from inference.progress import progress as show_progress
from inference.pyro_kernels import InTurn

FIRST_CHECK = 100
"""Draws of each chain before it is first asked whether they are enough."""

BETWEEN_CHECKS = 1.2
"""Times as many, before the next time."""


@dataclass(frozen=True)
class Draws:
    """What chains have drawn.

    Attributes:
        samples: Values of each site that was asked for, ``(chain, draw, *shape)``, in its own type.
        stats: What the kernel tells of each draw, ``(chain, draw)``: for instance its energy, in nats.
        last: The values of all sites where the chains stopped, ``(chains, *shape)``. To go on from there:
            ``run_chains(kernel, …, initial=draws, seed=…)``, with another seed.
        warmup: Transitions before the first draw.
        thin: Transitions from one draw to the next.
        seed: Of the run, or of each chain.
        interrupted: Whether Ctrl-C ended it; what was drawn until then is here.
        reached: Whether the draws reached the R-hat and effective sample size that were asked for; None where
            none were.
        dims: Names for the dimensions of a site's value, where they are known: those of its plates.
        adapted: What warm-up has taught the kernel.
    """

    samples: dict[str, Tensor]
    stats: dict[str, Tensor]
    last: State
    warmup: int
    thin: int
    seed: int | tuple[int, ...]
    interrupted: bool = False
    reached: bool | None = None
    dims: Mapping[str, list[str]] = field(default_factory=dict)
    adapted: Mapping[str, Any] = field(default_factory=dict)

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
        if self.reached is not None:
            ended += ", enough" if self.reached else ", not enough"
        return (
            f"{self.num_chains:,} chains of {self.num_draws:,} draws, one in {self.thin:,} transitions after "
            f"{self.warmup:,}{ended}: {sites}"
        )


@torch.no_grad()
def run_chains(
    kernel: MCMCKernel,
    num_draws: int,
    *args: Any,
    num_chains: int | None = None,
    warmup: int | None = None,
    thin: int = 1,
    sites: Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    initial: State | Draws | None = None,
    target_r_hat: float | None = None,
    target_ess: float | None = None,
    progress: bool = True,
) -> Draws:
    """Runs many chains of a kernel at once.

    All draws are held in memory: of a site with n entries, chains · draws · n numbers. ``thin`` and ``sites``
    keep that small.

    Kernels of Pyro's own, ``HMC`` and ``NUTS``, run too: one chain after the other within each transition,
    each on a copy that adapts by itself.

    Args:
        kernel: For instance an `inference.MALA`.
        num_draws: Draws of each chain to keep, at least 1; with a target, at most so many.
        *args: What the kernel's program is called with: splits of `zoo.load`, tensors or what it takes. Give
            it what it takes by keyword with `functools.partial`.
        num_chains: How many; left out, as many as ``initial`` or ``seed`` has, or 16 (4 of Pyro's own).
        warmup: Transitions before the first draw, in which kernels adapt; left out, as many as the draws
            take, and none where the chains go on with what another run has taught.
        thin: Transitions from one draw to the next, at least 1.
        sites: Whose values to keep; left out, all that move.
        seed: Seed of the start and of the draws; torch's generators are left as they were. A list has one for
            each chain, which then draws what it would draw alone, to the bit where its arithmetic is its own;
            that takes longer the more chains there are.
        initial: Values of all sites to start from, ``(chains, *shape)``, each in its own space; or other
            draws, to go on from, with what that run's warm-up has taught if it was of such a kernel, of as
            many chains, and was finished; left out, the kernel's own.
        target_r_hat: Stop as soon as the rank-normalised R-hat of every entry that is kept is at most this,
            for instance 1.01. It needs several chains.
        target_ess: Stop as soon as the bulk effective sample size of every entry, in all chains together, is
            at least this.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a number is below its least, a site unknown, or the state none of the kernel's; or if
            there is no ``initial`` and the kernel knows no state to start from; and as the kernel.

    Example:
        >>> import inference, zoo
        >>> rbm = zoo.RBM((4, 4), hidden=3)
        >>> draws = run_chains(inference.BlockGibbs(rbm), 50, num_chains=10, progress=False)
        >>> draws.samples["v"].shape, draws.stats["energy"].shape
        (torch.Size([10, 50, 4, 4]), torch.Size([10, 50]))
    """
    _check_counts(num_draws=num_draws, num_chains=num_chains, warmup=warmup, thin=thin)
    for name, target, least in (("target_r_hat", target_r_hat, 1.0), ("target_ess", target_ess, 0.0)):
        if target is not None and not (isinstance(target, int | float) and target > least):
            raise ValueError(f"expected {name} to be a number above {least:g}, got {target!r}")
    state, adapted = (initial.last, initial.adapted) if isinstance(initial, Draws) else (initial, {})
    goes_on = isinstance(initial, Draws) and isinstance(kernel, Kernel) and kernel.can_adopt(adapted, state)
    seed, seeds = _seeds(seed)
    num_chains = _number_of_chains(num_chains, state, seeds)
    if warmup is None:
        warmup = 0 if goes_on else num_draws * thin
    if not isinstance(kernel, Kernel):
        if not isinstance(kernel, MCMCKernel):
            raise ValueError(f"expected a kernel of inference's or of Pyro's, got {type(kernel).__name__}")
        kernel = InTurn(kernel, seeds or chain_seeds(seed, num_chains or 4))
    if isinstance(kernel, InTurn):
        num_chains, seeds = len(kernel.seeds), None
    num_chains = num_chains or 16
    if target_r_hat is not None and num_chains < 2:
        raise ValueError("expected several chains, so that they can be compared by target_r_hat, got 1")
    args = unpacked(args)
    module = kernel.module if kernel.module is not None else nn.Module()
    values = state.values() if isinstance(state, dict) else ()
    interrupted = False
    with ExitStack() as stack:
        stack.enter_context(as_found(module, *args, *values))
        stack.enter_context(pyro.validation_enabled(True))
        stack.callback(kernel.cleanup)
        torch.manual_seed(seed if isinstance(seed, int) else seed[0])
        kernel.apart = seeds is not None
        kernel.setup(warmup, *args)
        if state is not None:
            state = kernel.unconstrain(Kernel.prepare(kernel, state))
        elif seeds is None:
            state = kernel.start(num_chains)
        else:
            state = _started_apart(kernel, seeds)
        state = kernel.prepare(state)
        if goes_on:
            kernel.adopt(adapted)
        kept = _sites(kernel, state, sites)
        record = _Record(num_draws, num_chains)
        total = warmup + num_draws * thin
        bar = stack.enter_context(show_progress("drawing", total, enabled=progress))
        if seeds is not None:
            stack.enter_context(SeededByChain(seeds))
        targets, check = (target_r_hat, target_ess) != (None, None), FIRST_CHECK
        reached = False if targets else None
        try:
            for step in range(total):
                if step == warmup:
                    kernel.end_warmup()
                state = kernel.sample(state)
                if step == 0:  # where arguments are out of their range, that has shown by now
                    stack.enter_context(pyro.validation_enabled(False))
                if step >= warmup and (step - warmup + 1) % thin == 0:
                    values = kernel.constrain({name: state[name] for name in kept})
                    record.add(values, kernel.stats(state))
                    if targets and (record.done >= check or record.done == num_draws):
                        check = max(record.done + 1, int(BETWEEN_CHECKS * record.done))
                        reached = _is_enough(record.samples, target_r_hat, target_ess)
                bar.advance()
                if reached:
                    break
        except KeyboardInterrupt:
            interrupted = True
        last = kernel.constrain(state)
        return Draws(
            samples=record.samples or {name: _room(0, last[name]) for name in kept},
            stats=record.stats,
            last=last,
            warmup=warmup,
            thin=thin,
            seed=seed,
            interrupted=interrupted,
            reached=reached,
            dims={name: list(names) for name, names in kernel.dims.items()},
            adapted=kernel.adapted,
        )


class _Record:
    """Where draws are kept, and what the kernel tells of each; empty until the first."""

    def __init__(self, num_draws: int, num_chains: int) -> None:
        self.num_draws, self.num_chains, self.done = num_draws, num_chains, 0
        self._samples: dict[str, Tensor] = {}
        self._stats: dict[str, Tensor] = {}

    def add(self, values: State, told: dict[str, Tensor]) -> None:
        for name, value in told.items():
            if value.shape != (self.num_chains,):
                raise ValueError(f"expected {name} of shape ({self.num_chains},), got {tuple(value.shape)}")
        if not self.done:
            self._samples = {name: _room(self.num_draws, value) for name, value in values.items()}
            self._stats = {name: _room(self.num_draws, value) for name, value in told.items()}
        elif told.keys() != self._stats.keys():
            raise ValueError(
                f"expected {', '.join(self._stats) or 'no statistics'} of every draw, got "
                f"{', '.join(told) or 'none'}"
            )
        for rooms, found in ((self._samples, values), (self._stats, told)):
            for name, value in found.items():
                rooms[name][:, self.done] = value
        self.done += 1

    @property
    def samples(self) -> dict[str, Tensor]:
        return self._drawn(self._samples)

    @property
    def stats(self) -> dict[str, Tensor]:
        return self._drawn(self._stats)

    def _drawn(self, rooms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: room[:, : self.done] for name, room in rooms.items()} if self.done else {}


def chain_seeds(seed: int, num: int) -> list[int]:
    """A seed for each of so many chains, all from one."""
    return torch.randint(1 << 62, (num,), generator=torch.Generator().manual_seed(seed)).tolist()


def _check_counts(**counts: int | None) -> None:
    least = {"num_draws": 1, "num_chains": 1, "warmup": 0, "thin": 1}
    for name, value in counts.items():
        optional = name in ("num_chains", "warmup") and value is None
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not optional and not (whole and value >= least[name]):
            raise ValueError(f"expected {name} to be an integer of at least {least[name]}, got {value!r}")


def _seeds(seed: Any) -> tuple[int | tuple[int, ...], list[int] | None]:
    """A seed as it is kept, and one for each chain where there are."""
    several = isinstance(seed, Sequence) and not isinstance(seed, str)
    try:
        seeds = [int(index(each)) for each in (seed if several else [seed])]
    except TypeError:
        raise ValueError(f"expected seed to be an integer, or one for each chain, got {seed!r}") from None
    if not seeds:
        raise ValueError("expected a seed for each chain, got none")
    wrong = [each for each in seeds if not -(1 << 63) <= each < 1 << 64]
    if wrong:
        raise ValueError(f"expected a seed of 64 bits, got {wrong[0]}")
    return (tuple(seeds), seeds) if several else (seeds[0], None)


def _number_of_chains(num: int | None, state: Any, seeds: list[int] | None) -> int | None:
    """As many as are asked for, or given; None where nothing tells."""
    lengths = {}
    if isinstance(state, dict) and all(isinstance(each, Tensor) and each.dim() for each in state.values()):
        lengths["initial values"] = len(next(iter(state.values()))) if state else None
    lengths["seeds"] = None if seeds is None else len(seeds)
    for what, came in lengths.items():
        if came is not None and num not in (None, came):
            raise ValueError(f"expected {what} of {num} chains, got {came}")
        num = num if came is None else came
    return num


def _started_apart(kernel: Kernel, seeds: list[int]) -> State:
    """Starts of chains, each with a seed of its own."""
    states = []
    for each in seeds:
        torch.manual_seed(each)
        states.append(kernel.start(1))
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def _is_enough(samples: dict[str, Tensor], r_hat: float | None, ess: float | None) -> bool:
    """Whether all entries of the draws have reached the targets."""
    from inference.diagnostics import worst_figures

    largest, least = worst_figures(samples)
    return (r_hat is None or largest <= r_hat) and (ess is None or least >= ess)


def _sites(kernel: Kernel, state: State, sites: Sequence[str] | None) -> list[str]:
    """The names of the sites to keep."""
    if sites is None:
        return [name for name in state if name not in kernel.held] or list(state)
    return chosen_sites(sites, state)


def _room(num_draws: int, value: Tensor) -> Tensor:
    """Where the draws go, ``(chain, draw, *shape)``."""
    return value.new_empty(len(value), num_draws, *value.shape[1:])
