"""``zoo compare``: models on one data set, or inference methods on one model, in one table and one report."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.errors import EnvironmentFault, UsageFault, choose
from zoo.cli.methods import METHODS
from zoo.data import DESCRIPTIONS
from zoo.registry import MODELS

if TYPE_CHECKING:
    from zoo.data import Dataset


@dataclass(frozen=True)
class Variant:
    """A row that is no model of its own: a model under another objective than its recipe's.

    Attributes:
        model: Its name.
        objective: One of `zoo.cli.recipe.OBJECTIVES`.
        objective_arguments: Of the objective.
        fits: For each data set, what of the recipe's ``fit`` is another; nothing where there is no entry.
    """

    model: str
    objective: str
    objective_arguments: dict[str, Any]
    fits: dict[str, dict[str, Any]]


VARIANTS = {
    # Fewer and larger steps than the VAE's: each costs ten particles, and more of them learn by heart.
    "iwae": Variant(
        "vae",
        "importance-weighted",
        {"num_particles": 10},
        {"digits": {"epochs": 200, "batch_size": 100, "lr": 4e-3}},
    ),
}
"""Rows beside the models, by their name on the command line."""

CHECKPOINT_SECONDS = 10.0
"""Least time between two checkpoints of a row: what a Ctrl-C may cost."""

LONGEST_FIRST = ("unnormalized", "none", "bound", "exact")
"""Densities by the time that a row of theirs takes, so that no core idles at the end."""


@dataclass(frozen=True)
class Row:
    """One training of the comparison, as plain data, so that another process can do it.

    Attributes:
        name: Of the row, and of its run folder.
        config: What `zoo.cli.recipe.resolve` gave.
        out: The run folder.
        log: Where what the training says goes.
        method: The inference method that is compared, one of `METHODS`; None where models are.
    """

    name: str
    config: dict[str, Any]
    out: Path
    log: Path
    method: str | None = None


def compare(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Some of {', '.join([*MODELS, *VARIANTS])}; left out, all that have a recipe for the data.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help=f"One of {', '.join(DESCRIPTIONS)}.")] = "digits",
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Compare these under one MODEL: all that suit it, or some of {', '.join(METHODS)}, with "
            "commas between."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for runs, table and report; left out, runs/compare-DATA or runs/compare-MODEL-DATA."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Rows at a time; left out, as many as there are cores.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times through the training items, instead of each recipe's.")
    ] = None,
    evaluation_particles: Annotated[
        int | None, typer.Option(min=1, help="Draws per test item in a bound; left out, each recipe's.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=4, help="Of the parameters, in each chain, by methods that draw them.")
    ] = 200,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Of data that have folds; left out, the first one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every row.")] = 0,
    result: Annotated[Path | None, typer.Option(help="Also write comparison.json to this file.")] = None,
) -> int:
    """Compare models on one data set, or methods on one model.

    Each row is a run folder, as zoo train makes it. The folder then also holds comparison.json, and
    report.html, which needs nothing but itself. The same command goes on where an interrupted one stopped.
    """
    names = list(dict.fromkeys(models or []))
    for name in names:
        choose("model", name, [*MODELS, *VARIANTS])
    choose("data set", data, DESCRIPTIONS)
    asked = None if methods is None else list(dict.fromkeys(name.strip() for name in methods.split(",")))
    if asked is not None:
        if len(names) != 1 or names[0] in VARIANTS:
            came = ", ".join(names) or "none"
            raise UsageFault(f"--methods expects exactly one model, of {', '.join(MODELS)}; got {came}")
        if asked != ["all"]:
            for name in asked:
                choose("method", name, ["all", *METHODS])
            if "all" in asked:
                raise UsageFault(f"--methods expects all, or names of methods, got {methods}")

    from zoo.cli.run_folder import RunFolder
    from zoo.data import load

    dataset = load(data, fold=fold)
    out = out or Path("runs") / "-".join(
        ["compare", *(names if asked is not None else []), data, *([] if fold is None else [f"fold-{fold}"])]
    )
    if result is not None and not result.parent.is_dir():
        raise UsageFault(f"--result expects a file in a folder that is there, got {result}")
    fit = {} if epochs is None else {"epochs": epochs}
    settings = {"fit": fit, "particles": evaluation_particles, "seed": seed}
    if asked is None:
        rows, notes = _model_rows(names, dataset, out, settings), []
    else:
        rows, notes = _method_rows(names[0], asked, dataset, out, settings, draws)
    if dataset.num_folds > 1:
        notes.insert(
            0, f"fold {dataset.fold} of the {dataset.num_folds} of {data}; --fold k takes another one"
        )
    RunFolder(out).check_free(allowed=("comparison.json", "logs", "*/config.json"))
    for row in rows:
        _refuse_other_settings(row)
    return _run(rows, notes, dataset, out, jobs, seed, result, context.obj)


def _model_rows(names: list[str], dataset: "Dataset", out: Path, settings: dict[str, Any]) -> list[Row]:
    """A row for each model, those that take long first."""
    from zoo.cli.recipe import resolve
    from zoo.registry import model_class

    def class_of(name: str) -> Any:
        return model_class(VARIANTS[name].model if name in VARIANTS else name)

    if not names:
        names = [name for name in [*MODELS, *VARIANTS] if dataset.name in class_of(name).recipes]
        if not names:
            raise UsageFault(f"no model has a recipe for {dataset.name}")
    rows = []
    for name in names:
        if name in VARIANTS:
            variant = VARIANTS[name]
            of_variant = {
                "objective": variant.objective,
                "objective_arguments": variant.objective_arguments,
                "fit": {**variant.fits.get(dataset.name, {}), **settings["fit"]},
            }
            config = resolve(variant.model, dataset, **{**settings, **of_variant})
        else:
            # Without a likelihood there is nothing to draw particles for.
            none = class_of(name).density == "none"
            config = resolve(name, dataset, **{**settings, **({"particles": None} if none else {})})
        rows.append(Row(name, config, out / name, out / "logs" / f"{name}.txt"))
    # EM runs through all items many times, from several starts.
    of_em = LONGEST_FIRST.index("bound")
    return sorted(
        rows,
        key=lambda row: (
            of_em if row.config["objective"] == "em" else LONGEST_FIRST.index(class_of(row.name).density)
        ),
    )


def _method_rows(
    model: str, asked: list[str], dataset: "Dataset", out: Path, settings: dict[str, Any], draws: int
) -> tuple[list[Row], list[str]]:
    """A row for each method that suits the model, and what is to be said of those that were left out.

    Raises:
        UsageFault: If one that was asked for by name does not suit it, or none does.
    """
    from zoo.cli.methods import choose_methods, configure

    chosen, notes = choose_methods(model, asked, dataset, settings)
    rows, said = [], {}
    for name in sorted(chosen, key=lambda name: not METHODS[name].thin):  # chains take longest
        config, note = configure(name, model, dataset, settings, draws)
        if note:
            said.setdefault(note, []).append(name)
        rows.append(Row(name, config, out / name, out / "logs" / f"{name}.txt", method=name))
    return rows, [*notes, *(f"{', '.join(names)}: {note}" for note, names in said.items())]


def _refuse_other_settings(row: Row) -> None:
    """Refuses a folder that holds a run of other settings, before anything is trained.

    Raises:
        UsageFault: If it does. A damaged one is left to its row, and so loses no other.
    """
    from zoo.cli.run_folder import RunFolder

    run = RunFolder(row.out)
    try:
        run.config()
    except UsageFault:
        return
    run.open(row.config)


def _run(
    rows: list[Row],
    notes: list[str],
    dataset: "Dataset",
    out: Path,
    jobs: int | None,
    seed: int,
    result: Path | None,
    arguments: list[str],
) -> int:
    """Does the rows, prints and writes what came; returns the exit code."""
    from joblib import cpu_count

    from zoo.cli.comparison_report import print_comparison, write_report
    from zoo.cli.probes import probe_table
    from zoo.cli.report import counted, say
    from zoo.cli.run_folder import RunFolder
    from zoo.cli.train import command_of

    (out / "logs").mkdir(parents=True, exist_ok=True)
    for note in notes:
        say(note)
    jobs = min(jobs or cpu_count(), max(1, sum(not _is_finished(row) for row in rows)))
    done: dict[str, dict[str, Any]] = {}
    try:
        for name, outcome in _outcomes(rows, jobs):
            if outcome.get("interrupted"):
                raise KeyboardInterrupt
            done[name] = outcome
            trained_already = outcome.pop("trained_already", False)  # no part of the result
            say(f"{name}{_in_short(outcome, trained_already)} ({len(done)} of {len(rows)})")
    except KeyboardInterrupt:
        finished = sum("failed" not in outcome for outcome in done.values())
        say(
            f"interrupted: {finished} of {counted(len(rows), 'row')} finished in {out}; "
            "the same command goes on"
        )
        return 130

    ordered = sorted((done[row.name] for row in rows), key=_worst_last)
    methods = rows[0].method is not None
    comparison = {
        "compared": "methods" if methods else "models",
        "model": rows[0].config["model"] if methods else None,
        "data": dataset.name,
        "fold": dataset.fold,
        "test_items": len(dataset.test),
        "seed": seed,
        "command": command_of(arguments),
        "machine": sorted({row["machine"] for row in ordered if row.get("machine")}),
        "notes": notes,
        "rows": ordered,
    }
    probes = [] if methods else probe_table(ordered, dataset)
    if probes:
        comparison["probes"] = probes
    RunFolder(out).write_json("comparison.json", comparison)
    if result is not None:
        RunFolder(result.parent).write_json(result.name, comparison)
    write_report(out, comparison, dataset)
    print_comparison(comparison)
    say(f"table, report.html and a run folder for each row are in {out}")
    for row in ordered:
        if "failed" in row:
            say(f"{row['name']} failed: {row['failed']}; more is in {out / 'logs'}")
    return 1 if any("failed" in row for row in ordered) else 0


def _worst_last(row: dict[str, Any]) -> tuple[int, float]:
    """By nats; then those that have no likelihood, by their draws; then those that failed."""
    from zoo.cli.comparison_report import badness_of_draws

    if "failed" in row:
        return 3, 0.0
    nats = row["test"]["nats_per_item"]
    if nats is None:
        return 2, badness_of_draws(row["samples"])
    return (0, nats) if nats == nats else (1, 0.0)


def _in_short(outcome: dict[str, Any], trained_already: bool) -> str:
    """What the line says that tells of the end of a row."""
    from zoo.cli.comparison_report import figure_in_words

    if "failed" in outcome:
        return f" failed: {outcome['failed']}"
    trained = "trained already" if trained_already else f"{outcome['seconds']:.0f} s"
    return f": {figure_in_words(outcome)}, {trained}"


def _is_finished(row: Row) -> bool:
    from zoo.cli.run_folder import RunFolder

    try:
        return bool(RunFolder(row.out).metrics().get("finished"))
    except UsageFault:
        return False


def _outcomes(rows: list[Row], jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's name and what came of it, as they end.

    A process that the system kills takes the others of its pool with it: then what is left is done again,
    a process for each row, and a row whose own is killed has failed.
    """
    import sys
    from concurrent.futures.process import BrokenProcessPool

    from inference.progress import progress
    from zoo.cli.report import say

    left = {row.name: row for row in rows}
    # Rows in this process bend the streams that a bar is drawn on; and each has a line of its own anyway.
    with progress("comparing", len(rows), enabled=jobs > 1 and sys.stderr.isatty()) as bar:
        try:
            for name, outcome in _parallel(rows, jobs):
                del left[name]
                bar.advance()
                yield name, outcome
        except BrokenProcessPool:
            say("a process was killed; going on with one row at a time")
            for row in list(left.values()):
                try:
                    [outcome_of_row] = _parallel([row], 2)
                except BrokenProcessPool:
                    killed = "its process was killed; is there memory enough?"
                    outcome_of_row = row.name, {"name": row.name, "failed": killed}
                bar.advance()
                yield outcome_of_row


def _parallel(rows: list[Row], jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Does rows side by side, jobs × threads on all cores; in this process where it is one job."""
    import warnings

    from joblib import Parallel, cpu_count, delayed, parallel_config

    from zoo.cli.report import say

    def tasks() -> Iterator[Any]:
        for row in rows:  # asked for the next when a process is free
            if not _is_finished(row):
                say(f"{row.name}: training")
            yield delayed(do_row)(row)

    threads = {} if jobs == 1 else {"inner_max_num_threads": max(1, cpu_count() // jobs)}
    with parallel_config(backend="loky", **threads), _ignoring_interrupts():
        outcomes = Parallel(
            n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1
        )(tasks())
    with warnings.catch_warnings(), _ignoring_task_that_is_gone():
        warnings.simplefilter("ignore", UserWarning)  # joblib's, when it is left before its end
        try:
            yield from outcomes
        finally:
            with _ignoring_interrupts():  # a second Ctrl-C would leave processes behind
                outcomes.close()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes that start in here leave Ctrl-C to this one, which ends them."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _ignoring_task_that_is_gone() -> Iterator[None]:
    """Joblib's pool, where it is ended between taking in a task and handing it on, looks for it in vain.

    By then its processes have been killed; its thread would end with a traceback on the terminal.
    """
    import threading

    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        of_pool = args.thread is not None and args.thread.name == "ExecutorManagerThread"
        if not (of_pool and args.exc_type is KeyError):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def do_row(row: Row) -> tuple[str, dict[str, Any]]:
    """Trains and evaluates one row; what it says goes to its log. Returns its name and what came of it."""
    import traceback

    row.log.parent.mkdir(parents=True, exist_ok=True)
    with open(row.log, "a", encoding="utf-8") as log:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                return row.name, {"name": row.name, **_trained(row)}
            except Exception as error:
                traceback.print_exc()
                return row.name, {"name": row.name, "model": row.config["model"], "failed": _said(error)}


def _trained(row: Row) -> dict[str, Any]:
    """The figures of a row, trained where it is not yet."""
    from zoo.cli.methods import METHODS, figures_of_method, infer_parameters
    from zoo.cli.run_folder import RunFolder
    from zoo.cli.sample_figures import figures_of_row
    from zoo.cli.train import train_one
    from zoo.data import load

    run = RunFolder(row.out)
    was_finished = _is_finished(row)
    dataset = load(row.config["data"], fold=row.config["fold"])
    if row.method is not None and METHODS[row.method].over_parameters:
        code = infer_parameters(row.config, dataset, row.out)
    else:
        runtime = {
            "num_nodes": 1,
            "accelerator": "auto",
            "logger": None,
            "checkpoint_seconds": CHECKPOINT_SECONDS,
        }
        code = train_one(row.config, dataset, row.out, runtime)
    if code:
        return {"interrupted": True}
    metrics = run.metrics()
    kept = ("model", "objective", "test", "parameters", "epochs", "best_epoch", "seconds", "machine")
    figures = {name: metrics.get(name) for name in kept}
    if row.method is not None:
        figures |= figures_of_method(row.method, row.config, dataset, run)
    else:
        more = {"probe": metrics.get("probe"), "samples": figures_of_row(run, dataset)}
        figures |= {name: of_row for name, of_row in more.items() if of_row is not None}
    return figures | {"trained_already": was_finished}


def _said(error: Exception) -> str:
    """The message of an error, in one line, with its kind where it is none that we expect."""
    expected = (UsageFault, EnvironmentFault, ValueError, ArithmeticError, OSError)
    message = " ".join(str(error).split()) or type(error).__name__
    return message if isinstance(error, expected) else f"{type(error).__name__}: {message}"
