"""The pictures of a run folder, drawn without matplotlib's global state."""

import inspect
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from zoo.cli.report import INVERSION_TOLERANCE, carried_by_code, counted, has_code, say
from zoo.flows.fixed_point import ConvergenceError

if TYPE_CHECKING:
    from zoo.cli.run_folder import RunFolder
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

COLUMNS = 16
GAP_COLOUR = torch.tensor([0.72, 0.82, 0.92], dtype=torch.float64)
"""Between the tiles: no grey, which would be taken for part of an image."""
HIDDEN_COLOUR = torch.tensor([0.95, 0.6, 0.2], dtype=torch.float64)
"""What a model was not shown: no grey either."""

INVERTED = 100
"""Test items whose inversion is watched."""


@torch.no_grad()
def draw_pictures(model: "GenerativeModel", dataset: "Dataset", run: "RunFolder") -> list[str]:
    """Draws every picture that the model has, into the run folder; returns their names.

    A picture whose items cannot be drawn, for instance by an inverse that does not converge, is left out with
    a line that says so: the training that it would show is not lost for it.
    """
    from inference.checkpoint import write_atomically

    images = len(model.event_shape) > 1
    pictures: dict[str, Callable[[], Figure]] = {}
    if dataset.alphabet is None and dataset.rate is None:
        pictures["samples.png"] = lambda: _samples(model, dataset)
    if images and hasattr(model, "reconstruct"):
        pictures["reconstructions.png"] = lambda: _reconstructions(model, dataset.test.x)
    if images and hasattr(model, "decode") and hasattr(model, "latent_dim"):  # the code is a vector
        if getattr(model, "num_classes", None):
            pictures["labels.png"] = lambda: _by_label(model)
        elif model.latent_dim == 2:
            pictures["manifold.png"] = lambda: _manifold(model)
        else:
            pictures["traversals.png"] = lambda: _traversals(model, dataset)
    if hasattr(model, "influence"):
        from zoo.cli.pixel_pictures import drawn_by_label, receptive_field

        test = dataset.test
        pictures["receptive_field.png"] = lambda: receptive_field(model, test.x, test.y)
        if model.num_classes is not None:
            pictures["labels.png"] = lambda: drawn_by_label(model)
    if images and hasattr(model, "num_components"):
        pictures["components.png"] = lambda: _components(model)
    pairs = _pairs(dataset.test) if images and hasattr(model, "interpolate") else []
    if pairs:
        pictures["interpolations.png"] = lambda: _interpolations(model, dataset.test.x, pairs)
    if images and hasattr(model, "invert"):
        pictures["inversion.png"] = lambda: _inversion(model, dataset.test.x[:INVERTED])
    if model.density == "unnormalized":
        from zoo.cli.undirected_pictures import energy_trace, filters

        if images:
            pictures["filters.png"] = lambda: filters(model, dataset.test.x)
        pictures["energy-trace.png"] = lambda: energy_trace(model, dataset.test.x)
    history = run.history()
    if history:
        config = run.config()
        contrast, players = _contrast(config), _players(config)
        pictures["learning_curve.png"] = lambda: (
            losses_by_player(history, config, players)
            if players
            else learning_curve(history, contrast=contrast)
        )
    drawn = []
    if dataset.rate is not None and hasattr(model, "generate"):
        from zoo.cli.sound import sound_samples, spectrograms
        from zoo.data.speech import wav_bytes

        (sound,) = sound_samples(model, dataset)
        write_atomically(run.path / "samples.wav", wav_bytes(sound))
        drawn.append("samples.wav")
        real, rate = dataset.test.sequences[0][: len(sound)], dataset.rate
        pictures["spectrograms.png"] = lambda: spectrograms(real, sound, rate, name=type(model).__name__)
    if dataset.alphabet is not None:
        from zoo.cli.text import sample_text

        write_atomically(run.path / "samples.txt", sample_text(model, dataset).encode())
        drawn.append("samples.txt")
    for name, draw in pictures.items():
        try:
            write_atomically(run.path / name, to_png(draw()))
        except (FloatingPointError, ConvergenceError) as error:
            say(f"{name} is not drawn: {error}")
        else:
            drawn.append(name)
    return drawn


def to_png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def to_npy(items: Tensor) -> bytes:
    """Numbers as the content of a NumPy file."""
    buffer = io.BytesIO()
    np.save(buffer, items.cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def item_grid(
    items: Tensor,
    *,
    columns: int = COLUMNS,
    title: str = "",
    rows: list[str] | None = None,
    hidden: Tensor | None = None,
    highest: float | None = None,
) -> Figure:
    """Items as a grid: images as tiles, vectors as histograms of their entries.

    Args:
        items: Shape ``(num, *event_shape)``.
        columns: Tiles in a row.
        title: What stands above.
        rows: What stands left of each row.
        hidden: Which entries of images are not to be seen: bool, of their shape.
        highest: What is full ink; None is the largest of these entries, or 1 where that is larger.
    """
    if items.dim() == 2:
        return _histograms({"drawn": items}, title)
    tiles = items.double().cpu()
    low, high = min(0.0, tiles.min().item()), max(1.0, tiles.max().item()) if highest is None else highest
    tiles = (tiles - low) / (high - low)
    if tiles.dim() == 4 and tiles.shape[1] == 3:
        tiles = tiles.movedim(1, -1)
    else:  # a single channel: ink on paper
        tiles = 1 - tiles.reshape(len(tiles), *tiles.shape[-2:], 1).expand(-1, -1, -1, 3)
    if hidden is not None:
        pixels = hidden.cpu().reshape(len(tiles), -1, *tiles.shape[1:3], 1).any(1)
        tiles = torch.where(pixels, HIDDEN_COLOUR, tiles)
    columns = min(columns, len(tiles))
    num_rows = math.ceil(len(tiles) / columns)
    height, width = tiles.shape[1:3]
    gap = max(1, height // 10)
    canvas = GAP_COLOUR.repeat(num_rows * (height + gap) - gap, columns * (width + gap) - gap, 1)
    for number in range(num_rows * columns):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = tiles[number] if number < len(tiles) else 1.0

    tile_inches, title_inches, margin = 0.5, 0.35, 0.1
    left_inches = margin if rows is None else 0.25 + 0.09 * max(map(len, rows))
    grid_width, grid_height = columns * tile_inches, num_rows * tile_inches * height / width
    size = (left_inches + max(grid_width, 0.075 * len(title)) + margin, grid_height + title_inches + margin)
    figure = Figure(figsize=size)
    axes = figure.add_axes(
        (left_inches / size[0], margin / size[1], grid_width / size[0], grid_height / size[1]),
    )
    axes.imshow(canvas.numpy(), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, loc="left")
    for number, text in enumerate(rows or []):
        axes.text(
            -0.6 * gap - 1, number * (height + gap) + height / 2, text, ha="right", va="center", fontsize=7
        )
    return figure


def highest_level(model: "GenerativeModel") -> float | None:
    """What is full ink among a model's items: K - 1 of K levels; None where they are no levels."""
    return getattr(getattr(model, "support", None), "upper_bound", None)


def completions(
    x: Tensor, observed: Tensor, draws: Tensor, *, name: str, highest: float | None = None
) -> Figure:
    """A row for each image: with its hidden part in orange, its completions, the original.

    Args:
        x: The images, shape ``(items, *event_shape)``.
        observed: Which entries are not hidden, of the same shape.
        draws: Shape ``(num, items, *event_shape)``.
        name: Of the model.
        highest: What is full ink, as in `item_grid`.
    """
    tiles = torch.cat([x[None], draws.to(x.device), x[None]]).transpose(0, 1)
    hidden = torch.zeros(tiles.shape, dtype=torch.bool)
    hidden[:, 0] = ~observed
    return item_grid(
        tiles.flatten(0, 1),
        columns=tiles.shape[1],
        title=f"left: hidden part in orange; then completions by {name}; right: the original",
        rows=[str(item) for item in range(len(x))],
        hidden=hidden.flatten(0, 1),
        highest=highest,
    )


def learning_curve(history: list[dict[str, float]], *, contrast: str | None = None) -> Figure:
    """Loss in nats per item against the epoch, for training and validation items.

    Args:
        history: A row for each epoch.
        contrast: What the loss of the training is, where it is no likelihood: the title of a panel of its
            own, below that of the validation.
    """
    labels = {"train": "training items", "valid": "validation items"}
    names = [name for name in labels if name in history[0]]
    panels = [names]
    if contrast is not None:
        panels = [panel for panel in (["valid"], ["train"]) if panel[0] in names]
    figure = Figure(figsize=(5, 3.2 + 1.8 * (len(panels) - 1)), layout="constrained")
    ratios = [5, 3][: len(panels)]
    rows = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    epochs = [row["epoch"] for row in history]
    for axes, panel in zip(rows, panels, strict=True):
        for name in panel:
            marker = "o" if len(history) == 1 else None
            colour = f"C{list(labels).index(name)}"
            axes.plot(epochs, [row[name] for row in history], label=labels[name], marker=marker, color=colour)
        if contrast is not None and panel == ["train"]:
            axes.axhline(0, color="black", linewidth=0.6)
            axes.set_title(contrast, fontsize=9, loc="left")
            axes.set_ylabel("nats")
        else:
            losses = sorted(row[name] for row in history for name in panel)
            if len(losses) > 20:
                margin = 0.05 * (losses[int(0.95 * len(losses))] - losses[0])
                axes.set_ylim(losses[0] - margin, losses[int(0.95 * len(losses))] + margin)
            axes.set_ylabel("loss, nats per item")
        axes.legend()
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rows[-1].set_xlabel("epoch")
    return figure


def losses_by_player(
    history: list[dict[str, float]], config: dict[str, Any], players: tuple[str, ...]
) -> Figure:
    """What validation shows, the loss of each player, and shares, against the epoch: a panel for each unit.

    Args:
        history: A row for each epoch; ``train`` is the last player's loss.
        config: What was trained, and how.
        players: Those that moved in turn, as the objective names them.
    """
    implicit = config["objective"] == "adversarial"
    heights = config["objective_arguments"].get("loss") == "wasserstein"
    labels = {name: name for name in players[:-1]} | {"train": players[-1]}
    shares = {"accuracy": "told apart", "distinct": "distinct draws"}
    panels = (
        ({"valid": "validation items"}, "MMD², no unit" if implicit else "loss, nats per item"),
        (labels, "loss, units of an item" if heights else "loss, nats"),
        (shares, "share"),
    )
    drawn = [
        ({name: label for name, label in lines.items() if name in history[0]}, unit) for lines, unit in panels
    ]
    drawn = [(lines, unit) for lines, unit in drawn if lines]
    figure = Figure(figsize=(5, 1 + 2 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0]
    epochs = [row["epoch"] for row in history]
    for axes, (lines, unit) in zip(rows, drawn, strict=True):
        for name, label in lines.items():
            marker = "o" if len(history) == 1 else None
            axes.plot(epochs, [row[name] for row in history], label=label, marker=marker)
        axes.set_ylabel(unit)
        axes.legend()
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rows[-1].set_xlabel("epoch")
    return figure


def _players(config: dict[str, Any]) -> tuple[str, ...]:
    """Who moved in turn; none where all parameters moved together."""
    import inference
    from zoo.cli.recipe import OBJECTIVES

    return getattr(getattr(inference, OBJECTIVES[config["objective"]]), "players", ())


def _contrast(config: dict[str, Any]) -> str | None:
    """What the loss of a training by contrast is; None where it is the figure that validation shows too."""
    if config["objective"] not in ("contrastive-divergence", "persistent-contrastive-divergence"):
        return None
    labels = " and loss of labels" if config["objective_arguments"].get("label_weight") else ""
    return f"contrast of data and chains{labels}, nats (no likelihood)"


def log_prob_histograms(test: Tensor, against: dict[str, Tensor]) -> Figure:
    """Histograms of log p(x): test items against each kind of anomalies, a panel for each, on one axis.

    Args:
        test: Of test items, in nats, shape ``(num,)``.
        against: Of each kind of anomalies, by the title of its panel.
    """
    values = torch.cat([test, *against.values()])
    low, high = np.quantile(values.numpy(), [0.005, 1.0])  # outliers are all on one side
    edges = np.linspace(low, high, 50) if low < high else np.linspace(low - 0.5, high + 0.5, 51)
    figure = Figure(figsize=(6, 0.7 + 1.7 * len(against)), layout="constrained")
    panels = figure.subplots(len(against), sharex=True, squeeze=False)[:, 0]
    for axes, (title, anomalies) in zip(panels, against.items(), strict=True):
        for label, group in (("test items", test), ("anomalies", anomalies)):
            axes.hist(group.numpy(), bins=edges, density=True, alpha=0.5, label=label)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylabel("density")
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("log p(x), nats")
    return figure


def sweeps_of(model: "GenerativeModel", asked: int | None = None) -> int | None:
    """How many Gibbs sweeps a draw takes: as asked, or the model's own number; None where there are none."""
    parameter = inspect.signature(model._sample).parameters.get("sweeps")
    return None if parameter is None else asked or parameter.default


def _samples(model: "GenerativeModel", dataset: "Dataset") -> Figure:
    name, sweeps = type(model).__name__, sweeps_of(model)
    if sweeps is not None:
        name += f" after {counted(sweeps, 'Gibbs sweep')}"
    if len(model.event_shape) == 1:
        drawn = model.sample(len(dataset.test), seed=0)
        return _histograms(
            {"test items": dataset.test.x, "drawn": drawn}, f"each entry: test items, draws from {name}"
        )
    return item_grid(
        torch.cat([model.sample(6 * COLUMNS, seed=0), dataset.test.x[: 2 * COLUMNS]]),
        title=f"draws from {name}; the last two rows are test items",
        rows=["drawn"] * 6 + ["real"] * 2,
        highest=highest_level(model),
    )


def _reconstructions(model: Any, x: Tensor) -> Figure:
    x = x[: 2 * COLUMNS] if len(x) >= 2 * COLUMNS else x[:COLUMNS]
    pairs = torch.cat([half for items in x.split(COLUMNS) for half in (items, model.reconstruct(items))])
    return item_grid(
        pairs,
        columns=min(COLUMNS, len(x)),
        title="test items and the mean of p(x | code)",
        rows=["real", "reconstructed"] * (len(pairs) // (2 * min(COLUMNS, len(x)))),
        highest=highest_level(model),
    )


def _manifold(model: Any, side: int = 20) -> Figure:
    """The plane of codes, at the Gaussian's quantiles, each shown as the mean of p(x | z)."""
    quantiles = torch.special.ndtri(torch.linspace(0.02, 0.98, side, dtype=torch.float64))
    rows, columns = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    codes = torch.stack([columns, rows], dim=-1).reshape(-1, 2).to(model.prior_loc)
    title = "mean of p(x | z) over the quantiles of the prior: z[0] to the right, z[1] upwards"
    return item_grid(model.decode(codes).mean, columns=side, title=title)


def _traversals(model: Any, dataset: "Dataset", steps: int = 13) -> Figure:
    """One test item; in each row one entry of its code goes from -3 to 3; the rows by what that changes."""
    code = model.encode(dataset.test.x[:1]).mean
    values = torch.linspace(-3, 3, steps).to(code)
    codes = code.repeat(model.latent_dim, steps, 1)
    for entry in range(model.latent_dim):
        codes[entry, :, entry] = values
    means = model.decode(codes).mean
    effect = means.flatten(2).diff(dim=1).abs().sum((1, 2))
    order = effect.argsort(descending=True)[:12].tolist()
    title = "a test item, one entry of its code from -3 to 3, largest effect first"
    rows = [f"z[{entry}]" for entry in order]
    if dataset.num_classes is not None and has_code(model):
        carried = carried_by_code(model, dataset.train)
        title += "; what explains its variance"
        rows = [
            f"z[{entry}]: label {carried['label'][entry]:.0%}, ink {carried['ink'][entry]:.0%}"
            for entry in order
        ]
    return item_grid(means[order].flatten(0, 1), columns=steps, title=title, rows=rows)


def _by_label(model: Any) -> Figure:
    """Each row a label, each column a code: what the label changes and what it leaves."""
    codes = torch.randn(COLUMNS, model.latent_dim, generator=torch.Generator().manual_seed(0)).to(
        model.prior_loc
    )
    labels = torch.arange(model.num_classes, device=codes.device)
    means = model.decode(
        codes.expand(model.num_classes, *codes.shape), labels[:, None].expand(-1, COLUMNS)
    ).mean
    return item_grid(
        means.flatten(0, 1),
        title="mean of p(x | y, z): a row for each label, a column for each code",
        rows=[str(label) for label in range(model.num_classes)],
    )


def _components(model: Any) -> Figure:
    """The mean item of each component of a mixture."""
    theta = model.theta()
    order = theta["weights"].argsort(descending=True)
    means = model.component(theta).mean[order]
    heaviest, lightest = theta["weights"][order[[0, -1]]].tolist()
    return item_grid(
        means,
        title=f"means of the {len(order)} components by weight, from {heaviest:.1%} down to {lightest:.2%}",
    )


def _pairs(split: Any, most: int = 8) -> list[tuple[int, int]]:
    """Pairs of the first items of a split, with different labels where there are labels; no item twice."""
    left = list(range(min(len(split.x), 20 * most)))
    pairs: list[tuple[int, int]] = []
    while left and len(pairs) < most:
        start = left.pop(0)
        for end in left:
            if split.y is None or split.y[end] != split.y[start]:
                left.remove(end)
                pairs.append((start, end))
                break
    return pairs


def _interpolations(model: Any, x: Tensor, pairs: list[tuple[int, int]], steps: int = 11) -> Figure:
    """A row for each pair of test items: these themselves at the ends, and what lies between their codes."""
    start, end = (x[list(side)] for side in zip(*pairs, strict=True))
    way = model.interpolate(start, end, steps)
    rows = torch.cat([start[:, None], way[:, 1:-1].to(x.device), end[:, None]], 1)
    return item_grid(
        rows.flatten(0, 1),
        columns=steps,
        title=f"from one test item to another through the codes of {type(model).__name__}; ends are real",
        highest=highest_level(model),
    )


def _inversion(model: Any, x: Tensor) -> Figure:
    """How far the inverse of each layer is off after so many iterations, for the codes of test items."""
    codes = model.encode(x)
    eps, tolerance = torch.finfo(codes.dtype).eps, INVERSION_TOLERANCE
    found = model.invert(codes, tolerance=tolerance)
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, report in enumerate(found):
        history = report.history.double().cpu().clamp(min=eps / 4)  # 0 has no place on the axis
        for name, errors, colour in (
            ("largest", history.amax(1), "tab:red"),
            ("median", history.median(1).values, "tab:blue"),
        ):
            label = f"{name} of {len(x):,} test items, a line for each layer" if number == 0 else None
            axes.semilogy(range(len(errors)), errors, color=colour, linewidth=0.8, alpha=0.8, label=label)
    axes.axhline(tolerance, color="black", linewidth=0.8, linestyle="--", label=f"tolerance, {tolerance:.1e}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("iterations")
    axes.set_ylabel("inversion error, max |f(x) - y|")
    axes.set_title(
        f"inverse of {counted(len(found), 'layer')} of {type(model).__name__}", fontsize=9, loc="left"
    )
    axes.legend(fontsize=7)
    return figure


def _histograms(groups: dict[str, Tensor], title: str) -> Figure:
    num = next(iter(groups.values())).shape[1]
    columns = min(4, num)
    figure = Figure(figsize=(2 * columns, 1.6 * math.ceil(num / columns) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for entry in range(num):
        axes = figure.add_subplot(math.ceil(num / columns), columns, entry + 1)
        values = torch.cat([items[:, entry] for items in groups.values()]).double()
        low, high = np.quantile(values.numpy(), [0.005, 0.995])
        edges = np.linspace(low, high, 25) if low < high else np.linspace(low - 0.5, high + 0.5, 26)
        for label, items in groups.items():
            axes.hist(items[:, entry].numpy(), bins=edges, density=True, alpha=0.5, label=label)
        axes.set_title(f"x[{entry}]", fontsize=7)
        axes.tick_params(labelsize=6)
    axes.legend(fontsize=6)
    return figure
