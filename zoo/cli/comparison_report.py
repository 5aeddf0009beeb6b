"""A comparison as people read it: the table in the terminal, and ``report.html``, one file, no script."""

import base64
import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault
from zoo.cli.report import JUDGED_BY_DRAWS, counted, drawn, plain_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from zoo.data import Dataset

SIGNS = {"exact": "", "lower bound": "≤ ", "estimate": "~ "}
"""Before a figure in nats, by its kind."""

MARKERS = {"exact": ("o", "exact"), "lower bound": ("<", "at most"), "estimate": ("D", "estimate")}
"""Of the chart, by the kind of a figure: an upper bound on the nats points to where they may be."""

REAL = "real items"
"""The row of items that were held out too: what good draws come near."""

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


def figure_in_words(row: dict[str, Any]) -> str:
    """The figure of a row by itself: nats, or where there are none the Fréchet distance of its draws."""
    if has_likelihood(row):
        return f"{figure(row['test'])} nats"
    samples = row["samples"]
    return f"Fréchet {_with_error(samples, 'frechet')}" if "frechet" in samples else "no likelihood"


def has_likelihood(row: dict[str, Any]) -> bool:
    """Whether a row that did not fail has a figure in nats."""
    return row["test"]["kind"] != "none"


def badness_of_draws(samples: dict[str, Any]) -> float:
    """What draws are sorted by: the Fréchet distance, or where there is none how well they are told apart."""
    return samples.get("frechet", samples["told_apart"])


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


def columns_of_draws(
    rows: list[dict[str, Any]], *, brief: bool = False
) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The columns of the table on draws, by their titles, each with what it says of a row of it.

    Args:
        rows: As `rows_of_draws` gives them.
        brief: Whether they are to be what a narrow terminal has room for.
    """
    columns: dict[str, Callable[[dict[str, Any]], str]] = {"draws": lambda row: row["name"]}
    if all("frechet" in row["samples"] for row in rows):
        columns["Fréchet"] = lambda row: _with_error(row["samples"], "frechet")
    if brief:
        columns["MMD²"] = lambda row: f"{row['samples']['mmd']:.4f}"
    else:
        columns["MMD² · 1000"] = lambda row: _with_error(row["samples"], "mmd", ".1f", 1000)
    columns["told apart"] = lambda row: f"{row['samples']['told_apart']:.0%}"
    columns["precision"] = lambda row: f"{row['samples']['precision']:.0%}"
    columns["recall"] = lambda row: f"{row['samples']['recall']:.0%}"
    return columns


def rows_of_draws(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table on draws: real items, and those whose draws were looked at, the best first."""
    rows = [row for row in comparison["rows"] if "samples" in row]
    if not rows:
        return []
    rows.sort(key=lambda row: badness_of_draws(row["samples"]))
    return [{"name": REAL, "samples": rows[0]["samples"]["real"]}, *rows]


def print_comparison(comparison: dict[str, Any]) -> None:
    """Prints the tables, the best row of each first: likelihoods, those that failed, draws, probes."""
    from rich.console import Console

    console = Console(highlight=False)
    if any("failed" in row or has_likelihood(row) for row in comparison["rows"]):
        console.print(_likelihood_table(comparison))
    rows = rows_of_draws(comparison)
    if rows:
        columns = columns_of_draws(rows, brief=True)
        table = plain_table(*columns)
        for place, column in enumerate(table.columns):
            column.justify = "right" if place else "left"
            column.no_wrap = column.header in ("draws", "Fréchet")
        for row in rows:
            table.add_row(*(of(row) for of in columns.values()))
        console.print(table)
        console.print("draws against test items: lower is better; of precision and recall, higher")
    if "probes" in comparison:
        table = plain_table("features", "label by a linear probe")
        table.columns[1].justify = "right"
        for probe in comparison["probes"]:
            table.add_row(probe["name"], _accuracy(probe))
        console.print(table)


def _likelihood_table(comparison: dict[str, Any]) -> "Table":
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
        elif has_likelihood(row):
            table.add_row(*(of(row) for of in columns.values()))
    return table


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
    parts += [_table_of_draws(comparison), _table_of_probes(comparison)]
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


def _with_error(samples: dict[str, Any], name: str, form: str = ".2f", times: float = 1) -> str:
    return f"{samples[name] * times:{form}} ± {samples[f'{name}_error'] * times:{form}}"


def _accuracy(probe: dict[str, Any]) -> str:
    return f"{probe['accuracy']:.1%} ± {probe['standard_error']:.1%}"


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
    rows = [row for row in comparison["rows"] if "failed" in row or has_likelihood(row)]
    if not rows:
        return ""
    columns = columns_of(comparison)
    *titles, last = columns
    head = "".join(f"<th>{_text(title)}</th>" for title in titles) + f'<th class="words">{last}</th>'
    body = []
    for number, row in enumerate(rows):
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


def _table_of_draws(comparison: dict[str, Any]) -> str:
    rows = rows_of_draws(comparison)
    if not rows:
        return ""
    columns = columns_of_draws(rows)
    columns["items"] = lambda row: f"{row['samples']['draws']:,}"
    said = (
        f"{counted(comparison['test_items'], 'test item')} against draws of each model, and in the first row "
        "against validation items, which good draws come near. No figure says all. Fréchet distance of the "
        "features of a classifier trained on the real training items: the draws' mean and covariance; lower "
        "is better, and real items are not at 0, being few. MMD²: all that a kernel of the entries sees, "
        "times 1,000; 0 where draws and items have one law. Told apart: share of draws and items that a "
        "classifier, on held-out ones, tells from each other; 50 % is guessing. Precision: share of draws "
        "that are like some test item. Recall: share of test items that some draw is like, low where modes "
        "were left out. ± is a standard error. A model that is not among the likelihoods has none."
    )
    return _plain_table("Draws", columns, rows, said, best=1)


def _table_of_probes(comparison: dict[str, Any]) -> str:
    if "probes" not in comparison:
        return ""
    columns = {"features": lambda probe: probe["name"], "test accuracy": _accuracy}
    said = (
        "Test accuracy of a logistic regression from the features of each model to the label, and from the "
        "raw entries. ± is the standard error over test items. PPCA is fitted for its features alone."
    )
    return _plain_table("Representations", columns, comparison["probes"], said, best=0)


def _plain_table(
    title: str,
    columns: dict[str, Callable[[dict[str, Any]], str]],
    rows: list[dict[str, Any]],
    said: str,
    *,
    best: int,
) -> str:
    """A section of a table whose cells are all short, and what is to be said of it."""
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = [
        f'<tr class="best">{cells}</tr>' if number == best else f"<tr>{cells}</tr>"
        for number, row in enumerate(rows)
        for cells in ["".join(f"<td>{_text(of(row))}</td>" for of in columns.values())]
    ]
    return (
        f'<h2>{title}</h2>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + f'\n</tbody>\n</table></div>\n<p class="note">{said}</p>'
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
    charts = []
    likely = [row for row in rows if has_likelihood(row)]
    if likely:
        charts.append(
            (
                ranking(likely),
                "Test nats of " + "; ".join(f"{row['name']} {figure(row['test'])}" for row in likely),
                "Nats per test item, ± one standard error",
            )
        )
    drawn = [row for row in rows_of_draws(comparison) if "frechet" in row["samples"]]
    if drawn:
        charts.append(
            (
                ranking_of_draws(drawn),
                "Fréchet distance of "
                + "; ".join(f"{row['name']} {_with_error(row['samples'], 'frechet')}" for row in drawn),
                "Fréchet distance of draws to test items, ± one standard error; the line is at real items",
            )
        )
    # Of a training that is after draws, the loss is in other units.
    in_nats = [row for row in rows if row["objective"] not in JUDGED_BY_DRAWS]
    histories = {row["name"]: RunFolder(out / row["name"]).history() for row in in_nats}
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
        caption = f"{name}, {figure(row['test']) if has_likelihood(row) else figure_in_words(row)}{after}"
        shown.append(_image(picture, f"{DRAWN} draws from {name}", caption))
    if not shown:
        return ""
    test = item_grid(real, columns=DRAWN_COLUMNS, highest=highest, title="test items")
    shown.insert(0, _image(to_png(test), f"{len(real)} test items", "the data: test items"))
    return _section("Pictures of draws", "grids" if real.dim() > 2 else "curves", shown)


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


def ranking_of_draws(rows: list[dict[str, Any]]) -> "Figure":
    """Fréchet distances with their standard errors; the first row is that of real items."""
    drawing, axes = _figure(1.0 + 0.27 * len(rows))
    places = range(len(rows))
    distances, errors = ([row["samples"][name] for row in rows] for name in ("frechet", "frechet_error"))
    axes.errorbar(distances, places, xerr=errors, fmt="o", capsize=3, markersize=6)
    axes.axvline(distances[0], color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if max(distances) > 20 * max(min(distances), 1e-9):  # one that collapsed would press the others together
        axes.set_xscale("log")
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel("Fréchet distance")
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
