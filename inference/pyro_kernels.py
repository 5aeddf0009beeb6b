"""Pyro's own kernels, HMC, NUTS and the like: one chain after the other, each from a clean start."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.infer.mcmc import RandomWalkKernel
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor, nn
from typing_extensions import override

from inference.batched_program import BatchedProgram
from inference.density import State
from inference.kernels import Kernel
from inference.program import Program, unpacked

KINDS = {
    "energy": torch.float64,
    "acceptance": torch.float64,
    "divergent": torch.bool,
    "step_size": torch.float64,
}
"""The statistics that Pyro's kernels tell, and their types."""


class InTurn(Kernel):
    """Chains of a kernel of Pyro's, each moved by a copy of it that has never run, from a seed of its own.

    A transition moves one chain after the other, so that all have as many draws whenever the run ends. One
    that has run before would not adapt again, and Pyro's `RandomWalkKernel` would go on where it was.

    The statistics are those that the kernel tells: the ``energy``, -log p in unconstrained space, in nats;
    the ``acceptance`` probability, of NUTS the mean along the trajectory; whether it was ``divergent``; and
    the ``step_size``.

    Args:
        kernel: The kernel; it is left as it is.
        seeds: One for each chain.
        module: The parameters of its program; left out, those that the program belongs to.
    """

    def __init__(self, kernel: MCMCKernel, seeds: Sequence[int], module: nn.Module | None = None) -> None:
        self.source, self.seeds = kernel, list(seeds)
        self.model = getattr(kernel, "model", None)
        self.module = module if module is not None or self.model is None else Program.of(self.model)
        self.chains: list[_Chain] = []
        self.transforms = getattr(kernel, "transforms", None) or {}
        self._run: tuple[int, tuple[Any, ...]] = (0, ())

    @override
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        args = unpacked(args)
        self._run = warmup_steps, args
        self.chains = []
        if self.model is not None:
            program = BatchedProgram(self.model, args)
            self.transforms = program.transforms
            self.dims = {name: program.sites[name].dims(name) for name in program.latent}

    @override
    def start(self, num: int) -> State:
        self.chains = [_Chain(self, chain, None) for chain in range(num)]
        return self._stacked()

    @override
    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        if not self.chains:
            rows = [{name: value[row] for name, value in state.items()} for row in range(len(self.seeds))]
            self.chains = [_Chain(self, chain, row) for chain, row in enumerate(rows)]
        return self._stacked()

    @override
    def sample(self, params: State) -> State:
        with torch.enable_grad(), pyro.validation_enabled(False):
            if len(self.chains) == 1:  # whose random numbers nobody else draws
                self.chains[0].move()
            else:
                for chain in self.chains:
                    chain.step()
        return self._stacked()

    def _stacked(self) -> State:
        states = [chain.state for chain in self.chains]
        if len(states) == 1:
            return {name: value.detach().unsqueeze(0) for name, value in states[0].items()}
        return {name: torch.stack([each[name].detach() for each in states]) for name in states[0]}

    @override
    def can_adopt(self, adapted: Mapping[str, Any], state: State) -> bool:
        return False  # what Pyro's kernels learn is theirs

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        told = [chain.told() for chain in self.chains]
        return {name: torch.tensor([each[name] for each in told], dtype=KINDS[name]) for name in told[0]}

    @override
    def cleanup(self) -> None:
        super().cleanup()
        self.chains = []


class _Chain:
    """One chain, on a copy of the kernel."""

    def __init__(self, turn: InTurn, number: int, initial: State | None) -> None:
        self.kernel = kernel = _fresh(turn.source)
        self.warmup, args = turn._run
        self.steps, self.mean, self.acceptance = 0, 0.0, math.nan
        if initial is not None and isinstance(kernel, RandomWalkKernel):
            raise ValueError(
                "expected no initial values with Pyro's RandomWalkKernel, which draws its own whatever it is "
                "given: RandomWalkMetropolis takes them"
            )
        if initial is not None:
            kernel.initial_params = initial
        torch.manual_seed(turn.seeds[number])
        try:
            with torch.enable_grad(), pyro.validation_enabled(False):
                kernel.setup(self.warmup, *args)
        except ValueError as error:
            if "cannot find valid initial params" not in str(error):
                raise
            raise ValueError(
                "no start of positive density was found in 100 tries: "
                f"{_not_finite(kernel.model, args)}; do the data lie in the support?"
            ) from None
        self.state: State = kernel.initial_params
        self.random = torch.get_rng_state()

    def step(self) -> None:
        torch.set_rng_state(self.random)
        self.move()
        self.random = torch.get_rng_state()

    def move(self) -> None:
        self.state = self.kernel.sample(self.state)
        self.steps += 1
        # Pyro's kernels tell the mean acceptance so far, over warm-up and over the draws.
        mean = getattr(self.kernel, "_mean_accept_prob", math.nan)
        count = self.steps - self.warmup if self.steps > self.warmup else self.steps
        self.acceptance = mean * count - (self.mean * (count - 1) if count > 1 else 0.0)
        self.mean = mean

    def told(self) -> dict[str, Any]:
        kernel, found = self.kernel, {}
        energy = getattr(kernel, "_potential_energy_last", getattr(kernel, "_energy_last", None))
        if energy is not None:
            found["energy"] = float(energy)
        if hasattr(kernel, "_mean_accept_prob"):
            found["acceptance"] = self.acceptance
        if hasattr(kernel, "_divergences"):
            found["divergent"] = self.steps - self.warmup - 1 in kernel._divergences[-1:]
        if hasattr(kernel, "step_size"):
            found["step_size"] = float(kernel.step_size)
        elif hasattr(kernel, "_log_step_size"):
            found["step_size"] = math.exp(kernel._log_step_size)
        return found


def _not_finite(model: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """The first site whose log-probability is not finite at a start of one chain, in words."""
    program = BatchedProgram(model, args)
    with torch.no_grad():
        lost = program.without_density(program.start(), 1)
    return lost or "log p of all sites, or its gradient, is not finite"


def _fresh(kernel: MCMCKernel) -> MCMCKernel:
    """A copy of a kernel, with the program that it runs on left where it is."""
    shared = [getattr(kernel, name, None) for name in ("model", "potential_fn", "transforms")]
    return copy.deepcopy(kernel, {id(each): each for each in shared if each is not None})
