"""``zoo train``: trains a model by its recipe into a run folder."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.errors import UsageFault


def train(
    model: Annotated[str, typer.Argument(help="Name of the model; zoo list shows them.")],
    data: Annotated[str, typer.Option(help="Name of the data set; zoo list shows them.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/MODEL-DATA].")] = None,
    objective: Annotated[str | None, typer.Option(help="Another objective than the recipe's.")] = None,
    particles: Annotated[int | None, typer.Option(help="Particles of the objective.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training items.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items for each step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the learning rate: constant or cosine.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without improvement.")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, or bf16-mixed where the CPU is fast at it.")] = None,
    compile: Annotated[bool | None, typer.Option(help="Compile the training step into one graph.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Another argument of the model, as in latent_dim=2.")
    ] = None,
    labels: Annotated[int | None, typer.Option(help="Keep so many training labels, hide the others.")] = None,
    fold: Annotated[int | None, typer.Option(help="One fold of a data set that has folds; all of them if left out.")] = None,
    init: Annotated[Path | None, typer.Option(help="Run folder whose weights to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
    devices: Annotated[int, typer.Option(help="Processes that train together on this machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines that train together (with torchrun or SLURM).")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    logger: Annotated[str | None, typer.Option(help="tensorboard, beside history.csv.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Least time between two checkpoints.")] = 30.0,
) -> int:
    """Train a model, evaluate it on the test items, and draw its pictures.

    The same command resumes where an interrupted one stopped.
    """
    from zoo.cli.recipe import parse_settings, resolve
    from zoo.data import load
    from zoo.registry import model_class

    model_class(model)
    if logger not in (None, "tensorboard"):
        raise UsageFault(f"unknown logger {logger!r}; the loggers are tensorboard")
    dataset = load(data, fold=fold)
    out = out or Path("runs") / (f"{model}-{data}" + ("" if fold is None else f"-fold-{fold}"))
    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "patience": patience,
        "precision": precision,
        "compile": compile,
    }
    runtime = {
        "num_nodes": nodes,
        "accelerator": accelerator,
        "logger": logger,
        "checkpoint_seconds": checkpoint_seconds,
    }

    def configuration(dataset: Any) -> dict[str, Any]:
        return resolve(
            model,
            dataset,
            objective=objective,
            arguments=parse_settings(settings or []),
            objective_arguments={} if particles is None else {"num_particles": particles},
            fit={name: value for name, value in asked.items() if value is not None},
            labels=labels,
            seed=seed,
            devices=devices * nodes,
            init=None if init is None else str(init),
        )

    if dataset.num_folds == 1 or fold is not None:
        return train_one(configuration(dataset), dataset, out, runtime)
    for number in range(dataset.num_folds):
        part = load(data, fold=number)
        code = train_one(configuration(part), part, out / f"fold-{number}", runtime)
        if code:
            return code
    if is_first_rank():
        from zoo.cli.report import report_folds

        report_folds(out)
    return 0


def train_one(config: dict[str, Any], dataset: Any, out: Path, runtime: dict[str, Any]) -> int:
    """Trains, evaluates and draws one run; returns the exit code."""
    from inference import fit
    from zoo.cli.pictures import draw_pictures
    from zoo.cli.recipe import build_model, build_objective
    from zoo.cli.report import print_metrics, say, test_metrics
    from zoo.cli.run_folder import RunFolder

    run = RunFolder(out)
    model = build_model(config)
    objective = build_objective(config, model)
    if config["labels"] is not None:
        dataset = dataset.with_labels(config["labels"], seed=config["seed"])
    if is_first_rank():
        run.open(config)
        if run.metrics().get("finished"):
            say(f"{out} is trained already; delete it or choose another --out to train again")
            print_metrics(run.metrics())
            return 0
        say(f"training {config['model']} on {config['data']} into {out}")
    if config["init"] is not None:
        model.load_state_dict(RunFolder(config["init"]).load_model().state_dict())

    result = fit(
        objective,
        dataset.train,
        valid=dataset.valid,
        **config["fit"],
        checkpoint=run.checkpoint,
        checkpoint_seconds=runtime["checkpoint_seconds"],
        devices=config["devices"] // runtime["num_nodes"],
        num_nodes=runtime["num_nodes"],
        accelerator=runtime["accelerator"],
        logger=_logger(runtime["logger"], out),
        seed=config["seed"],
    )
    if result.rank:
        return 0
    run.save_model(model)
    run.save_history(result.history)
    if result.interrupted:
        say(
            f"interrupted after epoch {len(result.history)} of {config['fit']['epochs']}: {out} holds the weights of "
            f"epoch {result.best_epoch}; the same command goes on from the last checkpoint"
        )
        return 130

    metrics = {
        "model": config["model"],
        "data": config["data"],
        "fold": config["fold"],
        "objective": config["objective"],
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
        "parameters": sum(param.numel() for param in model.parameters()),
        "seed": config["seed"],
        "machine": _machine(model),
    }
    model.eval()
    metrics |= test_metrics(model, dataset, config)
    draw_pictures(model, dataset, run)
    run.write_json("metrics.json", metrics | {"finished": True})
    run.checkpoint.unlink(missing_ok=True)
    print_metrics(metrics)
    say(f"pictures, weights and history are in {out}")
    return 0


def is_first_rank() -> bool:
    """Whether this is the process that writes and speaks, where several train together."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _logger(name: str | None, out: Path) -> Any:
    if name is None:
        return None
    try:
        from lightning_fabric.loggers import TensorBoardLogger

        return TensorBoardLogger(root_dir=out, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UsageFault("--logger tensorboard needs TensorBoard: pip install 'pyro-zoo[tensorboard]'") from None


def _machine(model: Any) -> str:
    """What trained the model, for the table: the figures in seconds mean nothing without it."""
    import platform

    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"
