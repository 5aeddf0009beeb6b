"""The pictures of a run folder, drawn without matplotlib's global state."""

import io
import math
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from zoo.cli.run_folder import RunFolder
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

COLUMNS = 16


@torch.no_grad()
def draw_pictures(model: "GenerativeModel", dataset: "Dataset", run: "RunFolder") -> list[str]:
    """Draws every picture that the model has, into the run folder; returns their names."""
    from inference.checkpoint import write_atomically

    images = len(model.event_shape) > 1
    pictures: dict[str, Figure] = {"samples.png": _samples(model, dataset)}
    if images and hasattr(model, "reconstruct"):
        pictures["reconstructions.png"] = _reconstructions(model, dataset.test.x)
    if images and hasattr(model, "decode"):
        if getattr(model, "num_classes", None):
            pictures["labels.png"] = _by_label(model)
        elif model.latent_dim == 2:
            pictures["manifold.png"] = _manifold(model)
        else:
            pictures["traversals.png"] = _traversals(model, dataset.test.x)
    history = run.history() if (run.path / "history.csv").exists() else []
    if history:
        pictures["learning_curve.png"] = learning_curve(history)
    for name, figure in pictures.items():
        write_atomically(run.path / name, to_png(figure))
    return list(pictures)


def to_png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def item_grid(items: Tensor, *, columns: int = COLUMNS, title: str = "", rows: list[str] | None = None) -> Figure:
    """Items as a grid: images as tiles, vectors as histograms of their entries.

    Args:
        items: Shape ``(num, *event_shape)``.
        columns: Tiles in a row.
        title: What stands above.
        rows: What stands left of each row.
    """
    if items.dim() == 2:
        return _histograms({"drawn": items}, title)
    tiles = items.double().cpu()
    tiles = tiles.movedim(1, -1) if tiles.dim() == 4 else tiles
    columns = min(columns, len(tiles))
    num_rows = math.ceil(len(tiles) / columns)
    height, width = tiles.shape[1:3]
    gap = max(1, height // 10)
    canvas = torch.full((num_rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:]), 0.5).double()
    low, high = min(0.0, tiles.min().item()), max(1.0, tiles.max().item())
    for number, tile in enumerate((tiles - low) / (high - low)):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = 1 - tile
    inches = 0.5
    left_inches = 0.1 if rows is None else 0.25 + 0.09 * max(map(len, rows))
    size = (columns * inches + left_inches + 0.1, num_rows * inches * height / width + 0.45)
    figure = Figure(figsize=size)
    axes = figure.add_axes(
        (left_inches / size[0], 0.08 / size[1], columns * inches / size[0], (size[1] - 0.45) / size[1])
    )
    axes.imshow(canvas.squeeze(-1) if canvas.dim() == 3 and canvas.shape[-1] == 1 else canvas, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, loc="left")
    for number, text in enumerate(rows or []):
        axes.text(-0.6 * gap - 1, number * (height + gap) + height / 2, text, ha="right", va="center", fontsize=7)
    return figure


def learning_curve(history: list[dict[str, float]]) -> Figure:
    """Loss in nats per item against the epoch, for training and validation items."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    for name, label in (("train", "training items"), ("valid", "validation items")):
        if name in history[0]:
            axes.plot(epochs, [row[name] for row in history], label=label)
    losses = sorted(row[name] for row in history for name in ("train", "valid") if name in row)
    if len(losses) > 20:
        margin = 0.05 * (losses[int(0.95 * len(losses))] - losses[0])
        axes.set_ylim(losses[0] - margin, losses[int(0.95 * len(losses))] + margin)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, nats per item")
    axes.legend()
    return figure


def _samples(model: "GenerativeModel", dataset: "Dataset") -> Figure:
    items = model.sample(96, seed=0).cpu()
    if len(model.event_shape) == 1:
        drawn = model.sample(len(dataset.test), seed=0).cpu()
        return _histograms({"test items": dataset.test.x, "drawn": drawn}, "each entry: test items and draws")
    real = dataset.test.x[:32]
    return item_grid(
        torch.cat([items, real]),
        title=f"draws from {type(model).__name__}; the last two rows are test items",
        rows=["drawn"] * 6 + ["real"] * 2,
    )


def _reconstructions(model: Any, x: Tensor) -> Figure:
    x = x[:32]
    means = model.reconstruct(x)
    pairs = torch.cat([x[:16], means[:16].cpu(), x[16:], means[16:].cpu()])
    return item_grid(
        pairs, title="test items and the mean of p(x | code)", rows=["real", "reconstructed"] * (len(pairs) // 32)
    )


def _manifold(model: Any, side: int = 20) -> Figure:
    """The plane of codes, at the Gaussian's quantiles, each shown as the mean of p(x | z)."""
    quantiles = torch.special.ndtri(torch.linspace(0.02, 0.98, side, dtype=torch.float64))
    rows, columns = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    codes = torch.stack([columns, rows], dim=-1).reshape(-1, 2).to(model.prior_loc)
    return item_grid(
        model.decode(codes).mean, columns=side, title="mean of p(x | z), z over the quantiles of the prior"
    )


def _traversals(model: Any, x: Tensor, steps: int = 13) -> Figure:
    """One test item; in each row one entry of its code goes from -3 to 3, rows sorted by what that changes."""
    code = model.encode(x[:1]).mean
    values = torch.linspace(-3, 3, steps).to(code)
    codes = code.repeat(model.latent_dim, steps, 1)
    for entry in range(model.latent_dim):
        codes[entry, :, entry] = values
    means = model.decode(codes).mean
    effect = means.flatten(2).diff(dim=1).abs().sum((1, 2))
    order = effect.argsort(descending=True)[:12].tolist()
    return item_grid(
        means[order].flatten(0, 1),
        columns=steps,
        title="one entry of the code from -3 to 3, largest effect first",
        rows=[f"z[{entry}]" for entry in order],
    )


def _by_label(model: Any) -> Figure:
    """Each row a label, each column a code: what the label changes and what it leaves."""
    codes = torch.randn(COLUMNS, model.latent_dim, generator=torch.Generator().manual_seed(0)).to(model.prior_loc)
    labels = torch.arange(model.num_classes, device=codes.device)
    means = model.decode(codes.expand(model.num_classes, *codes.shape), labels[:, None].expand(-1, COLUMNS)).mean
    return item_grid(
        means.flatten(0, 1),
        title="mean of p(x | y, z): a row for each label, a column for each code",
        rows=[str(label) for label in range(model.num_classes)],
    )


def _histograms(groups: dict[str, Tensor], title: str) -> Figure:
    num = next(iter(groups.values())).shape[1]
    columns = min(4, num)
    figure = Figure(figsize=(2 * columns, 1.6 * math.ceil(num / columns) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for entry in range(num):
        axes = figure.add_subplot(math.ceil(num / columns), columns, entry + 1)
        values = torch.cat([items[:, entry] for items in groups.values()]).double()
        edges = torch.linspace(*values.quantile(torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist(), 25)
        for label, items in groups.items():
            axes.hist(items[:, entry].numpy(), bins=edges.numpy(), density=True, alpha=0.5, label=label)
        axes.set_title(f"x[{entry}]", fontsize=7)
        axes.tick_params(labelsize=6)
    axes.legend(fontsize=6)
    return figure
