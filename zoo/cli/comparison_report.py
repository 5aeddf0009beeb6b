"""A comparison as people read it: the table in the terminal, and ``report.html``, one file, no script."""

import base64
import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault
from zoo.cli.report import counted, drawn, plain_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo.data import Dataset

SIGNS = {"exact": "", "lower bound": "≤ ", "estimate": "~ "}
"""Before a figure in nats, by its kind."""

MARKERS = {"exact": ("o", "exact"), "lower bound": ("<", "at most"), "estimate": ("D", "estimate")}
"""Of the chart, by the kind of a figure: an upper bound on the nats points to where they may be."""

ROUNDING = 1e-8
"""Variance of a gradient, in nats², that is rounding and nothing else."""

DRAWN = 64
"""Items drawn of each model."""

DRAWN_COLUMNS = 8

WIDTH = 5.0
"""Of a chart, in inches: at the width of a phone its letters can still be read."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59636e; --paper: #fff; --line: #d5dae0;
  --band: #f5f7f9; --fault: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa4af; --paper: #14181d;
  --line: #353c45; --band: #1c2229; --fault: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, dd, li { overflow-wrap: anywhere; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt, figcaption, .note { color: var(--soft); }
dd { margin: 0; }
code { font: .9em ui-monospace, monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child, .words { text-align: left; }
td.words { white-space: normal; min-width: 14rem; }
tr.best td { background: var(--band); font-weight: 600; }
.fault { color: var(--fault); }
figure { margin: 0; }
figcaption { font-size: .85rem; line-height: 1.35; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.grids { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(45%, 13rem), 1fr)); }
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.grids img { width: 100%; }
"""


def figure(test: dict[str, Any]) -> str:
    """Nats per test item with their standard error, and a sign for what kind of figure that is."""
    return f"{SIGNS[test['kind']]}{test['nats_per_item']:.2f} ± {test['standard_error']:.2f}"


def kind_in_words(row: dict[str, Any]) -> str:
    """What kind of figure a row's is, and by what draws."""
    test = row["test"]
    if "draws" in row:
        if test["particles"] == 1:
            return "at one value of θ"
        return f"estimate, {counted(test['particles'], 'draw')} of θ"
    words = ["bound" if test["kind"] == "lower bound" else test["kind"]]
    if test.get("particles") or test.get("bound"):
        words.append(drawn(test))
    if "log_z" in test and "log Z" not in words[-1]:
        words.append("log Z by annealing")
    return ", ".join(words)


def columns_of(
    comparison: dict[str, Any], *, brief: bool = False
) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The columns of the table, by their titles, each with what it says of a row that did not fail.

    Args:
        comparison: As in ``comparison.json``.
        brief: Whether they are to be what a narrow terminal has room for.
    """
    columns: dict[str, Callable[[dict[str, Any]], str]] = {}
    methods = comparison["compared"] == "methods"
    columns["method" if methods else "model"] = lambda row: row["name"]
    if methods:
        columns["bound"] = lambda row: _number(row.get("valid"), ".2f")
    columns["test nats"] = lambda row: figure(row["test"])
    if not methods:
        columns["bits/dim"] = lambda row: f"{row['test']['bits_per_dim']:.3f}"
        columns["parameters"] = lambda row: f"{row['parameters']:,}"
    columns["s" if brief else "seconds"] = lambda row: _number(row.get("seconds"), ".1f")
    if methods:
        columns["variance"] = lambda row: _variance(row.get("gradient_variance"))
        if any("draws" in row for row in comparison["rows"]):
            columns["ESS/s"] = lambda row: _number(row.get("draws", {}).get("ess_per_second"), ",.1f")
            columns["R-hat"] = lambda row: _number(row.get("draws", {}).get("r_hat"), ".3f")
    if not (methods and brief):
        columns["kind"] = lambda row: kind_in_words(row).split(",")[0] if brief else kind_in_words(row)
    return columns


def print_comparison(comparison: dict[str, Any]) -> None:
    """Prints the table, the best row first, those that failed last."""
    from rich.console import Console

    columns = columns_of(comparison, brief=True)
    table = plain_table(*columns)
    left = [0] if comparison["compared"] == "methods" else [0, len(columns) - 1]
    for place, column in enumerate(table.columns):
        column.justify = "left" if place in left else "right"
        column.no_wrap = column.header in ("method", "model", "test nats", "parameters")
    for row in comparison["rows"]:
        if "failed" in row:
            cells = ("failed" if title == "test nats" else "" for title in list(columns)[1:])
            table.add_row(row["name"], *cells)
        else:
            table.add_row(*(of(row) for of in columns.values()))
    Console(highlight=False).print(table)


def write_report(out: Path, comparison: dict[str, Any], dataset: "Dataset") -> None:
    """Writes ``report.html``: the table, charts, draws of every model and learning curves, in one file.

    Args:
        out: Folder of the comparison, with a run folder for each row.
        comparison: As in ``comparison.json``.
        dataset: What was compared on.
    """
    from inference.checkpoint import write_atomically

    finished = [row for row in comparison["rows"] if "failed" not in row]
    methods = comparison["compared"] == "methods"
    what = f"{comparison['model']} on {_named(comparison)}" if methods else _named(comparison)
    title = f"Inference methods for {what}" if methods else f"Models of {what}"
    parts = [f"<h1>{_text(title)}</h1>", _origin(comparison), _table(comparison)]
    if finished:
        parts.append(_charts(out, comparison, finished))
        parts.append(_grids(out, finished, dataset))
        parts.append(_single_curves(out, finished))
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
    write_atomically(out / "report.html", page.encode())


def _named(comparison: dict[str, Any]) -> str:
    fold = "" if comparison["fold"] is None else f", fold {comparison['fold']}"
    return f"{comparison['data']}{fold}"


def _text(text: str) -> str:
    return html.escape(text)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def _variance(value: float | None) -> str:
    return f"< {ROUNDING:g}" if value is not None and value < ROUNDING else _number(value, ".2g")


def _origin(comparison: dict[str, Any]) -> str:
    """What the figures come from."""
    entries = {
        "command": f"<code>{_text(comparison['command'])}</code>",
        "seed": str(comparison["seed"]),
        "machine": _text("; ".join(comparison["machine"])) or "–",
        "test items": f"{comparison['test_items']:,}",
    }
    listed = "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in entries.items())
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in comparison["notes"])
    return f"<dl>\n{listed}\n</dl>{notes}"


def _table(comparison: dict[str, Any]) -> str:
    columns = columns_of(comparison)
    *titles, last = columns
    head = "".join(f"<th>{_text(title)}</th>" for title in titles) + f'<th class="words">{last}</th>'
    body = []
    for number, row in enumerate(comparison["rows"]):
        name = f"<td>{_text(row['name'])}</td>"
        if "failed" in row:
            message = (
                f'<td class="words fault" colspan="{len(columns) - 1}">failed: {_text(row["failed"])}</td>'
            )
            body.append(f"<tr>{name}{message}</tr>")
            continue
        cells = [of(row) for of in columns.values()]
        inner = "".join(f"<td>{_text(cell)}</td>" for cell in cells[1:-1])
        words = f'<td class="words">{_text(cells[-1])}</td>'
        best = ' class="best"' if number == 0 else ""
        body.append(f"<tr{best}>{name}{inner}{words}</tr>")
    said = (
        "Negative log-likelihood of a test item, in nats: lower is better. ± is its standard error over the "
        "test items. ≤ marks a bound, the truth being at or below it; ~ an estimate."
    )
    if comparison["compared"] == "methods":
        said += (
            " The bound is the loss of validation items, in nats per item, by each method's own "
            "objective, at the weights that were kept. The variance is that of the gradient at the trained "
            "weights, on one batch of training items, over the method's own draws, summed over parameters."
        )
        if any(row.get("draws", {}).get("of") for row in comparison["rows"]):
            said += (
                " The effective sample size (ESS) and R-hat are of the energy, -log p(θ, X): neither a "
                "permutation nor a rotation of θ changes it."
            )
        described = "".join(
            f"<li>{_text(row['name'])}: {_text(row['description'])}</li>"
            for row in comparison["rows"]
            if row.get("description")
        )
    else:
        described = ""
    return (
        f'<h2>Test figures</h2>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + f'\n</tbody>\n</table></div>\n<p class="note">{said}</p>'
        + (f'\n<ul class="note">{described}</ul>' if described else "")
    )


def _image(content: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _section(title: str, kind: str, figures: list[str]) -> str:
    images = "\n".join(figures)
    return f'<h2>{title}</h2>\n<div class="{kind}">\n{images}\n</div>'


def _charts(out: Path, comparison: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    from zoo.cli.pictures import to_png
    from zoo.cli.run_folder import RunFolder

    methods = comparison["compared"] == "methods"
    charts = [
        (
            ranking(rows),
            "Test nats of " + "; ".join(f"{row['name']} {figure(row['test'])}" for row in rows),
            "Nats per test item, ± one standard error",
        )
    ]
    histories = {row["name"]: RunFolder(out / row["name"]).history() for row in rows}
    curves = {name: [e for e in history if "valid" in e] for name, history in histories.items()}
    curves = {name: history for name, history in curves.items() if history}
    if curves:
        seconds = {row["name"]: row["seconds"] for row in rows} if methods else None
        charts.append(
            (
                learning_curves(curves, seconds),
                f"Loss of validation items against the {'seconds' if methods else 'epoch'}, a curve for each "
                f"of {', '.join(curves)}",
                "Loss of validation items, each by its own objective: curves of one kind can be compared",
            )
        )
    variances = {row["name"]: row.get("gradient_variance") or 0.0 for row in rows}
    variances = {name: variance for name, variance in variances.items() if variance >= ROUNDING}
    if variances:
        charts.append(
            (
                variance_bars(variances),
                "Variance of the gradient: "
                + "; ".join(f"{name} {variance:.2g}" for name, variance in variances.items()),
                "Variance of the gradient at the trained weights, on one batch",
            )
        )
    for row in rows:
        energy = _energy(out / row["name"])
        if energy is not None:
            charts.append(
                (
                    energy_traces(energy),
                    f"Log joint density of the draws by {row['name']}, {counted(len(energy), 'chain')}",
                    f"{row['name']}: log p(θ, X) of each draw, a line for each chain",
                )
            )
    return _section("Charts", "charts", [_image(to_png(chart), *texts) for chart, *texts in charts])


def _energy(folder: Path) -> Any:
    """The energy of draws of the parameters, ``(chain, draw)``, where the folder holds some."""
    from zoo.cli.methods import read_draws

    return read_draws(folder).get("stats.energy")


def _grids(out: Path, rows: list[dict[str, Any]], dataset: "Dataset") -> str:
    """Draws of each model, real items first."""
    from zoo.cli.pictures import highest_level, item_grid, sweeps_of, to_png
    from zoo.cli.run_folder import RunFolder

    real = dataset.test.x[:DRAWN]
    shown, highest = [], None
    for row in rows:
        if "draws" in row:  # no single model
            continue
        name = row["name"]
        try:
            model = RunFolder(out / name).load_model()
            sweeps = sweeps_of(model)
            highest = highest_level(model)
            items = model.sample(DRAWN, seed=0)
        except (UsageFault, FloatingPointError, ValueError, RuntimeError) as error:
            shown.append(
                f'<figure><figcaption class="fault">{_text(f"{name}: {error}")}</figcaption></figure>'
            )
            continue
        after = "" if sweeps is None else f", after {counted(sweeps, 'Gibbs sweep')}"
        picture = to_png(item_grid(items, columns=DRAWN_COLUMNS, highest=highest, title=name))
        shown.append(_image(picture, f"{DRAWN} draws from {name}", f"{name}, {figure(row['test'])}{after}"))
    if not shown:
        return ""
    test = item_grid(real, columns=DRAWN_COLUMNS, highest=highest, title="test items")
    shown.insert(0, _image(to_png(test), f"{len(real)} test items", "the data: test items"))
    return _section("Draws", "grids" if real.dim() > 2 else "curves", shown)


def _single_curves(out: Path, rows: list[dict[str, Any]]) -> str:
    """The learning curves that the runs drew, each by itself."""
    shown = []
    for row in rows:
        path = out / row["name"] / "learning_curve.png"
        if path.exists():
            epochs = counted(row["epochs"], "epoch")
            alt = f"Learning curve of {row['name']}, {epochs}"
            shown.append(_image(path.read_bytes(), alt, f"{row['name']}, {epochs}"))
    if not shown:
        return ""
    return _section("Learning curves, one by one", "curves", shown)


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(WIDTH, height), layout="constrained")
    return drawing, drawing.subplots()


def ranking(rows: list[dict[str, Any]]) -> "Figure":
    """Test nats with their standard errors, best on top, a marker for each kind of figure."""
    drawing, axes = _figure(1.0 + 0.27 * len(rows))
    for kind, (marker, words) in MARKERS.items():
        places = [place for place, row in enumerate(rows) if row["test"]["kind"] == kind]
        if not places:
            continue
        axes.errorbar(
            [rows[place]["test"]["nats_per_item"] for place in places],
            places,
            xerr=[rows[place]["test"]["standard_error"] for place in places],
            fmt=marker,
            capsize=3,
            markersize=6,
            label=words,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel("nats per test item")
    axes.legend(fontsize=9)
    return drawing


def learning_curves(
    histories: dict[str, list[dict[str, float]]], seconds: dict[str, float] | None = None
) -> "Figure":
    """Loss of validation items against the epoch, or against seconds, a curve for each row.

    Args:
        histories: The rows of ``history.csv``, by the name of the row.
        seconds: How long each took; None shows epochs.
    """
    from matplotlib.ticker import MaxNLocator

    lines = math.ceil(len(histories) / 3)
    drawing, axes = _figure(3.2 + 0.2 * lines)
    ends, losses = [], []
    for number, (name, history) in enumerate(histories.items()):
        per_epoch = 1.0 if seconds is None else seconds[name] / len(history)
        loss = [row["valid"] for row in history]
        ends.append(loss[-1])
        losses += loss
        axes.plot(
            [row["epoch"] * per_epoch for row in history],
            loss,
            label=name,
            color=f"C{number % 10}",
            linestyle=("-", "--", ":")[number // 10 % 3],
            linewidth=1.3,
            marker="o" if len(history) == 1 else None,
        )
    low, high = min(losses), max(ends)
    # What comes before the first epochs' descent would press everything else together.
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))
    if seconds is None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch" if seconds is None else "seconds of training")
    axes.set_ylabel("loss, nats per item")
    axes.grid(linewidth=0.4)
    drawing.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return drawing


def variance_bars(variances: dict[str, float]) -> "Figure":
    """The variance of each method's gradient, on a logarithmic axis."""
    drawing, axes = _figure(1.0 + 0.3 * len(variances))
    axes.barh(list(variances), list(variances.values()), height=0.6)
    axes.set_ylim(len(variances) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("variance of the gradient, nats²")
    axes.grid(axis="x", linewidth=0.4)
    return drawing


def energy_traces(energy: Any) -> "Figure":
    """Log joint density, minus the energy ``(chain, draw)``, of each draw."""
    drawing, axes = _figure(2.6)
    for number, chain in enumerate(-energy.double()):
        axes.plot(range(1, len(chain) + 1), chain.tolist(), linewidth=0.7, label=f"chain {number + 1}")
    axes.set_xlabel("draw")
    axes.set_ylabel("log p(θ, X), nats")
    axes.legend(fontsize=8, ncols=2)
    return drawing
