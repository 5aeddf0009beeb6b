"""How a model is built and trained on a data set: its recipe, with what the command line changes."""

import ast
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from inference import Objective
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

OBJECTIVES = {
    "elbo": "ELBO",
    "importance-weighted": "ImportanceWeighted",
    "maximum-likelihood": "MaximumLikelihood",
    "supervised-elbo": "SupervisedELBO",
}
"""Name in a recipe and on the command line, and the class in `inference`."""

FIT_DEFAULTS: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 100,
    "lr": 1e-3,
    "schedule": "constant",
    "patience": None,
    "clip_norm": None,
    "precision": "32-true",
    "compile": False,
}


def resolve(
    model: str,
    data: "Dataset",
    *,
    objective: str | None = None,
    arguments: dict[str, Any] | None = None,
    objective_arguments: dict[str, Any] | None = None,
    fit: dict[str, Any] | None = None,
    labels: int | None = None,
    seed: int = 0,
    devices: int = 1,
    init: str | None = None,
) -> dict[str, Any]:
    """The whole configuration of a run, as plain data: the recipe, and over it what was asked for.

    Raises:
        UsageFault: If the model has no recipe for the data set, or the objective is unknown.
    """
    from zoo.registry import model_class

    recipes = model_class(model).recipes
    if data.name not in recipes:
        raise UsageFault(f"{model} has no recipe for {data.name!r}; it has them for {', '.join(recipes)}")
    recipe = recipes[data.name]
    chosen = objective or recipe["objective"]
    if chosen not in OBJECTIVES:
        raise UsageFault(f"unknown objective {chosen!r}; the objectives are {', '.join(OBJECTIVES)}")
    of_recipe = recipe.get("objective_arguments", {}) if chosen == recipe["objective"] else {}
    return {
        "model": model,
        "data": data.name,
        "fold": data.fold,
        "labels": labels,
        "event_shape": list(data.event_shape),
        "arguments": {**recipe["model"], **(arguments or {})},
        "objective": chosen,
        "objective_arguments": {**of_recipe, **(objective_arguments or {})},
        "fit": {**FIT_DEFAULTS, **recipe["fit"], **(fit or {})},
        "particles": recipe.get("particles", 1000),
        "devices": devices,
        "seed": seed,
        "init": init,
    }


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``["latent_dim=2", "hidden=(300,)"]`` as a dictionary; a value that is no Python literal is a string.

    Raises:
        UsageFault: If one has no ``=``.
    """
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UsageFault(f"--set expects NAME=VALUE, got {setting!r}")
        try:
            parsed[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[key] = value
    return parsed


def build_model(config: dict[str, Any]) -> "GenerativeModel":
    """The untrained model of a configuration, its weights drawn from the run's seed.

    Raises:
        UsageFault: If its arguments do not suit the class.
    """
    import torch

    from zoo.registry import model_class

    cls = model_class(config["model"])
    arguments = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config["arguments"].items()
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config["seed"])
        try:
            return cls(tuple(config["event_shape"]), **arguments)
        except TypeError:
            import inspect

            allowed = [name for name in inspect.signature(cls).parameters if name != "event_shape"]
            wrong = [name for name in arguments if name not in allowed]
            if not wrong:
                raise UsageFault(f"{config['model']} cannot be built from {arguments}") from None
            raise UsageFault(
                f"{config['model']} has no argument {', '.join(wrong)}; it has {', '.join(allowed)}"
            ) from None


def build_objective(config: dict[str, Any], model: "GenerativeModel") -> "Objective":
    """The objective of a configuration.

    Raises:
        UsageFault: If its arguments do not suit the class.
    """
    import inference

    cls = getattr(inference, OBJECTIVES[config["objective"]])
    try:
        return cls(model, **config["objective_arguments"])
    except TypeError as error:
        raise UsageFault(f"{config['objective']}: {error}") from None
