"""Pictures of chains: their traces, the ranks of their draws, and how long they remember."""

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import binom

from inference.chains import Draws
from inference.checkpoint import write_atomically
from inference.diagnostics import (
    LEAST_DRAWS,
    MOST_LAGS,
    Row,
    figures_of,
    pooled_autocorrelation,
    sites_of,
    worst_series,
)
from inference.program import check_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 8
"""Chains that have a line each; more are drawn as the band they fill."""

HIGHLIGHTED = 3
"""Chains that have a line of their own all the same: those whose means are furthest from that of all."""

BINS = 20
"""Of the ranks."""

PARTS = 20
"""Of a chain, over each of which a series of two values is averaged, so that its trace can be read."""

MOST_POINTS = 5000
"""Of a line."""

GREY = "#8c96a3"


@torch.no_grad()
def plot_chains(
    draws: Draws, folder: str | os.PathLike[str], *, sites: Sequence[str] | None = None, most: int = 8
) -> list[Path]:
    """Draws ``trace.png``, ``rank.png`` and ``autocorrelation.png``: do the chains agree, and do they move?

    Chains that sample the same distribution have traces that look alike, ranks among all draws that are
    uniform in each chain, and an autocorrelation that falls to 0 well within their length. A single chain has
    nothing to agree with: the ranks are then those of its two halves.

    Each picture has the energy, where there is one, and those entries of sites that look worst, by R-hat and
    effective sample size in turn. Entries that are the same in all draws are left out. More than eight chains
    are drawn as bands, of 90 % of them and of all, with a line for those three whose means are furthest out.

    Args:
        draws: What `inference.run_chains` gave.
        folder: Where to write; made if need be. Pictures of those names that it has are replaced.
        sites: Whose entries to draw; left out, all that were kept.
        most: How many series, at least 1.

    Returns:
        The paths of the three.

    Raises:
        ValueError: If a site is unknown, there are fewer than 4 draws of each chain, or none of them moves.
        OSError: If the folder cannot be written.

    References:
        | Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC
          (Vehtari, Gelman, Simpson, Carpenter & Bürkner, 2021), section 5 for the rank plots

    Example:
        >>> import inference, zoo
        >>> kernel = inference.BlockGibbs(zoo.RBM((4, 4), hidden=3))
        >>> draws = inference.run_chains(kernel, 100, num_chains=4, progress=False)
        >>> [path.name for path in plot_chains(draws, getfixture("tmp_path"), most=2)]
        ['trace.png', 'rank.png', 'autocorrelation.png']
    """
    check_counts(most=most)
    names = sites_of(draws, sites)
    if draws.num_draws < LEAST_DRAWS:
        raise ValueError(
            f"expected {LEAST_DRAWS} draws of each chain or more, to plot, got {draws.num_draws}: draw more"
        )
    found: list[tuple[np.ndarray, Row]] = []
    if "energy" in draws.stats:
        energy = draws.stats["energy"].double().cpu().numpy()
        if (energy != energy[0, 0]).any():
            found.append((energy, figures_of("energy", energy, 0.0)[0]))
    worst = worst_series({name: draws.samples[name] for name in names}, most)
    found += [(series.double().cpu().numpy(), row) for series, row in worst]
    if not found:
        raise ValueError("expected draws that differ, to plot, got the same in all draws of all chains")
    found = found[:most]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"trace.png": _trace, "rank.png": _ranks, "autocorrelation.png": _autocorrelation}
    for name, draw in pictures.items():
        write_atomically(folder / name, _picture(draw, found, draws))
    return [folder / name for name in pictures]


def _picture(
    draw: Callable[["Axes", np.ndarray], None], found: list[tuple[np.ndarray, Row]], draws: Draws
) -> bytes:
    """A panel for each series, as PNG."""
    from matplotlib.figure import Figure

    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(max(6.4, 5.4 * columns), 2.3 * rows + 0.6), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    everywhere: dict[str, object] = {}
    for panel, (series, row) in zip(panels, found, strict=False):
        title = row.name
        title += f"    R-hat {row.r_hat:.3f}" if row.r_hat == row.r_hat else ""
        title += f"    ESS {row.ess_bulk:,.0f}" if row.ess_bulk == row.ess_bulk else ""
        panel.set_title(title, fontsize=9, loc="left")
        panel.tick_params(labelsize=8)
        wild = int((~np.isfinite(series)).sum())
        if wild:
            words = f"not finite in {wild:,} of {series.size:,} draws"
            panel.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
            continue
        draw(panel, series)
        named = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        own = {label: line for label, line in named.items() if len(series) > MOST_LINES and "chain " in label}
        if own:  # other chains stand out in other panels
            small = {"handlelength": 1.0, "handletextpad": 0.4, "columnspacing": 0.8, "borderaxespad": 0.0}
            above = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "ncols": len(own), "frameon": False}
            panel.legend(own.values(), own.keys(), fontsize=7, **above, **small)
        everywhere |= {label: each for label, each in named.items() if label not in own}
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    chains = "1 chain" if draws.num_chains == 1 else f"{draws.num_chains:,} chains"
    figure.suptitle(f"{chains} of {draws.num_draws:,} draws", fontsize=10)
    if everywhere:
        figure.legend(
            everywhere.values(), everywhere.keys(), fontsize=8, loc="outside lower center", ncols=3 * columns
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _trace(panel: "Axes", series: np.ndarray) -> None:
    """Each draw, or where there are but two values the mean over a part of the chain up to it."""
    length = series.shape[1]
    window = length // PARTS
    if window > 1 and np.isin(series, (series.min(), series.max())).all():
        total = np.cumsum(np.pad(series, ((0, 0), (1, 0))), axis=1)
        series = (total[:, window:] - total[:, :-window]) / window
        panel.set_ylabel(f"mean of {window:,} draws", fontsize=8)
    step = math.ceil(series.shape[1] / MOST_POINTS)
    places = np.arange(length - series.shape[1], length)[::step]
    series = series[:, ::step]
    furthest = np.abs(series.mean(1) - series.mean())
    _lines(panel, places, series, furthest)
    panel.set_xlabel("draw", fontsize=8)


def _ranks(panel: "Axes", series: np.ndarray) -> None:
    """How often the draws of each chain have each rank among all draws, over how often they should."""
    halves = len(series) == 1
    if halves:
        series = series[:, : series.size // 2 * 2].reshape(2, -1)
    chains, length = series.shape
    bins = min(BINS, max(2, length // 5))
    # Of draws that are equal, any may come first.
    order = np.lexsort((np.random.default_rng(0).random(series.size), series.flatten()))
    place = np.empty(series.size, dtype=np.int64)
    place[order] = np.arange(series.size) * bins // series.size
    chain = np.repeat(np.arange(chains), length)
    counts = np.bincount(chain * bins + place, minlength=chains * bins).reshape(chains, bins)
    low, high = binom.ppf([0.005, 0.995], length, 1 / bins) * bins / length
    _expected(panel, low, high, "99 % of independent draws")
    ratio = counts * bins / length
    ratio = np.concatenate([ratio, ratio[:, -1:]], axis=1)
    names = ["first half", "second half"] if halves else None
    furthest = np.abs(series.mean(1) - series.mean())
    _lines(panel, np.linspace(0, 1, bins + 1), ratio, furthest, names=names, step="post")
    panel.set(xlim=(0, 1), ylim=(0, None))
    panel.set_xlabel("rank among all draws", fontsize=8)
    panel.set_ylabel("draws / expected", fontsize=8)


def _autocorrelation(panel: "Axes", series: np.ndarray) -> None:
    """Of each chain about its own mean, and of all about the mean of all."""
    length = series.shape[1]
    lags = np.arange(min(MOST_LAGS, length // 2) + 1)
    centred = series - series.mean(1, keepdims=True)
    moves = (series != series[:, :1]).any(1)
    own = np.ones((len(series), len(lags)))  # of one that does not move
    variance = np.square(centred[moves]).mean(1)
    for lag in lags:
        own[moves, lag] = (centred[moves, : length - lag] * centred[moves, lag:]).mean(1) / variance
    spread = 1.96 / math.sqrt(length)
    _expected(panel, -spread, spread, "95 % of independent draws")
    _lines(panel, lags, own, own.sum(1))
    if len(series) > 1:
        pooled = pooled_autocorrelation(torch.from_numpy(series)).numpy()
        panel.plot(lags, pooled, color="black", lw=1.4, label="about the mean of all")
    panel.set(xlim=(0, lags[-1]), ylim=(min(-0.25, own.min() - 0.05), 1.05))
    panel.set_xlabel("lag, in draws", fontsize=8)


def _expected(panel: "Axes", low: float, high: float, label: str) -> None:
    """Between which lines a chain of independent draws would be."""
    for place in (low, high):
        panel.axhline(place, color="black", lw=0.8, ls=(0, (4, 3)), label=label)


def _lines(
    panel: "Axes",
    places: np.ndarray,
    values: np.ndarray,
    furthest: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    step: str | None = None,
) -> None:
    """A line for each of a few chains; of many, the bands that they fill, and those that stand out."""
    shown = list(range(len(values)))
    if len(values) > MOST_LINES:
        for inner, alpha, label in ((100, 0.25, "all chains"), (90, 0.5, "90 % of chains")):
            low, high = np.percentile(values, [50 - inner / 2, 50 + inner / 2], axis=0)
            panel.fill_between(places, low, high, color=GREY, alpha=alpha, lw=0, step=step, label=label)
        shown = np.argsort(-furthest, kind="stable")[:HIGHLIGHTED].tolist()
    for number, chain in enumerate(shown):
        label = names[chain] if names else f"chain {chain}"
        style = {"color": f"C{number}", "lw": 0.9, "alpha": 0.8, "label": label}
        panel.plot(places, values[chain], drawstyle=f"steps-{step}" if step else "default", **style)
