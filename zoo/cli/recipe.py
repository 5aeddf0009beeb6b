"""How a model is built and trained on a data set: its recipe, with what the command line changes."""

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault, choose

if TYPE_CHECKING:
    from inference import Objective
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

OBJECTIVES = {
    "adversarial": "Adversarial",
    "adversarial-autoencoder": "AdversarialAutoencoder",
    "contrastive-divergence": "ContrastiveDivergence",
    "elbo": "ELBO",
    "em": "MaximumLikelihood",
    "importance-weighted": "ImportanceWeighted",
    "maximum-likelihood": "MaximumLikelihood",
    "persistent-contrastive-divergence": "PersistentContrastiveDivergence",
    "reweighted-wake-sleep": "ReweightedWakeSleep",
    "supervised-elbo": "SupervisedELBO",
    "truncated-backpropagation": "TruncatedBackpropagation",
    "variational-em": "VariationalEM",
    "wasserstein-autoencoder": "WassersteinAutoencoder",
}
"""Name in a recipe and on the command line, and the class in `inference`: of ``em`` what it maximises."""

BOUNDS = ("importance-weighted", "elbo")
"""Those of `inference.log_likelihood`; a recipe that names none reports the first, but where the density is
unnormalised the second."""

ANNEALING = ("chains", "betas")
"""What a recipe may say of the annealing that estimates the log Z of an undirected model."""

FIT_DEFAULTS: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 100,
    "lr": 1e-3,
    "schedule": "constant",
    "betas": [0.9, 0.999],
    "momentum": None,
    "weight_decay": 0.0,
    "patience": None,
    "clip_norm": None,
    "precision": "32-true",
    "compile": False,
}

EM_DEFAULTS: dict[str, Any] = {"epochs": 1000, "tolerance": 1e-6, "restarts": 1, "patience": None}
"""The same, of `inference.fit_em`."""

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Those of Fabric that leave parameters and data in their own type."""

CONFIG_TYPES: dict[str, Any] = {
    "model": str,
    "data": str,
    "fold": int | None,
    "labels": int | None,
    "event_shape": list,
    "arguments": dict,
    "objective": str,
    "objective_arguments": dict,
    "fit": dict,
    "particles": int,
    "bound": str,
    "annealing": dict,
    "devices": int,
    "seed": int,
    "init": str | None,
}
"""What `resolve` returns, as a JSON file holds it."""

FIT_TYPES: dict[str, Any] = {
    "epochs": int,
    "batch_size": int,
    "lr": float | int | dict,
    "schedule": str,
    "betas": list | tuple,
    "momentum": float | int | None,
    "weight_decay": float | int,
    "patience": int | None,
    "clip_norm": float | int | None,
    "precision": str,
    "compile": bool,
}
"""What stands under ``fit``."""

EM_TYPES: dict[str, Any] = {
    "epochs": int,
    "tolerance": float | int,
    "restarts": int,
    "patience": int | None,
}
"""What stands there where the objective is reached by EM."""


def resolve(
    model: str,
    data: "Dataset",
    *,
    objective: str | None = None,
    arguments: dict[str, Any] | None = None,
    objective_arguments: dict[str, Any] | None = None,
    fit: dict[str, Any] | None = None,
    particles: int | None = None,
    bound: str | None = None,
    labels: int | None = None,
    seed: int = 0,
    devices: int = 1,
    init: str | None = None,
) -> dict[str, Any]:
    """The whole configuration of a run, as plain data: the recipe, and over it what was asked for.

    Raises:
        UsageFault: If the model has no recipe for the data set, the objective, the bound, the schedule or
            the precision is unknown, EM is given what only a training by gradients takes, or a model without
            likelihood what only a likelihood takes.
    """
    from zoo.registry import model_class

    cls = model_class(model)
    recipes = cls.recipes
    if data.name not in recipes:
        raise UsageFault(f"{model} has no recipe for {data.name}; it has one for {', '.join(recipes)}")
    recipe = recipes[data.name]
    chosen = choose("objective", objective or recipe["objective"], OBJECTIVES)
    of_recipe = recipe.get("objective_arguments", {}) if chosen == recipe["objective"] else {}
    fit = _fit_settings(chosen, recipe, fit or {})
    if cls.density == "none" and (particles or bound):
        raise UsageFault(f"{model} has no likelihood, and so no particles and no bound")
    summed = cls.density != "unnormalized"  # elsewhere a particle is a chain that is annealed
    return {
        "model": model,
        "data": data.name,
        "fold": data.fold,
        "labels": labels,
        "event_shape": list(data.event_shape),
        "arguments": {**recipe["model"], **(arguments or {})},
        "objective": chosen,
        "objective_arguments": {**of_recipe, **(objective_arguments or {})},
        "fit": fit,
        "particles": particles or recipe.get("particles", 1000 if summed else 20),
        "bound": choose("bound", bound or recipe.get("bound", BOUNDS[0 if summed else 1]), BOUNDS),
        "annealing": recipe.get("annealing", {}),
        "devices": devices,
        "seed": seed,
        "init": init,
    }


def _fit_settings(objective: str, recipe: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What `inference.fit`, or `inference.fit_em`, is called with."""
    # A recipe for the one says nothing of the other.
    of_recipe = recipe["fit"] if (objective == "em") == (recipe["objective"] == "em") else {}
    if objective != "em":
        fit = {**FIT_DEFAULTS, **of_recipe, **asked}
        for name in asked:
            if name not in FIT_DEFAULTS:
                raise UsageFault(f"--{name} is for EM, and the objective is {objective}")
        choose("schedule", fit["schedule"], SCHEDULES)
        choose("precision", fit["precision"], PRECISIONS)
        return fit
    for name in asked:
        if name not in EM_DEFAULTS:
            allowed = ", ".join(f"--{each}" for each in EM_DEFAULTS)
            raise UsageFault(
                f"EM takes no --{name.replace('_', '-')}, only {allowed}; --objective maximum-likelihood "
                "trains by gradients"
            )
    return {**EM_DEFAULTS, **of_recipe, **asked}


def check_config(config: dict[str, Any], path: Path) -> None:
    """Checks that a configuration read from a file is one that `resolve` could have made.

    Raises:
        UsageFault: If an entry is missing or of another type, or the model, the data set or the bound is
            unknown.
    """
    from zoo.data import DESCRIPTIONS
    from zoo.registry import MODELS

    of_fit = EM_TYPES if config.get("objective") == "em" else FIT_TYPES
    for entries, types, prefix in ((config, CONFIG_TYPES, ""), (config.get("fit"), of_fit, "fit.")):
        for name, expected in types.items():
            if name not in entries:
                raise UsageFault(f"{path} is damaged: it has no {prefix}{name}")
            if not isinstance(entries[name], expected):
                wanted = getattr(expected, "__name__", str(expected))
                raise UsageFault(f"{path} is damaged: {prefix}{name} must be {wanted}, got {entries[name]!r}")
    unknown = sorted(config["fit"].keys() - of_fit.keys())
    if unknown:
        raise UsageFault(f"{path} is damaged: there is no fit.{unknown[0]}")
    choose("model", config["model"], MODELS, where=f" in {path}")
    choose("data set", config["data"], DESCRIPTIONS, where=f" in {path}")
    choose("bound", config["bound"], BOUNDS, where=f" in {path}")
    for name, value in config["annealing"].items():
        if name not in ANNEALING or not isinstance(value, int) or value < 1:
            raise UsageFault(
                f"{path} is damaged: annealing must hold {' and '.join(ANNEALING)} of at least 1, got "
                f"{name}={value!r}"
            )


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``["latent_dim=2", "hidden=(300,)"]`` as a dictionary; a value that is no Python literal is a string.

    Raises:
        UsageFault: If one has no name or no ``=``, or is neither a number nor a string nor a tuple of them.
    """
    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.isidentifier() and equals):
            raise UsageFault(f"--set expects NAME=VALUE, for instance latent_dim=2, got {setting!r}")
        try:
            parsed[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[key] = value
        try:
            json.dumps(parsed[key], allow_nan=False)
        except (TypeError, ValueError):
            raise UsageFault(
                f"--set expects a number, a string, or a tuple of them, got {setting!r}"
            ) from None
    return parsed


def build_model(config: dict[str, Any]) -> "GenerativeModel":
    """The untrained model of a configuration, its weights drawn from the run's seed.

    Raises:
        UsageFault: If its arguments do not suit the class.
    """
    import inspect

    import torch

    from zoo.registry import model_class

    cls = model_class(config["model"])
    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config["arguments"].items()
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config["seed"])
        try:
            return cls(tuple(config["event_shape"]), **arguments)
        except (
            TypeError,
            RuntimeError,
            OverflowError,
        ) as error:  # of another type, or too large for the memory
            reason = str(error).partition("\n")[0]
            _, *allowed = inspect.signature(cls).parameters.values()
            asked = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise UsageFault(
                f"{config['model']} cannot be built with {asked} ({reason}); "
                f"it takes {', '.join(map(str, allowed))}"
            ) from None


def build_objective(config: dict[str, Any], model: "GenerativeModel") -> "Objective":
    """The objective of a configuration.

    Raises:
        UsageFault: If its arguments do not suit the class.
    """
    import inspect

    import inference

    cls = getattr(inference, OBJECTIVES[config["objective"]])
    for name in config["objective_arguments"]:
        if name not in inspect.signature(cls).parameters:
            raise UsageFault(f"the objective {config['objective']} takes no {name.removeprefix('num_')}")
    return cls(model, **config["objective_arguments"])
