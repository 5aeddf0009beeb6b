"""The pictures that only undirected models have: the filters of hidden units, the energy of chains."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.cli.pictures import COLUMNS
from zoo.cli.report import counted

MOST_FILTERS = 6 * COLUMNS
"""Of the hidden units that act most."""

TRACES, TRACED = 100, 1000
"""Chains of either kind in the picture of the energy, and their sweeps."""

SINGLE, LAST = 2, 100
"""Those that are shown one by one, and how many sweeps of them."""


@torch.no_grad()
def filters(model: Any, x: Tensor) -> Figure:
    """Weights from the visible units to each hidden one of the first layer, as images on one scale.

    Those that act most: by how much the mean of the unit varies between items, times the length of its
    weights.

    Args:
        model: A machine over images.
        x: Items that tell which units act.
    """
    weights = model.W[0].T
    means = model.mean_field(x)["h_1"]
    effect = means.std(0, correction=0) * weights.norm(dim=1)
    order = effect.argsort(descending=True, stable=True)[:MOST_FILTERS]
    tiles = weights[order].unflatten(1, model.event_shape).cpu()
    tiles = tiles.reshape(len(tiles), -1, *model.event_shape[-2:]).mean(1)  # channels as one
    height, width = tiles.shape[1:]
    columns = min(COLUMNS, len(tiles))
    rows, gap = math.ceil(len(tiles) / columns), max(1, height // 10)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for number, tile in enumerate(tiles.numpy()):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    scale = float(np.quantile(np.abs(tiles.numpy()), 0.995)) or 1.0
    figure = Figure(figsize=(0.5 * columns + 0.9, 0.5 * rows * height / width + 0.6), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(canvas, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"weights of {len(tiles):,} of {counted(len(weights), 'hidden unit')}, those that act most first",
        fontsize=9,
        loc="left",
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.set_label("red: a pixel that is on speaks for the unit", fontsize=7)
    return figure


@torch.no_grad()
def energy_trace(model: Any, x: Tensor, *, seed: int = 0) -> Figure:
    """The energy of chains that start from independent units and from test items: where do they meet?

    Args:
        model: A machine.
        x: Test items; the hidden units of a chain that starts from one are drawn in its first sweep.
        seed: Of the chains.
    """
    import inference

    kernel = inference.BlockGibbs(model)
    num = min(TRACES, len(x))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        independent = model.initial_state(num)
        items = model.initial_state(num) | {"v": x[:num].to(model.b[0].device)}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    over_time, single = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    everything = []
    for kind, (label, start, colour) in enumerate(
        (
            ("from independent units", independent, "tab:blue"),
            ("from test items", items, "tab:orange"),
        )
    ):
        draws = inference.run_chains(
            kernel,
            TRACED,
            warmup=0,
            sites=[model.names[-1]],
            initial=start,
            seed=seed + kind,  # chains of the same numbers come together whether they mix or not
            progress=False,
        )
        energy = draws.stats["energy"].double().cpu()
        sweeps = np.arange(1, energy.shape[1] + 1)
        low, high = np.quantile(energy.numpy(), [0.05, 0.95], axis=0)
        over_time.plot(
            sweeps, energy.mean(0), color=colour, linewidth=1.2, label=f"{label}: mean, 90 % of them"
        )
        over_time.fill_between(sweeps, low, high, color=colour, alpha=0.2, linewidth=0)
        for chain in energy[:SINGLE, -LAST:]:
            single.plot(sweeps[-LAST:], chain, color=colour, linewidth=0.7, alpha=0.8)
        everything.append(energy)
    low, high = np.quantile(torch.cat(everything).numpy(), [0.001, 0.999])
    margin = 0.08 * (high - low) or 1.0
    over_time.set_ylim(low - margin, high + margin)
    over_time.set_xscale("log")
    over_time.set_xlim(1, TRACED)
    over_time.set_ylabel("energy, nats")
    over_time.set_title(
        f"{counted(num, 'chain')} of either start: they have mixed where these meet", fontsize=9, loc="left"
    )
    over_time.legend(fontsize=7)
    single.set_title(f"{min(SINGLE, num)} chains of each, their last {LAST} sweeps", fontsize=9, loc="left")
    for axes in (over_time, single):
        axes.set_xlabel(f"Gibbs sweeps of {type(model).__name__}")
    return figure
