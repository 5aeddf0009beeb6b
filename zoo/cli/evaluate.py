"""``zoo evaluate``: the test figures of a trained run, anew."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.errors import UsageFault, choose
from zoo.cli.recipe import BOUNDS


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of zoo train.")],
    particles: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draws per item in the bound; left out, the recipe's. Of a machine, chains."
        ),
    ] = None,
    bound: Annotated[
        str | None, typer.Option(help=f"On log p(x), one of {', '.join(BOUNDS)}; left out, the recipe's.")
    ] = None,
    chains: Annotated[
        int | None, typer.Option(min=1, help="Of the annealing that estimates log Z, of a machine.")
    ] = None,
    betas: Annotated[int | None, typer.Option(min=1, help="Steps of that annealing.")] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            min=10,
            help="Compare so many draws with the test items; left out, as many as those, of a model without "
            "likelihood or one that was trained to draw well.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")] = 0,
) -> None:
    """Evaluate a trained model on the test items.

    The metrics.json and the pictures of the run folder are written anew. Of a machine (rbm, dbm), elbo is the
    bound of mean field, and importance-weighted an estimate by annealing; log Z is an estimate in both. A
    model without likelihood (gan) is judged by its draws, and any other as well with --draws: by how far the
    features that a classifier has of them are from those of test items, MMD, a two-sample test, precision and
    recall.
    """
    if bound is not None:
        choose("bound", bound, BOUNDS)

    from zoo.cli.report import print_metrics, report_folds
    from zoo.cli.run_folder import RunFolder

    folder = RunFolder(run)
    folds = [] if (run / "config.json").exists() else folder.folds
    for fold in folds:
        _evaluate_one(fold, particles, bound, chains, betas, draws, seed)
    if folds:
        report_folds(run)
    else:
        print_metrics(_evaluate_one(folder, particles, bound, chains, betas, draws, seed))


def _evaluate_one(
    folder: Any,
    particles: int | None,
    bound: str | None,
    chains: int | None,
    betas: int | None,
    draws: int | None,
    seed: int,
) -> dict[str, Any]:
    from zoo.cli.pictures import draw_pictures
    from zoo.cli.report import test_metrics
    from zoo.cli.sound import SOUNDS
    from zoo.cli.text import TEXTS, refuse_other_texts
    from zoo.data import load

    config = folder.config()
    model = folder.load_model()
    if model.density != "unnormalized" and (chains or betas):
        raise UsageFault(
            f"--{'chains' if chains else 'betas'} expects a model whose log Z is estimated, and the density "
            f"of {config['model']} is {model.density!r}"
        )
    if model.density == "none" and (particles or bound):
        raise UsageFault(
            f"--{'particles' if particles else 'bound'} expects a model with a likelihood, and "
            f"{config['model']} has none; --draws says how many of its draws are judged"
        )
    if draws and config["data"] in (*TEXTS, *SOUNDS):
        raise UsageFault(f"--draws compares images or vectors, and this is a run on {config['data']}")
    before = folder.metrics() or {
        "model": config["model"],
        "data": config["data"],
        "fold": config["fold"],
        "objective": config["objective"],
        "epochs": len(folder.history()),
        "seconds": None,
        "parameters": sum(param.numel() for param in model.parameters()),
        "seed": config["seed"],
        "finished": False,
    }
    dataset = load(config["data"], fold=config["fold"])
    if config["labels"] is not None:
        dataset = dataset.with_labels(config["labels"], seed=config["seed"])
    refuse_other_texts(before, dataset, folder.path)
    metrics = before | test_metrics(
        model,
        dataset,
        config,
        particles=particles,
        bound=bound,
        chains=chains,
        betas=betas,
        draws=draws,
        seed=seed,
    )
    draw_pictures(model, dataset, folder)
    folder.write_json("metrics.json", metrics)
    return metrics
