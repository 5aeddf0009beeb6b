"""Whether chains have run long enough: what ArviZ says of their draws, and what is wrong, in words."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

from inference.arviz_data import import_arviz
from inference.chains import Draws

OF_THE_KERNEL = ("acceptance", "step_size", "divergent")
"""Statistics that tell how a kernel moves, and nothing of what it samples."""

LEAST_DRAWS = 4
"""ArviZ halves each chain, and tells nothing from fewer."""

LARGEST_R_HAT = 1.01
"""Vehtari et al. (2021), section 4."""

TIMES_LONG = 10
"""Integrated times that a chain should be long, for that time itself to be known."""

MOST_LAGS = 100
"""Of the autocorrelation."""

LOOKED_AT = 3
"""Entries of a site, by each plain figure, that are judged by the costly ones."""

_BYTES_AT_ONCE = 1 << 26
"""Memory for the series that are looked through for the worst."""


@dataclass(frozen=True)
class Row:
    """What is said of one series of numbers, a draw of each chain at a time; NaN where nothing tells.

    Attributes:
        name: ``energy``, a site, ``mean(v)`` for the mean of a site's entries, or ``v[0, 3]`` for an entry.
        mean: Over all draws.
        standard_deviation: Of a draw.
        mcse: The Monte Carlo standard error of the mean.
        ess_bulk: How many independent draws they are worth, for means and medians.
        ess_tail: The same for the quantiles of 5 and 95 %.
        r_hat: Rank-normalised, split: near 1 where the chains agree, with each other and over time.
    """

    name: str
    mean: float
    standard_deviation: float
    mcse: float
    ess_bulk: float
    ess_tail: float
    r_hat: float


@dataclass(frozen=True)
class Diagnosis:
    """What the draws of chains tell of their quality.

    Attributes:
        rows: The energy and other statistics, each site or the mean of its entries, the worst entries.
        problems: What is wrong, a sentence each; empty where nothing is.
        notes: What is worth knowing and need not be wrong.
        num_chains: How many chains there are.
        num_draws: How many draws of each.
        autocorrelation: Of the energy, at lags of 0, 1, … draws, ``(lags,)``, over all chains; None without.
        integrated_time: Of the energy: how many draws of a chain are worth one independent one. NaN without.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    num_chains: int
    num_draws: int
    autocorrelation: Tensor | None
    integrated_time: float

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        titles = ("mean", "sd", "mcse", "ess bulk", "ess tail", "R-hat")
        lines = [f"{self.num_chains:,} chains of {self.num_draws:,} draws"]
        lines.append(" " * width + "".join(f"{title:>11}" for title in titles))
        for row in self.rows:
            numbers = f"{row.mean:>11.4g}{row.standard_deviation:>11.4g}{row.mcse:>11.2g}"
            worth = f"{row.ess_bulk:>11,.0f}{row.ess_tail:>11,.0f}{row.r_hat:>11.3f}"
            lines.append(f"{row.name:<{width}}{numbers}{worth}".replace("nan", "  -"))
        if self.integrated_time == self.integrated_time:
            lines.append(f"integrated time of the energy: {self.integrated_time:.1f} draws")
        lines += [f"! {problem}" for problem in self.problems] or ["nothing wrong was found"]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@torch.no_grad()
def diagnose(
    draws: Draws, *, sites: Sequence[str] | None = None, worst: int = 3, least_ess: float = 400
) -> Diagnosis:
    """Says how far draws may be trusted: R-hat, effective sample sizes, Monte Carlo errors, by ArviZ.

    They are those of the energy and the kernel's other statistics, of each site that is one number, of the
    mean of the entries of each other, and of its ``worst`` entries, those of largest split R-hat of the draws
    or of their distances from the median. No figure can tell of a mode that no chain has found. The
    integrated time is that which the effective sample size of the mean implies, draws of all chains over it,
    so that chains that disagree make it long. However many chains there are, R-hat comes down to 1.01 only
    where each is about 100 integrated times long.

    Args:
        draws: What `inference.run_chains` gave.
        sites: Which sites to look at; left out, all that were kept.
        worst: Entries of each site to look at one by one.
        least_ess: Effective sample size below which a word is said, in all chains together.

    Raises:
        ValueError: If a site is unknown, or ``worst`` is below 0.

    References:
        | Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC
          (Vehtari, Gelman, Simpson, Carpenter & Bürkner, 2021)

    Example:
        >>> import inference, zoo
        >>> kernel = inference.BlockGibbs(zoo.RBM((4, 4), hidden=3))
        >>> diagnosis = diagnose(inference.run_chains(kernel, 100, num_chains=10, progress=False))
        >>> [row.name for row in diagnosis.rows][:2], diagnosis.problems
        (['energy', 'mean(v)'], ())
    """
    names = sites_of(draws, sites)
    if worst < 0:
        raise ValueError(f"expected worst to be at least 0, got {worst}")
    rows: list[Row] = []
    problems: list[str] = []
    notes: list[str] = []
    chains, length = draws.num_chains, draws.num_draws
    if draws.interrupted:
        notes.append("the run was interrupted")
    if chains == 1:
        problems.append(
            "one chain: whether another would agree, and so R-hat, nothing tells; run several, num_chains=4 "
            "or more, each from a start of its own"
        )
    if length < LEAST_DRAWS:
        problems.append(
            f"too few draws: expected {LEAST_DRAWS} of each chain or more, got {length}, which tell neither "
            "R-hat nor effective sizes; draw more, num_draws=1000, say"
        )
    series = [(name, values) for name, values in draws.stats.items() if not _is_of_the_kernel(name)]
    told, said = _of_the_kernel(draws)
    notes += told
    problems += said
    for name in names:
        value = draws.samples[name]
        if not value.shape[2:].numel():
            continue
        if value.dim() == 2:
            series.append((name, value))
            continue
        shape, entries = value.shape[2:], value.flatten(2)
        mean = entries.mean(-1, dtype=torch.float64)
        still = mean.numel() and mean.max() - mean.min() <= 1e-5 * mean.abs().max()
        if not (still and (entries != entries[:1, :1]).any()):  # that of a simplex, say, tells nothing
            series.append((f"mean({name})", mean))
        found, constant = _worst_entries(entries, worst)
        series += [(entry_name(name, entry, shape), entries[..., entry]) for entry in found]
        if constant:
            notes.append(f"{constant:,} of {shape.numel():,} entries of {name} are the same in all draws")
    for name, values in series:
        row, said = figures_of(name, values.double().cpu().numpy(), least_ess)
        rows.append(row)
        problems += said
    autocorrelation, time = None, float("nan")
    if "energy" in draws.stats and length >= LEAST_DRAWS:
        energy = draws.stats["energy"].double().cpu()
        if energy.isfinite().all() and (energy != energy[0, 0]).any():
            autocorrelation = pooled_autocorrelation(energy)
            time = energy.numel() / effective_size_of_mean(energy)
            if length < TIMES_LONG * time:
                problems.append(
                    f"short chains: {length:,} draws are fewer than {TIMES_LONG} integrated times of the "
                    f"energy, {time:.1f} draws each; run longer, or thin more"
                )
    return Diagnosis(tuple(rows), tuple(problems), tuple(notes), chains, length, autocorrelation, time)


def sites_of(draws: Draws, sites: Sequence[str] | None) -> list[str]:
    """The names of the sites to look at, all that were kept where none are given.

    Raises:
        ValueError: If one is unknown.
    """
    names = list(draws.samples) if sites is None else list(sites)
    unknown = [name for name in names if name not in draws.samples]
    if unknown or isinstance(sites, str):
        raise ValueError(
            f"expected sites to be a list of some of {', '.join(draws.samples)}, got "
            f"{sites if isinstance(sites, str) else unknown[0]}"
        )
    return names


def worst_figures(samples: Mapping[str, Tensor]) -> tuple[float, float]:
    """The largest rank-normalised R-hat, and the least bulk effective sample size, of any entry.

    Those entries are judged by ArviZ that look worst by plain figures: split R-hat, and the spread of means
    of batches. Entries that are the same in all draws tell nothing, and one chain tells nothing of R-hat:
    NaN, where nothing does. Infinity and 0, where there are too few draws, or some are not finite.

    Args:
        samples: Draws, ``(chain, draw, *shape)`` each.
    """
    if any(value.shape[1] < LEAST_DRAWS for value in samples.values()):
        return math.inf, 0.0
    largest, least = [], []
    for value in samples.values():
        entries = value.flatten(2) if value.dim() > 2 else value.unsqueeze(-1)
        for entry in {entry for found in _suspects(entries, LOOKED_AT) for entry, _ in found}:
            row, _ = figures_of("", entries[..., entry].double().cpu().numpy(), 0.0)
            if len(value) > 1:
                largest.append(math.inf if math.isnan(row.r_hat) else row.r_hat)
            least.append(0.0 if math.isnan(row.ess_bulk) else row.ess_bulk)
    return max(largest, default=math.nan), min(least, default=math.nan)


def worst_series(samples: Mapping[str, Tensor], most: int) -> list[tuple[Tensor, Row]]:
    """The entries that look worst, in turn by split R-hat and effective size, and what ArviZ says of them.

    Entries that are the same in all draws are left out.

    Args:
        samples: Draws, ``(chain, draw, *shape)`` each, at least `LEAST_DRAWS`.
        most: How many entries.

    Returns:
        A series ``(chain, draw)`` for each, and its figures under its name.
    """
    by_figure: tuple[list[Any], list[Any]] = ([], [])
    for name, value in samples.items():
        entries = value.flatten(2) if value.dim() > 2 else value.unsqueeze(-1)
        for order, found in zip(by_figure, _suspects(entries, most), strict=True):
            for entry, badness in found:
                called = entry_name(name, entry, value.shape[2:])
                order.append((badness, called, entries[..., entry]))
    in_turn = zip(*(sorted(order, key=lambda each: -each[0]) for order in by_figure), strict=True)
    chosen = {called: series for pair in in_turn for _, called, series in pair}
    return [
        (series, figures_of(called, series.double().cpu().numpy(), 0.0)[0])
        for called, series in list(chosen.items())[:most]
    ]


def _suspects(entries: Tensor, most: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Of ``(chain, draw, n)`` those entries that look worst by R-hat and by size, and how bad they look."""
    r_hat, size = _plain_figures(entries)
    most = min(most, int((~r_hat.isneginf()).sum()))
    ordered = (figure.topk(most) for figure in (r_hat, -size))
    first, second = (list(zip(at.tolist(), figure.tolist(), strict=True)) for figure, at in ordered)
    return first, second


def _plain_figures(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Split R-hat and effective size of each entry ``(chain, draw, n)``; -∞ and ∞ where it is constant."""
    if not entries.shape[-1]:
        return torch.empty(0), torch.empty(0)
    r_hat, size = [], []
    for part in entries.split(_at_once(entries), dim=-1):
        still = (part == part[:1, :1]).all(0).all(0)
        values = _normal_scores(part.double())
        # Chains may have the same mean and another spread: that shows about the median.
        folded = (values - values.flatten(0, 1).median(0).values).abs()
        found = torch.fmax(split_gelman_rubin(values), split_gelman_rubin(folded))
        # NaN where an entry is not finite somewhere, and nothing is worse.
        r_hat.append(found.nan_to_num(nan=torch.inf).masked_fill(still, -torch.inf))
        size.append(_plain_size(values).nan_to_num(nan=0.0).masked_fill(still, torch.inf))
    return torch.cat(r_hat), torch.cat(size)


def _normal_scores(values: Tensor) -> Tensor:
    """What the ranks of entries ``(chain, draw, n)`` among all their draws would be of a normal distribution.

    So heavy tails hide nothing; NaN stays, and ties are ranked in some order.
    """
    flat = values.flatten(0, 1)
    ranks = flat.argsort(0).argsort(0).double()
    scores = torch.special.ndtri((ranks + 0.625) / (len(flat) + 0.25))
    return torch.where(flat.isfinite(), scores, torch.nan).reshape(values.shape)


def _plain_size(values: Tensor) -> Tensor:
    """Effective sizes of series ``(chain, draw, n)`` by means of batches, each as long as there are many.

    Pyro's own takes memory that grows with the square of a chain's length.
    """
    length = values.shape[1]
    batch = math.isqrt(length)
    means = values[:, : length // batch * batch].unflatten(1, (-1, batch)).mean(2)
    variance, of_means = (each.flatten(0, 1).var(0) for each in (values, means))
    return values[..., 0].numel() * variance / (batch * of_means)


def _at_once(entries: Tensor) -> int:
    """Of how many entries ``(chain, draw, n)`` the figures are found at once."""
    return max(1, _BYTES_AT_ONCE // (8 * max(1, entries.shape[0] * entries.shape[1])))


def _of_the_kernel(draws: Draws) -> tuple[list[str], list[str]]:
    """What the kernel's own statistics tell, and what is wrong there."""
    notes, problems = [], []
    told = {name: value for name, value in draws.stats.items() if _is_of_the_kernel(name)}
    if not draws.num_draws:
        return notes, problems
    for name in sorted(told, key=lambda name: OF_THE_KERNEL.index(_base(name))):
        value = told[name].double()
        if _base(name) == "divergent":
            divergent = int(value.sum())
            if divergent:
                which = "" if name == "divergent" else f" ({name})"
                problems.append(
                    f"{divergent:,} of {value.numel():,} transitions{which} diverged: the draws may miss a "
                    "part of the posterior there; a higher target_accept_prob, or other parameters for it, "
                    "may help"
                )
            continue
        low, high = value.mean(1).min().item(), value.mean(1).max().item()
        spread = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} by chain"
        notes.append(f"{name.replace('_', ' ')} {spread}")
    return notes, problems


def _base(name: str) -> str:
    """A statistic's name without the number of a kernel in a cycle."""
    return re.sub(r"_\d+$", "", name)


def _is_of_the_kernel(name: str) -> bool:
    return _base(name) in OF_THE_KERNEL


def figures_of(name: str, values: np.ndarray, least_ess: float) -> tuple[Row, list[str]]:
    """The figures of a series ``(chain, draw)``, and what is wrong with it."""
    nothing = float("nan")
    chains, length = values.shape
    if values.size == 0:
        return Row(name, *[nothing] * 6), []
    wild = int((~np.isfinite(values)).sum())
    if wild:
        return Row(name, *[nothing] * 6), [f"{name} is not finite in {wild:,} of {values.size:,} draws"]
    mean, deviation = float(values.mean()), float(values.std())
    if (values == values[0, 0]).all():
        return Row(name, mean, 0.0, *[nothing] * 4), [f"{name} is constant: {mean:g} in all draws"]
    if length < LEAST_DRAWS:
        return Row(name, mean, deviation, *[nothing] * 4), []
    with _quietly() as arviz:
        mcse = float(arviz.mcse(values, method="mean"))
        bulk = float(arviz.ess(values, method="bulk"))
        tail = float(arviz.ess(values, method="tail", prob=(0.05, 0.95)))
        r_hat = float(arviz.rhat(values)) if chains > 1 else nothing
    row, said = Row(name, mean, deviation, mcse, bulk, tail, r_hat), []
    stuck = int((values == values[:, :1]).all(-1).sum())
    if stuck == chains:
        return row, [f"{name} is constant within each chain, and the chains differ: they do not move"]
    if r_hat > LARGEST_R_HAT:
        said.append(
            f"R-hat of {name} is {r_hat:.4f}, above {LARGEST_R_HAT}: the chains disagree, or are short for "
            "how slowly they move"
        )
    if min(bulk, tail) < least_ess:
        said.append(
            f"few effective draws of {name}: {min(bulk, tail):,.0f} of {values.size:,}, below {least_ess:g}"
        )
    return row, said


def _worst_entries(entries: Tensor, worst: int) -> tuple[list[int], int]:
    """Of ``(chain, draw, n)`` those of largest split R-hat, and how many are constant, and none of those."""
    _, length, num = entries.shape
    if length < LEAST_DRAWS:
        return [], 0
    r_hat, _ = _plain_figures(entries)
    still = int(r_hat.isneginf().sum())
    return r_hat.argsort(descending=True, stable=True)[: min(worst, num - still)].tolist(), still


def entry_name(name: str, entry: int, shape: torch.Size) -> str:
    """The name of an entry of a site, by its indices."""
    if not shape:
        return name
    return f"{name}[{', '.join(str(int(index)) for index in np.unravel_index(entry, tuple(shape)))}]"


def effective_size_of_mean(values: Tensor) -> float:
    """How many independent draws those of a series ``(chain, draw)`` are worth for its mean."""
    with _quietly() as arviz:
        return float(arviz.ess(values.double().cpu().numpy(), method="mean"))


def pooled_autocorrelation(values: Tensor) -> Tensor:
    """Of series ``(chain, draw)`` about the mean of all, at lags up to half a chain."""
    centred = values - values.mean()
    length = values.shape[1]
    lags = range(min(MOST_LAGS, length // 2) + 1)
    return (
        torch.stack([(centred[:, : length - lag] * centred[:, lag:]).mean() for lag in lags])
        / centred.square().mean()
    )


@contextmanager
def _quietly() -> Iterator[Any]:
    """ArviZ, without the noise of NumPy about series that hardly move."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield import_arviz()
