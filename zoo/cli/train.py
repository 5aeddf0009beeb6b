"""``zoo train``: trains a model by its recipe into a run folder."""

import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.errors import EnvironmentFault, UsageFault, choose
from zoo.cli.recipe import BOUNDS, OBJECTIVES, PRECISIONS, SCHEDULES
from zoo.data import DESCRIPTIONS
from zoo.registry import MODELS

ACCELERATORS = ("auto", "cpu", "cuda", "mps", "tpu")
LOGGERS = ("tensorboard",)


def _one_of(allowed: Any) -> str:
    return ", ".join(allowed)


def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"One of {_one_of(MODELS)}.")],
    data: Annotated[str, typer.Option(help=f"One of {_one_of(DESCRIPTIONS)}.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="Run folder; left out, runs/MODEL-DATA.")] = None,
    objective: Annotated[
        str | None, typer.Option(help=f"Instead of the recipe's, one of {_one_of(OBJECTIVES)}.")
    ] = None,
    particles: Annotated[int | None, typer.Option(min=1, help="Draws per item in the objective.")] = None,
    evaluation_particles: Annotated[
        int | None, typer.Option(min=1, help="Draws per test item in the bound; left out, the recipe's.")
    ] = None,
    evaluation_bound: Annotated[
        str | None,
        typer.Option(help=f"On log p(x) of test items, one of {_one_of(BOUNDS)}; left out, the recipe's."),
    ] = None,
    label_weight: Annotated[
        float | None,
        typer.Option(
            min=0, help="Factor of -log p(y | x) in learning by contrast, of a machine with labels."
        ),
    ] = None,
    sweeps: Annotated[
        int | None, typer.Option(min=1, help="Gibbs sweeps of each step, in learning by contrast.")
    ] = None,
    chains: Annotated[
        int | None, typer.Option(min=1, help="That go on from step to step, in learning by contrast.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times through the training items.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Items for each step, over all devices.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, above 0.")] = None,
    schedule: Annotated[str | None, typer.Option(help=f"Of the learning rate: {_one_of(SCHEDULES)}.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="Share of the weights that a step takes away, times lr.")
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(min=0, help="Plain gradient descent with this momentum, below 1, instead of Adam."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without progress.")
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(min=1, help="Starts of EM, of which the best is kept.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Nats per item that a step of EM must gain, or be the last.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help=f"One of {_one_of(PRECISIONS)}; mixed is faster where the device is.")
    ] = None,
    compile: Annotated[bool | None, typer.Option(help="Compile the training step into one graph.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An argument of the model, as latent_dim=2; repeatable."
        ),
    ] = None,
    labels: Annotated[
        int | None, typer.Option(min=1, help="Keep so many training labels, hide the others.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="One fold of data that have folds; left out, all of them.")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Run folder whose weights to start from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, order and noise.")] = 0,
    devices: Annotated[int, typer.Option(min=1, help="Processes that train together on this machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that train together (torchrun or SLURM).")] = 1,
    accelerator: Annotated[str, typer.Option(help=f"One of {_one_of(ACCELERATORS)}.")] = "auto",
    logger: Annotated[str | None, typer.Option(help="tensorboard, beside history.csv.")] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Least time between two checkpoints.")
    ] = 30.0,
    result: Annotated[
        Path | None, typer.Option(help="Also write the figures, with this command, to a JSON file.")
    ] = None,
) -> int:
    """Train a model by its recipe, and evaluate it.

    The run folder then holds configuration, weights, figures, history and pictures. The same command resumes
    where an interrupted one stopped.
    """
    choose("model", model, MODELS)
    choose("data set", data, DESCRIPTIONS)
    choose("accelerator", accelerator, ACCELERATORS)
    if logger is not None:
        choose("logger", logger, LOGGERS)

    from zoo.cli.recipe import parse_settings, resolve
    from zoo.cli.run_folder import RunFolder
    from zoo.data import load

    dataset = load(data, fold=fold)
    out = out or Path("runs") / (f"{model}-{data}" + ("" if fold is None else f"-fold-{fold}"))
    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "patience": patience,
        "restarts": restarts,
        "tolerance": tolerance,
        "precision": precision,
        "compile": compile,
    }
    of_objective = {
        "num_particles": particles,
        "label_weight": label_weight,
        "sweeps": sweeps,
        "num_chains": chains,
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
            objective_arguments={name: value for name, value in of_objective.items() if value is not None},
            fit={name: value for name, value in asked.items() if value is not None},
            particles=evaluation_particles,
            bound=evaluation_bound,
            labels=labels,
            seed=seed,
            devices=devices * nodes,
            init=None if init is None else str(init),
        )

    if dataset.num_folds == 1 or fold is not None:
        code = train_one(configuration(dataset), dataset, out, runtime)
    else:
        RunFolder(out).check_free(allowed=("fold-*/config.json",))
        code = train_folds(
            {number: load(data, fold=number) for number in range(dataset.num_folds)},
            configuration,
            out,
            runtime,
        )
    if code == 0 and result is not None and is_first_rank():
        RunFolder(result.parent).write_json(
            result.name, RunFolder(out).metrics() | {"command": command_of(context.obj)}
        )
    return code


def train_folds(
    parts: dict[int, Any], configuration: Callable[[Any], dict[str, Any]], out: Path, runtime: dict[str, Any]
) -> int:
    """Trains a run for each fold, and reports on them together; returns the exit code."""
    from zoo.cli.report import report_folds

    for number, part in parts.items():
        code = train_one(configuration(part), part, out / f"fold-{number}", runtime)
        if code:
            return code
    if is_first_rank():
        report_folds(out)
    return 0


def train_one(config: dict[str, Any], dataset: Any, out: Path, runtime: dict[str, Any]) -> int:
    """Trains, evaluates and draws one run; returns the exit code."""
    from zoo.cli.pictures import draw_pictures
    from zoo.cli.recipe import build_model, build_objective
    from zoo.cli.report import counted, print_metrics, say, test_metrics
    from zoo.cli.run_folder import RunFolder

    _check_devices(config, runtime["accelerator"])
    run = RunFolder(out)
    model = build_model(config)
    objective = build_objective(config, model)
    if config["init"] is not None:
        RunFolder(config["init"]).load_weights(model)
    if config["objective"] == "em" and not hasattr(model, "e_step"):
        raise UsageFault(
            f"EM expects a model with steps in closed form, and {config['model']} has none; "
            f"{' and '.join(sorted({recipe['objective'] for recipe in model.recipes.values()}))} can train it"
        )
    if config["labels"] is not None:
        if not objective.takes_labels:
            hint = "; --set num_classes=10 gives it some" if model.density == "unnormalized" else ""
            raise UsageFault(f"--labels expects a model with labels, and {config['model']} has none{hint}")
        if model.density == "exact":
            raise UsageFault(
                "--labels expects a model that learns from items without one too, and "
                f"{config['model']} does not"
            )
        dataset = dataset.with_labels(config["labels"], seed=config["seed"])
    logger = _logger(runtime["logger"], out)
    fresh = is_first_rank() and run.open(config)
    if run.is_finished:
        if is_first_rank():
            run.load_weights(model)  # they may have been damaged since
            run.checkpoint.unlink(missing_ok=True)
            say(f"{out} is trained already; delete it or choose another --out to train again")
            print_metrics(run.metrics())
        return 0
    if is_first_rank():
        say(f"{'training' if fresh else 'going on with'} {config['model']} on {config['data']} in {out}")
    try:
        result = _fit(objective, dataset, config, runtime, run.checkpoint, logger)
    except Exception:
        if fresh and not run.checkpoint.exists():
            run.discard()
        raise
    if result.rank:
        return 0

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
        "machine": machine_of(model),
    }
    notes = result.notes if config["objective"] == "em" else []  # what others have to say, they said at once
    if notes:
        more = f", and the like {counted(len(notes) - 1, 'more time')}" if len(notes) > 1 else ""
        say(f"{notes[0]}{more}")
    run.save_history(result.history)
    run.write_json("metrics.json", metrics | {"finished": False})
    run.save_model(model)
    if result.interrupted:
        weights = (
            f"the weights of epoch {result.best_epoch}"
            if result.best_epoch
            else "weights from its first epoch"
        )
        say(
            f"interrupted after {len(result.history)} of {config['fit']['epochs']} epochs: {out} holds "
            f"{weights}; the same command goes on from the last checkpoint"
        )
        return 130

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
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return int(next((rank for rank in ranks if rank is not None), 0)) == 0


def _fit(
    objective: Any,
    dataset: Any,
    config: dict[str, Any],
    runtime: dict[str, Any],
    checkpoint: Path,
    logger: Any,
) -> Any:
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from inference import fit, fit_em
    from zoo.cli.report import quiet_lightning

    saving = {"checkpoint": checkpoint, "checkpoint_seconds": runtime["checkpoint_seconds"]}
    if config["objective"] == "em":
        model = objective.program.source[0]
        settings = config["fit"] if config["init"] is None else {**config["fit"], "restarts": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what it warns of is told from the result
            return fit_em(
                model,
                dataset.train,
                valid=dataset.valid,
                **settings,
                initialize=config["init"] is None,
                **saving,
                seed=config["seed"],
            )
    with quiet_lightning():
        try:
            return fit(
                objective,
                dataset.train,
                valid=dataset.valid,
                **config["fit"],
                **saving,
                devices=config["devices"] // runtime["num_nodes"],
                num_nodes=runtime["num_nodes"],
                accelerator=runtime["accelerator"],
                logger=logger,
                seed=config["seed"],
            )
        except MisconfigurationException as error:  # more devices than there are
            raise EnvironmentFault(str(error)) from None


def _check_devices(config: dict[str, Any], accelerator: str) -> None:
    """Refuses here, in one process, what several would each complain of."""
    from lightning_fabric.accelerators import ACCELERATOR_REGISTRY

    if accelerator != "auto" and not ACCELERATOR_REGISTRY[accelerator]["accelerator"].is_available():
        raise EnvironmentFault(f"there is no {accelerator} on this machine that torch can use")
    if config["objective"] == "em":
        if config["devices"] > 1 or accelerator not in ("auto", "cpu"):
            raise UsageFault(
                f"EM runs in one process on the CPU, asked for {config['devices']} of {accelerator}"
            )
    elif config["fit"]["batch_size"] < config["devices"]:
        raise UsageFault(
            f"the batch size must be at least 1 for each of {config['devices']} devices, "
            f"got {config['fit']['batch_size']}"
        )


def _logger(name: str | None, out: Path) -> Any:
    if name is None:
        return None
    try:
        from lightning_fabric.loggers import TensorBoardLogger

        return TensorBoardLogger(root_dir=out, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise EnvironmentFault(
            "--logger tensorboard needs TensorBoard: pip install 'pyro-zoo[tensorboard]'"
        ) from None


def command_of(arguments: list[str]) -> str:
    """The command as it was given, but for where its files went."""
    words = iter(arguments)
    kept = []
    for word in words:
        if word in ("--out", "--result"):
            next(words)
        elif not word.startswith(("--out=", "--result=")):
            kept.append(word)
    return shlex.join(["zoo", *kept])


def machine_of(model: Any) -> str:
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
