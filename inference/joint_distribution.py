"""Geweke's test of a kernel: whether the joint distribution of θ and data stays while both are moved."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from scipy import stats
from torch import Tensor

from inference.chains import chain_seeds, run_chains
from inference.density import State
from inference.diagnostics import entry_name
from inference.kernels import Kernel
from inference.program import Program, as_found, check_counts
from inference.progress import progress as show_progress
from inference.simulated import LEVEL, SHOWN, Joint

EXACT = 10
"""Times as many exact draws as chains, to compare these with."""


@dataclass(frozen=True)
class JointTest:
    """Whether chains that alternate a kernel and fresh data stay where the program draws.

    Attributes:
        names: Of the figures: ``mean(μ)``, ``spread(μ)``, ``μ · x`` for the product with the mean entry of x.
        expected: Each of them over exact draws, of entries on the scale (-½, ½) of their own ranks.
        found: Over the chains.
        z_scores: The difference in standard errors.
        num_chains: How many chains there were.
        steps: How many transitions of each.
        problems: What is wrong, a sentence each; empty where nothing is.
        seed: Of all that was drawn.
    """

    names: tuple[str, ...]
    expected: Tensor
    found: Tensor
    z_scores: Tensor
    num_chains: int
    steps: int
    problems: tuple[str, ...]
    seed: int

    @property
    def p_value(self) -> float:
        """That of the largest z-score times the number of them, at most 1 (Bonferroni)."""
        return min(1.0, 2 * float(stats.norm.sf(self.z_scores.abs().max().item())) * len(self.names))

    @property
    def worst(self) -> str:
        """The name of the figure with the largest z-score."""
        return self.names[int(self.z_scores.abs().argmax())]

    def __str__(self) -> str:
        order = self.z_scores.abs().argsort(descending=True, stable=True)[:SHOWN].tolist()
        width = max(len(self.names[place]) for place in order)
        lines = [
            f"{self.num_chains:,} chains of {self.steps:,} steps; p = {self.p_value:.2g} for all figures "
            "together",
            " " * width + f"{'program':>10}{'chains':>10}{'z':>10}",
        ]
        for place in order:
            expected, found, z = (each[place].item() for each in (self.expected, self.found, self.z_scores))
            lines.append(f"{self.names[place]:<{width}}{expected:>10.3f}{found:>10.3f}{z:>10.1f}")
        if len(self.names) > SHOWN:
            lines.append(f"… and {len(self.names) - SHOWN:,} figures more, which differ less")
        lines += [f"! {problem}" for problem in self.problems] or ["nothing wrong was found"]
        return "\n".join(lines)


@torch.no_grad()
def joint_distribution_test(
    program: Any,
    kernel: Callable[..., Kernel],
    *args: Any,
    num_chains: int = 1000,
    steps: int = 50,
    warmup: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> JointTest:
    """Geweke's test of a kernel: θ and data, drawn by the program, stay as likely while both move.

    (θ, data) ~ p(θ, data);    θ ← T(θ' | θ, data),    data ~ p(data | θ),    again and again,

    leaves p(θ, data) as it is if T leaves p(θ | data) as it is. Chains start from exact draws and are
    independent, so that what they have become is compared with other exact draws by plain z-scores: mean and
    spread of every entry of θ and of the data, and the product of each of θ with the mean of the data.
    Entries are taken by their rank among draws from the program, so that no heavy tail hides a difference.
    Chains are averaged over the second half of their steps.

    What is found is an error in a kernel, in the Jacobian of a transform, or between what a program draws and
    what it scores. A kernel that does not move passes, with a word about it: `simulation_based_calibration`
    tells of that.

    Args:
        program: A Pyro program, an object with ``.model``, or an objective; see
            `simulation_based_calibration`.
        kernel: A kernel's class, or a function of a program without arguments and of the names of its latent
            ``sites`` that gives one.
        *args: What the program is called with.
        num_chains: How many, at least 100.
        steps: Transitions of each, at least 2.
        warmup: Transitions in which the kernel adapts, on other data sets; what it learns is then frozen.
        seed: Of all that is drawn; torch's generators and Pyro's parameter store are left as they were.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a number is below its least, the kernel is none of inference's, or the program can't
            simulate or does not broadcast.

    References:
        | Getting It Right: Joint Distribution Tests of Posterior Simulators (Geweke, 2004)

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0., 1.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 2.), obs=x)
        >>> test = joint_distribution_test(
        ...     model, inference.MALA, torch.zeros(4), steps=20, warmup=50, progress=False)
        >>> len(test.names), test.problems
        (11, ())
    """
    if not callable(kernel) or isinstance(kernel, MCMCKernel):
        raise ValueError(f"expected kernel to be a function of a program, got {type(kernel).__name__}")
    check_counts(num_chains=num_chains, steps=steps)
    for name, value, least in (("num_chains", num_chains, 100), ("steps", steps, 2)):
        if value < least:
            raise ValueError(f"expected {name} to be at least {least}, got {value}")
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise ValueError(f"expected warmup to be an integer of at least 0, got {warmup!r}")
    tested = Program.of(program)
    with as_found(tested, *args), ExitStack() as stack:
        for_exact, for_warmup, for_chains = chain_seeds(seed, 3)
        torch.manual_seed(for_exact)
        joint = Joint(tested.model, args)
        mover = joint.kernel(kernel)
        figures = _Figures(joint, joint.program.draw(num_chains))
        exact = torch.cat([figures(joint.program.draw(num_chains)) for _ in range(EXACT)])
        adapted: Mapping[str, Any] = {}
        if warmup:
            initial = joint.program.draw(num_chains)
            data = {name: initial[name] for name in joint.data}
            run = {"seed": for_warmup, "initial": initial, "progress": progress}
            learnt = run_chains(mover, 1, warmup=warmup, **run)
            joint.check_moved(mover, data, learnt.last)
            if learnt.interrupted:
                raise KeyboardInterrupt
            adapted = learnt.adapted
        bar = stack.enter_context(show_progress("testing", steps, enabled=progress))
        torch.manual_seed(for_chains)
        stack.callback(mover.cleanup)
        mover.setup(0)
        values = start = joint.program.draw(num_chains)
        state = mover.prepare(mover.unconstrain(values))
        if adapted:
            mover.adopt(adapted)
        sums, kept = torch.zeros(num_chains, len(figures.names), dtype=torch.float64), 0
        for step in range(steps):
            state = mover.sample(state)
            if step == 0:
                data = {name: values[name] for name in joint.data}
                joint.check_moved(mover, data, mover.constrain(state))
            values = mover.constrain(state)
            values = joint.program.draw(num_chains, {name: values[name] for name in joint.latent})
            state = state | mover.unconstrain({name: values[name] for name in joint.data})
            if step >= steps // 2:
                sums, kept = sums + figures(values), kept + 1
            bar.advance()
        return _tested(figures.names, exact, sums / kept, steps, seed, _unmoved(joint, start, values))


def _tested(
    names: list[str], exact: Tensor, chains: Tensor, steps: int, seed: int, problems: list[str]
) -> JointTest:
    """The verdict on figures ``(draws, figures)`` and ``(chains, figures)``."""
    expected, found = exact.mean(0), chains.mean(0)
    error = (exact.var(0) / len(exact) + chains.var(0) / len(chains)).sqrt()
    # What is the same in all draws differs infinitely, or not at all.
    z = torch.where((found - expected).abs() > 1e-12, (found - expected) / error, 0.0)
    p_values = 2 * stats.norm.sf(z.abs().numpy()) * len(names)
    wrong = [int(place) for place in np.argsort(p_values, kind="stable") if p_values[place] < LEVEL]
    for place in wrong[:3]:
        problems.append(
            f"{names[place]} is {found[place].item():.3f} over the chains, {expected[place].item():.3f} over "
            f"draws (z = {z[place].item():.1f}): the kernel does not leave the posterior as it is"
        )
    if len(wrong) > 3:
        problems.append(f"so do {len(wrong) - 3:,} figures more")
    return JointTest(
        names=tuple(names),
        expected=expected,
        found=found,
        z_scores=z,
        num_chains=len(chains),
        steps=steps,
        problems=tuple(problems),
        seed=seed,
    )


def _unmoved(joint: Joint, start: State, end: State) -> list[str]:
    return [
        f"{name} did not move in any chain: a kernel that leaves all as it is passes any test of this kind"
        for name in joint.latent
        if torch.equal(start[name], end[name])
    ]


class _Figures:
    """Bounded functions of θ and data, whose means are compared.

    Args:
        joint: The program.
        draws: From it, ``(num, *shape)`` by site: they define the scale.
    """

    def __init__(self, joint: Joint, draws: State) -> None:
        self.joint = joint
        self.sorted = {
            name: value.double().flatten(1).T.sort(1).values.contiguous()
            if value.dim() > 1
            else value.double()[None].sort(1).values
            for name, value in draws.items()
        }
        entries = {
            name: [entry_name(name, entry, value.shape[1:]) for entry in range(value[0].numel())]
            for name, value in draws.items()
        }
        every = [each for name in (*joint.latent, *joint.data) for each in entries[name]]
        self.names = [f"mean({each})" for each in every] + [f"spread({each})" for each in every]
        for name in joint.latent:
            self.names += [f"{each} · {data}" for data in joint.data for each in entries[name]]

    def __call__(self, values: State) -> Tensor:
        """Of each draw, ``(num, figures)``."""
        ranks = {name: self._ranks(name, values[name]) for name in (*self.joint.latent, *self.joint.data)}
        parts = [*ranks.values(), *(each.square() for each in ranks.values())]
        for name in self.joint.latent:
            parts += [ranks[name] * ranks[data].mean(1, keepdim=True) for data in self.joint.data]
        return torch.cat(parts, 1)

    def _ranks(self, name: str, value: Tensor) -> Tensor:
        """Ranks of entries ``(num, entries)``, in parts of one, about zero; ties are half below."""
        known = self.sorted[name]
        entries = value.double().reshape(len(value), -1).T.contiguous()
        below = torch.searchsorted(known, entries) + torch.searchsorted(known, entries, right=True)
        return (below.double() / (2 * known.shape[1]) - 0.5).T.cpu()
