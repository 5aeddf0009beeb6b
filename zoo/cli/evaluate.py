"""``zoo evaluate``: the test figures of a trained run, anew."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of zoo train.")],
    particles: Annotated[int | None, typer.Option(help="Importance samples [default: the recipe's].")] = None,
    seed: Annotated[int, typer.Option(help="Seed of whatever is drawn.")] = 0,
) -> None:
    """Evaluate a trained model on the test items; metrics.json and the pictures are written anew."""
    from zoo.cli.report import print_metrics, report_folds
    from zoo.cli.run_folder import RunFolder

    folder = RunFolder(run)
    folds = [] if (run / "config.json").exists() else folder.folds
    if folds:
        for fold in folds:
            _evaluate_one(fold, particles, seed)
        report_folds(run)
    else:
        print_metrics(_evaluate_one(folder, particles, seed))


def _evaluate_one(folder, particles: int | None, seed: int) -> dict:
    from zoo.cli.pictures import draw_pictures
    from zoo.cli.report import test_metrics
    from zoo.data import load

    config = folder.config()
    model = folder.load_model()
    dataset = load(config["data"], fold=config["fold"])
    if config["labels"] is not None:
        dataset = dataset.with_labels(config["labels"], seed=config["seed"])
    metrics = folder.metrics() | test_metrics(model, dataset, config, particles=particles, seed=seed)
    draw_pictures(model, dataset, folder)
    folder.write_json("metrics.json", {"model": config["model"], "data": config["data"], **metrics})
    return metrics
