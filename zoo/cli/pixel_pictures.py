"""The pictures of a model of pixels: what a pixel sees, and what is drawn for each label."""

from typing import Any

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from zoo.cli.pictures import COLUMNS, highest_level, item_grid

LOOKED_AT = 64
"""Test items that derivatives are taken at."""


def receptive_field(model: Any, x: Tensor, y: Tensor | None) -> Figure:
    """How much the distribution of a pixel depends on each pixel before it; white is not at all.

    Args:
        model: One of `zoo.autoregressive.pixels.Pixels`.
        x: Images, shape ``(batch, *event_shape)``.
        y: Their labels, for a model that has labels.
    """
    row, column = 2 * model.height // 3, model.width // 2
    labels = None if model.num_classes is None or y is None else y[:LOOKED_AT]
    seen = model.influence(x[:LOOKED_AT], row, column, labels).double().cpu()
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    shown = torch.where(seen > 0, seen, torch.nan)
    least = max(seen.max().item() * 1e-4, 1e-30)
    scale = LogNorm(vmin=least, vmax=max(seen.max().item(), 10 * least))
    image = axes.imshow(shown.clamp(min=least).numpy(), norm=scale)
    corner = column - 0.5, row - 0.5
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=1.5))
    axes.set_title(f"what the pixel in red depends on in {type(model).__name__}; white: nothing", fontsize=9)
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    figure.colorbar(image, label="RMS derivative of its parameters")
    return figure


def drawn_by_label(model: Any) -> Figure:
    """A row of draws for each label."""
    labels = torch.arange(model.num_classes).repeat_interleave(COLUMNS)
    return item_grid(
        model.sample(len(labels), seed=0, y=labels),
        title=f"draws from {type(model).__name__} by label",
        rows=[str(label) for label in range(model.num_classes)],
        highest=highest_level(model),
    )
