"""Simulation-based calibration: whether draws follow the posterior, by data whose θ is known.

A program draws θ ~ p(θ) and data ~ p(data | θ) together: that θ is then itself a draw from p(θ | data), one
among those that a method gives for these data.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.ops.stats import effective_sample_size
from scipy import stats
from torch import Tensor

from inference.chains import Draws, chain_seeds
from inference.density import State
from inference.diagnostics import entry_name
from inference.kernels import Kernel
from inference.program import Program, as_found, check_counts, copied_store
from inference.progress import progress as show_progress
from inference.simulated import LEVEL, SHOWN, Joint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIKELIHOOD = "log p(data | θ)"
"""Of its rank, beside those of the entries of θ."""

LEAST_REPLICATIONS = 20
"""Two bins of ten."""

PER_BIN, MOST_BINS = 10, 20
"""Ranks that are expected in a bin, and bins at most."""

LEAST_EFFECTIVE = 1 / 3
"""Of the draws of a replication: with fewer independent ones, ranks pile up at both ends."""

LEAST_DRAWS = 4
"""Of a chain, for their correlation to be looked at."""

PICTURED = 6
"""Entries in the picture, the worst first."""

CURVES = 2000
"""Simulated, to find how far that of uniform ranks strays."""


@dataclass(frozen=True)
class Calibration:
    """Where the true θ of simulated data lies among draws given these data.

    Attributes:
        ranks: How many of the draws are below the true value, of each entry, ``(replication, *shape)`` by
            site; uniform over 0 … ``num_draws`` if the draws follow the posterior. Besides, if there are data
            and draws of all latent sites, of the log-likelihood ``log p(data | θ)``, ``(replication,)``.
        p_values: Of the chi-squared test that they are uniform, ``(*shape)``, each by itself.
        effective: How many independent draws those of a replication are worth, its median, ``(*shape)``.
        num_draws: Draws that a rank is among.
        num_bins: Bins of the test.
        problems: What is wrong, a sentence each; empty where nothing is.
        seed: Of all that was drawn.
    """

    ranks: dict[str, Tensor]
    p_values: dict[str, Tensor]
    effective: dict[str, Tensor]
    num_draws: int
    num_bins: int
    problems: tuple[str, ...]
    seed: int

    @property
    def replications(self) -> int:
        """How many data sets were simulated."""
        return len(next(iter(self.ranks.values())))

    @property
    def p_value(self) -> float:
        """The least p-value times the number of entries, at most 1 (Bonferroni): that of all together."""
        values = torch.cat([value.flatten() for value in self.p_values.values()])
        return min(1.0, values.min().item() * len(values))

    def entries(self) -> list[tuple[str, Tensor]]:
        """Names and ranks ``(replication,)`` of single numbers, the least uniform first."""
        found = []
        for name, ranks in self.ranks.items():
            flat, p_values = ranks.reshape(len(ranks), -1), self.p_values[name]
            for entry, p in enumerate(p_values.flatten().tolist()):
                found.append((p, entry_name(name, entry, p_values.shape), flat[:, entry]))
        return [(name, ranks) for _, name, ranks in sorted(found, key=lambda each: each[0])]

    def __str__(self) -> str:
        figures = {}
        for name, p_values in self.p_values.items():
            for entry, p in enumerate(p_values.flatten().tolist()):
                worth = self.effective[name].flatten()[entry].item()
                figures[entry_name(name, entry, p_values.shape)] = p, worth
        shown = self.entries()[:SHOWN]
        width = max(len(name) for name, _ in shown)
        lines = [
            f"{self.replications:,} replications, ranks among {self.num_draws:,} draws, {self.num_bins} bins",
            f"p = {self.p_value:.2g} for all entries together",
            " " * width + f"{'p':>10}{'mean':>10}{'spread':>10}{'ess':>10}",
        ]
        for name, ranks in shown:
            (p, worth), (mean, spread) = figures[name], _moments_of(ranks, self.num_draws)
            lines.append(
                f"{name:<{width}}{p:>10.2g}{mean:>10.2f}{spread:>10.2f}{worth:>10.0f}".replace("nan", "  -")
            )
        if len(figures) > SHOWN:
            lines.append(f"… and {len(figures) - SHOWN:,} entries more, whose ranks are nearer to uniform")
        lines += [f"! {problem}" for problem in self.problems] or ["nothing wrong was found"]
        return "\n".join(lines)

    def draw(self) -> "Figure":
        """The ranks of the worst entries: counts in bins, and how far their distribution is from uniform.

        The grey band beside the bins holds each of them in 99 % of cases if ranks are uniform; that about the
        curve holds all of it.

        References:
            | Graphical Test for Discrete Uniformity and its Applications in Goodness-of-Fit Evaluation and
              Multiple Sample Comparison (Säilynoja, Bürkner & Vehtari, 2022), for the second band
        """
        from matplotlib.figure import Figure

        shown = self.entries()[:PICTURED]
        num, places = self.replications, np.arange(self.num_draws + 2)
        if len(places) > 202:
            places = np.unique(np.linspace(0, self.num_draws + 1, 202).round().astype(int))
        uniform = places / (self.num_draws + 1)
        low, high = _band(num, uniform[1:-1], self.seed)
        edges = _edges(self.num_draws, self.num_bins)
        shares = np.diff(edges) / (self.num_draws + 1)
        least, most = stats.binom.interval(1 - LEVEL, num, shares)
        figure = Figure(figsize=(9.0, 0.6 + 1.9 * len(shown)), layout="constrained")
        for axes, (name, ranks) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
            counts, _ = np.histogram(ranks.numpy(), edges)
            # A bin is as wide as it has ranks: heights are counts by the width of an average one.
            unit = shares * self.num_bins
            axes[0].stairs(most / unit, edges, baseline=least / unit, fill=True, color="0.85")
            axes[0].stairs(counts / unit, edges, color="C0", linewidth=1.5)
            axes[0].axhline(num / self.num_bins, color="black", linewidth=0.8)
            axes[0].set(
                xlabel="rank", ylabel="replications", title=name, xlim=(0, self.num_draws + 1), ylim=0
            )
            below = np.searchsorted(np.sort(ranks.numpy()), places) / num
            axes[1].fill_between(uniform[1:-1], low, high, color="0.85")
            axes[1].step(uniform, below - uniform, where="post", color="C0")
            axes[1].axhline(0, color="black", linewidth=0.8)
            axes[1].set(xlabel="rank / draws", ylabel="share below - uniform", title=name, xlim=(0, 1))
        return figure

    def plot(self, path: str | Path) -> None:
        """Writes the picture that `draw` makes, in the format that the file's name ends in."""
        self.draw().savefig(path, dpi=120)


@torch.no_grad()
def simulation_based_calibration(
    program: Any,
    *args: Any,
    method: Callable[[Callable[[], Any], int], Draws] | None = None,
    kernel: Callable[..., Kernel] | None = None,
    replications: int = 200,
    num_draws: int | None = None,
    warmup: int | None = None,
    thin: int | None = None,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Tests draws from a posterior: is the true θ anywhere among them, at any rank as often as at another?

    θ' ~ p(θ),    data ~ p(data | θ'),    θ_1 … θ_L ~ p(θ | data),    rank = #{θ_l < θ'} ~ U{0, …, L},

    of each entry of θ, in each replication anew. Also ranked is log p(data | θ), since a method that never
    looks at the data and draws from the prior has uniform ranks of θ. Ties, of discrete sites, are broken at
    random. The ranks are those of independent draws: of correlated ones too many are 0 or L, so they are
    thinned, and a word is said where that was too little.

    A `method` gives draws for one data set after the other. A `kernel` moves all replications as one batch,
    each chain given data of its own, so that two hundred cost about what one does.

    Args:
        program: A Pyro program, an object with ``.model``, or an objective. What it observes is drawn anew,
            by the program itself, which so must draw it in the shape that it observes.
        *args: What it is called with: data of the shapes, with covariates of the values, to simulate for.
        method: A function of a program without arguments, which observes simulated data, and of a seed, that
            gives draws: ``lambda program, seed: inference.nuts(program, seed=seed, …)``, or one that fits a
            guide and returns its `inference.posterior_draws`. Torch is seeded too.
        kernel: Instead, a kernel's class, or a function of a program without arguments and of the names of
            its latent ``sites``, that gives one: `inference.MALA`, ``partial(inference.HMC, num_steps=5)``,
            ``lambda program, sites: Cycle([Gibbs(program, sites=["z"]), MALA(program, sites=["x"])])``.
        replications: How many data sets, at least 20.
        num_draws: With a kernel, L, left out 99; a method gives as many as it likes, always the same number.
        warmup: With a kernel, transitions before the first draw; left out, 500.
        thin: Of the transitions of a kernel one in so many is a draw, left out 10; of the draws of a method
            so many are kept, left out all.
        sites: Whose ranks to look at; left out, all latent ones that are drawn.
        seed: Of all that is drawn; torch's generators and Pyro's parameter store are left as they were.
        progress: Whether to show a bar.

    Returns:
        The ranks, their p-values, and problems in words. After Ctrl-C, those of the replications until then.

    Raises:
        ValueError: If not one of method and kernel is given, or gives something else than it should; if a
            number is below its least, a site unknown, the program can't simulate, or, with a kernel, does not
            broadcast.

    References:
        | Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts, Betancourt,
          Simpson, Vehtari & Gelman, 2018)
        | Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities Shapes
          Sensitivity (Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman & Vehtari, 2023), for the
          log-likelihood

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def coin(x):
        ...     p = pyro.sample("p", dist.Beta(2., 2.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
        >>> calibration = simulation_based_calibration(
        ...     coin, torch.zeros(8), kernel=inference.MALA, num_draws=19, warmup=100, progress=False)
        >>> calibration.ranks["p"].shape, calibration.problems
        (torch.Size([200]), ())
    """
    if (method is None) == (kernel is None):
        raise ValueError(f"expected a method or a kernel, got {'neither' if method is None else 'both'}")
    for name, each in (("method", method), ("kernel", kernel)):
        if each is not None and (not callable(each) or isinstance(each, MCMCKernel)):
            raise ValueError(f"expected {name} to be a function of a program, got {type(each).__name__}")
    if method is not None and (num_draws, warmup) != (None, None):
        raise ValueError("expected num_draws and warmup of a kernel alone: a method has its own")
    check_counts(replications=replications, **{} if thin is None else {"thin": thin})
    if replications < LEAST_REPLICATIONS:
        raise ValueError(f"expected at least {LEAST_REPLICATIONS} replications, got {replications}")
    posterior = Program.of(program)
    with as_found(posterior, *args):
        for_truth, for_chains, for_ties, *for_each = chain_seeds(seed, 3 + replications)
        torch.manual_seed(for_truth)
        joint = Joint(posterior.model, args)
        wanted = joint.wanted(sites)
        truth = joint.program.draw(replications)
        if method is not None:
            samples = _by_method(joint, truth, method, wanted, sites is None, for_each, thin or 1, progress)
        else:
            samples = _by_kernel(
                joint,
                truth,
                joint.kernel(kernel),
                num_draws=99 if num_draws is None else num_draws,
                warmup=500 if warmup is None else warmup,
                thin=thin or 10,
                seed=for_chains,
                progress=progress,
            )
        done = len(next(iter(samples.values())))
        truth = {name: value[:done] for name, value in truth.items()}
        ranked = {name: (truth[name], samples[name]) for name in wanted if name in samples}
        if joint.data and all(name in samples for name in joint.latent):
            ranked[LIKELIHOOD] = joint.log_likelihoods(truth, samples)
        moving = {name for name in joint.latent if not joint.program.sites[name].discrete}
        return _calibration(ranked, moving, replications, for_ties, seed)


def _by_method(
    joint: Joint,
    truth: State,
    method: Callable[[Callable[[], Any], int], Draws],
    wanted: list[str],
    may_lack: bool,
    seeds: Sequence[int],
    thin: int,
    progress: bool,
) -> State:
    """Draws given one data set after the other, ``(replication, chain, draw, *shape)`` by site."""
    kept: dict[str, list[Tensor]] = {}
    with show_progress("calibrating", len(seeds), enabled=progress) as bar:
        for row, seed in enumerate(seeds):
            data = {name: truth[name][row] for name in joint.data}
            try:
                with copied_store(), torch.enable_grad():
                    torch.manual_seed(seed)
                    draws = method(joint.observing(data), seed)
            except KeyboardInterrupt:
                break
            if isinstance(draws, Draws) and draws.interrupted:
                break
            samples = _checked(draws, truth, joint.latent, wanted, may_lack, thin)
            for name in kept if row else samples:
                first = kept[name][0] if row else samples[name]
                if name not in samples or samples[name].shape != first.shape:
                    came = tuple(samples[name].shape[:2]) if name in samples else "none"
                    raise ValueError(
                        f"expected {first.shape[0]} chains of {first.shape[1]} draws of {name} in each "
                        f"replication, got {came}"
                    )
                kept.setdefault(name, []).append(samples[name])
            bar.advance()
    if not kept:
        raise KeyboardInterrupt
    return {name: torch.stack(each) for name, each in kept.items()}


def _checked(
    draws: Any, truth: State, latent: list[str], wanted: list[str], may_lack: bool, thin: int
) -> State:
    """The draws that a method gave of latent sites, ``(chain, draw, *shape)``, thinned."""
    if not isinstance(draws, Draws):
        raise ValueError(f"expected method to give Draws, got {type(draws).__name__}")
    samples = {
        name: draws.samples[name][:, thin - 1 :: thin].detach() for name in latent if name in draws.samples
    }
    if not any(name in samples for name in wanted):
        came = ", ".join(draws.samples)
        raise ValueError(f"expected draws of {', '.join(wanted)}, got those of {came}")
    for name in [*samples, *(() if may_lack else wanted)]:
        shape = truth[name].shape[1:]
        if name not in samples or samples[name].shape[2:] != shape:
            came = tuple(samples[name].shape[2:]) if name in samples else "none"
            raise ValueError(f"expected draws of {name} of shape {tuple(shape)}, got {came}")
        if not samples[name].shape[:2].numel():
            raise ValueError("expected draws in each replication, got none")
    return samples


def _by_kernel(
    joint: Joint,
    truth: State,
    kernel: Kernel,
    *,
    num_draws: int,
    warmup: int,
    thin: int,
    seed: int,
    progress: bool,
) -> State:
    """The same, of chains that run side by side, each given data of its own, and adapting to these alone."""
    torch.manual_seed(seed)
    data = {name: truth[name] for name in joint.data}
    initial = joint.starts(data, len(next(iter(truth.values()))))
    kept: dict[str, list[Tensor]] = {name: [] for name in joint.latent}
    total = warmup + num_draws * thin
    with ExitStack() as stack:
        stack.callback(kernel.cleanup)
        kernel.apart = True
        kernel.setup(warmup)
        state = kernel.prepare(kernel.unconstrain(initial))
        bar = stack.enter_context(show_progress("calibrating", total, enabled=progress))
        try:
            for step in range(total):
                if step == warmup:
                    kernel.end_warmup()
                state = kernel.sample(state)
                if step in (0, total - 1):
                    joint.check_moved(kernel, data, kernel.constrain(state))
                if step >= warmup and (step - warmup + 1) % thin == 0:
                    values = kernel.constrain({name: state[name] for name in joint.latent})
                    for name, value in values.items():
                        kept[name].append(value)
                bar.advance()
        except KeyboardInterrupt:
            num_draws = min(len(each) for each in kept.values())
    if not num_draws:
        raise KeyboardInterrupt
    return {name: torch.stack(each[:num_draws], 1).unsqueeze(1) for name, each in kept.items()}


def _calibration(
    ranked: Mapping[str, tuple[Tensor, Tensor]], moving: set[str], asked: int, for_ties: int, seed: int
) -> Calibration:
    """The verdict on true values ``(replication, *shape)`` and draws, of chain and draw besides."""
    generator = torch.Generator().manual_seed(for_ties)
    ranks, effective, problems = {}, {}, []
    for name, (truth, draws) in ranked.items():
        truth, draws = truth.cpu().double(), draws.cpu().double()
        length = draws.shape[1:3].numel()
        flat = draws.flatten(1, 2)
        below, ties = ((compare(flat, truth.unsqueeze(1))).sum(1) for compare in (torch.lt, torch.eq))
        chance = torch.rand(below.shape, generator=generator, dtype=torch.float64)
        ranks[name] = below + (chance * (ties + 1)).long().minimum(ties)
        effective[name] = _effective(draws, moves=name in moving)
        if flat.isnan().any():
            problems.append(f"{name} is NaN in {int(flat.isnan().sum()):,} of {flat.numel():,} draws")
    done = len(truth)
    if done < asked:
        problems.insert(0, f"interrupted after {done} of {asked} replications")
    bins = max(2, min(MOST_BINS, done // PER_BIN, length + 1))
    p_values = {name: _p_values(each, length, bins) for name, each in ranks.items()}
    found = Calibration(ranks, p_values, effective, length, bins, (), seed)
    problems += _not_uniform(found)
    for name, worth in effective.items():
        if (worth < LEAST_EFFECTIVE * length).any():
            least = worth[~worth.isnan()].min().item()
            problems.append(
                f"few effective draws of {name}: {least:.0f} of {length}, and ranks of correlated draws are "
                f"not uniform: thin {math.ceil(length / max(least, 1))} times as much, or warm up longer"
            )
    return replace(found, problems=tuple(problems))


def _effective(draws: Tensor, *, moves: bool) -> Tensor:
    """How many independent draws those ``(replication, chain, draw, *shape)`` are worth, in the median.

    Those that never change are worth one where their site is continuous; else they tell nothing.
    """
    if draws.shape[2] < LEAST_DRAWS:
        return torch.full(draws.shape[3:], math.nan, dtype=torch.float64)
    length = draws.shape[1:3].numel()
    still = (draws == draws[:, :1, :1]).all(2).all(1)
    # One that is not finite would make those of all replications NaN.
    usable = draws.isfinite().all(2).all(1) & ~still
    alternating = torch.arange(draws.shape[2], dtype=draws.dtype) % 2
    alternating = alternating.reshape(-1, *(1,) * (draws.dim() - 3))
    worth = effective_sample_size(torch.where(usable[:, None, None], draws, alternating), 1, 2)
    worth = torch.where(usable, worth, math.nan)
    if moves:
        worth = torch.where(still, 1.0, worth)
    # Draws that alternate are worth more than there are.
    return torch.where(worth < 0, length, worth.clamp(max=length)).nanmedian(0).values


def _edges(num_draws: int, bins: int) -> np.ndarray:
    """Where the bins of the ranks 0 … num_draws begin and end, as equal as they can be."""
    return np.arange(bins + 1) * (num_draws + 1) // bins


def _p_values(ranks: Tensor, num_draws: int, bins: int) -> Tensor:
    """Of the chi-squared test for uniform ranks ``(replication, *shape)``, ``(*shape)``."""
    edges = _edges(num_draws, bins)
    flat = ranks.reshape(len(ranks), -1)
    which = torch.bucketize(flat, torch.from_numpy(edges[1:-1]), right=True)
    counts = torch.stack([(which == each).sum(0) for each in range(bins)]).numpy()
    expected = len(ranks) * np.diff(edges) / (num_draws + 1)
    statistic = ((counts - expected[:, None]) ** 2 / expected[:, None]).sum(0)
    return torch.from_numpy(stats.chi2.sf(statistic, bins - 1)).reshape(ranks.shape[1:])


def _moments_of(ranks: Tensor, num_draws: int) -> tuple[float, float]:
    """Mean and standard deviation of ranks, in parts of those that are uniform: 0.5 and 1."""
    shares = (ranks.double() + 0.5) / (num_draws + 1)
    exact = (1 - 1 / (num_draws + 1) ** 2) / 12
    return shares.mean().item(), ((shares - 0.5).square().mean() / exact).sqrt().item()


def _not_uniform(calibration: Calibration) -> list[str]:
    """What the ranks of the worst entries say, in words."""
    wrong = []
    p_values = sorted(p for each in calibration.p_values.values() for p in each.flatten().tolist())
    count = sum(p * len(p_values) < LEVEL for p in p_values)
    for (name, ranks), p in list(zip(calibration.entries(), p_values, strict=True))[: min(count, 3)]:
        mean, spread = _moments_of(ranks, calibration.num_draws)
        num = calibration.replications
        # Standard errors of the mean and of the mean square of uniform numbers in (-1/2, 1/2).
        tilt, width = (mean - 0.5) * (12 * num) ** 0.5, (spread**2 - 1) / 12 * (180 * num) ** 0.5
        if max(abs(tilt), abs(width)) < 3:
            how = "in no simple way"
        elif abs(tilt) > abs(width):
            how = f"the draws are too {'low' if tilt > 0 else 'high'}"
        else:
            how = f"the draws are too {'narrow' if width > 0 else 'wide'}"
        wrong.append(f"ranks of {name} are not uniform (p = {p:.1g}): {how}")
    if count > 3:
        wrong.append(f"nor are those of {count - 3:,} entries more")
    return wrong


def _band(num: int, uniform: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Between which curves the distribution of uniform ranks, less their own, stays as a whole."""
    random = np.random.default_rng(seed)
    shares = np.diff(uniform, prepend=0.0, append=1.0)
    below = random.multinomial(num, shares, size=CURVES).cumsum(1)[:, :-1]
    tails = np.minimum(stats.binom.cdf(below, num, uniform), stats.binom.sf(below - 1, num, uniform))
    tail = np.quantile(tails.min(1), LEVEL)
    low, high = stats.binom.ppf(tail, num, uniform), stats.binom.isf(tail, num, uniform)
    return low / num - uniform, high / num - uniform
