"""The inference methods that ``zoo compare`` runs one model under, and which models each suits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from torch import Tensor

    from inference import Draws, Objective
    from zoo.cli.run_folder import RunFolder
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

MOST_ITEMS = 500
"""Training items that a posterior over parameters is conditioned on, at most: each step reads all of them."""

MOST_PARAMETERS = 2_000
"""Of a model, for chains over θ to be among all methods: a draw takes hundreds of gradients."""

CHAINS = 4
"""Of θ: R-hat tells of chains that disagree."""

TREE_DEPTH = 6
"""Of NUTS, at most: a draw then takes no more than 63 gradients."""

GUIDE_DRAWS = 200
"""From a fitted guide over the parameters: they are independent."""

BATCH_OF_GRADIENTS = 100
"""Training items of the batch whose gradient is drawn again and again."""

REPEATS = 50
"""So many times."""

BY_GRADIENT = {"epochs": 200, "batch_size": 50, "lr": 1e-2, "schedule": "cosine"}
"""How a model whose recipe is EM is trained by gradients."""

OVER_PARAMETERS = {"epochs": 1500, "lr": 1e-1, "schedule": "cosine"}
"""How a guide over the parameters is fitted: an epoch is one step with all items."""


@dataclass(frozen=True)
class Traits:
    """What a model is, as far as the choice of a method asks.

    Attributes:
        density: As `zoo.GenerativeModel` has it.
        latent: Whether it has latent sites.
        reparameterized: Whether each of them can be drawn with a gradient.
        learned_guide: Whether the guide has parameters that the model has not.
        closed_steps: Whether it has ``e_step`` and ``m_step``.
        bayesian: Whether it has a program with priors over its parameters, ``bayesian_model``.
        in_windows: Whether it carries a state from one item to the next, and items are windows of sequences.
    """

    density: str
    latent: bool
    reparameterized: bool
    learned_guide: bool
    closed_steps: bool
    bayesian: bool
    in_windows: bool = False


@dataclass(frozen=True)
class Method:
    """One inference method.

    Attributes:
        description: What it is, in some words.
        needs: What a model must have for it, in words.
        suits: The same as a rule.
        objective: What it is trained by, one of `zoo.cli.recipe.OBJECTIVES`; None for a method over θ.
        arguments: Of the objective.
        noisy: Whether its gradient has a noise of its own, beside that of the choice of the batch.
        thin: Transitions from one draw of θ to the next, where it runs chains; else 0. Warm-up takes as many
            transitions as all draws.
    """

    description: str
    needs: str
    suits: Callable[[Traits], bool]
    objective: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    noisy: bool = True
    thin: int = 0

    @property
    def over_parameters(self) -> bool:
        """Whether it infers a distribution, or the mode of one, over the parameters θ."""
        return self.objective is None


def _latent(traits: Traits) -> bool:
    return traits.latent and traits.density != "unnormalized"


def _reparameterized(traits: Traits) -> bool:
    return _latent(traits) and traits.reparameterized


def _learned_guide(traits: Traits) -> bool:
    return _latent(traits) and traits.learned_guide


def _bayesian(traits: Traits) -> bool:
    return traits.bayesian


def _machine(traits: Traits) -> bool:
    return traits.density == "unnormalized"


_LATENT = "latent sites"
_REPARAMETERIZED = "latent sites that can be reparameterised"
_LEARNED_GUIDE = "latent sites and a guide with parameters of its own"
_BAYESIAN = "priors over its parameters"
_MACHINE = "an unnormalised density"

METHODS = {
    "maximum-likelihood": Method(
        "gradient of the exact log p(x)",
        "an exact density",
        lambda traits: traits.density == "exact",
        "maximum-likelihood",
        noisy=False,
    ),
    "truncated-backpropagation": Method(
        "gradient of the exact log p(x) of windows, each from the state that the one before it left",
        "a state to carry, and data in windows of long sequences",
        lambda traits: traits.in_windows,
        "truncated-backpropagation",
        noisy=False,
    ),
    "em": Method(
        "expectation-maximisation in closed form",
        "an E-step and an M-step in closed form",
        lambda traits: traits.closed_steps,
        "em",
        noisy=False,
    ),
    "elbo": Method("ELBO, reparameterised or enumerated", _LATENT, _latent, "elbo"),
    "score-function": Method(
        "ELBO, score-function gradient, 4 particles",
        _LATENT,
        _latent,
        "elbo",
        {"gradient": "score-function", "num_particles": 4},
    ),
    "baseline": Method(
        "ELBO, score function less a running mean, 4 particles",
        _LATENT,
        _latent,
        "elbo",
        {"gradient": "baseline", "num_particles": 4},
    ),
    "leave-one-out": Method(
        "ELBO, score function less the mean of the other particles, 4 of them",
        _LATENT,
        _latent,
        "elbo",
        {"gradient": "leave-one-out", "num_particles": 4},
    ),
    "importance-weighted": Method(
        "importance-weighted bound, 10 particles",
        _REPARAMETERIZED,
        _reparameterized,
        "importance-weighted",
        {"num_particles": 10},
    ),
    "doubly-reparameterized": Method(
        "the same bound, doubly-reparameterised gradient",
        f"{_REPARAMETERIZED}, and a guide with parameters of its own",
        lambda traits: _reparameterized(traits) and traits.learned_guide,
        "importance-weighted",
        {"gradient": "doubly-reparameterized", "num_particles": 10},
    ),
    "reweighted-wake-sleep": Method(
        "reweighted wake-sleep, 10 particles",
        _LEARNED_GUIDE,
        _learned_guide,
        "reweighted-wake-sleep",
        {"num_particles": 10},
    ),
    "variational-em": Method(
        "ELBO, steps of the guide and of the model by turns",
        _LEARNED_GUIDE,
        _learned_guide,
        "variational-em",
        noisy=False,  # its gradients are the ELBO's
    ),
    "contrastive-divergence": Method(
        "contrastive divergence", _MACHINE, _machine, "contrastive-divergence", noisy=False
    ),
    "persistent-contrastive-divergence": Method(
        "the same with chains that go on",
        _MACHINE,
        _machine,
        "persistent-contrastive-divergence",
        noisy=False,
    ),
    "map": Method("the mode of p(θ | X), by AutoDelta", _BAYESIAN, _bayesian),
    "svi": Method("p(θ | X) by independent Gaussians, AutoNormal", _BAYESIAN, _bayesian),
    "nuts": Method(
        f"draws of p(θ | X) by NUTS, trees of depth {TREE_DEPTH} at most", _BAYESIAN, _bayesian, thin=1
    ),
    "hmc": Method("draws of p(θ | X) by HMC, 10 leapfrog steps", _BAYESIAN, _bayesian, thin=3),
    "mala": Method("draws of p(θ | X) by adjusted Langevin dynamics", _BAYESIAN, _bayesian, thin=20),
    "random-walk": Method("draws of p(θ | X) by Metropolis' random walk", _BAYESIAN, _bayesian, thin=150),
}
"""By their names on the command line."""


def traits_of(model: "GenerativeModel", dataset: "Dataset") -> Traits:
    """What a model is, as far as the choice of a method asks; its programs are run once to see."""
    from inference import Objective

    latent = reparameterized = learned_guide = False
    if model.density != "unnormalized":
        objective = Objective(model)
        batch = _batch(objective, dataset, 2)
        structure = objective.prepare(batch)
        latent, reparameterized = bool(structure.latent), structure.reparameterized
        learned_guide = latent and _has_learned_guide(model, batch)
    return Traits(
        density=model.density,
        latent=latent,
        reparameterized=reparameterized,
        learned_guide=learned_guide,
        closed_steps=hasattr(model, "e_step") and hasattr(model, "m_step"),
        bayesian=hasattr(model, "bayesian_model"),
        in_windows=hasattr(model, "log_prob_from") and hasattr(dataset.train, "starts"),
    )


def _batch(objective: "Objective", dataset: "Dataset", num: int) -> Any:
    """The first training items, with their labels where the objective takes them."""
    x, y = dataset.train.x[:num], dataset.train.y
    return (x, y[:num]) if objective.takes_labels and y is not None else x


def _has_learned_guide(model: "GenerativeModel", batch: Any) -> bool:
    """Whether log q(z | x) has parameters that log p(x, z) has not: a guide in closed form has none."""
    from inference import VariationalEM

    turns = VariationalEM(model)
    try:
        turns.prepare(batch)
    except ValueError:
        return False
    return bool({*map(id, turns.guide_parameters)} - {*map(id, turns.model_parameters)})


def choose_methods(
    model: str, asked: list[str], dataset: "Dataset", settings: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Those of the methods that suit the model, and what is to be said of the others.

    Args:
        model: Its name.
        asked: Names of methods, or ``["all"]``.
        dataset: What it is to be trained on.
        settings: Of `zoo.cli.recipe.resolve`.

    Raises:
        UsageFault: If one that was asked for by its name does not suit the model, or none does.
    """
    from zoo.cli.recipe import build_model, resolve

    built = build_model(resolve(model, dataset, **settings))
    if built.density == "none":
        raise UsageFault(f"--methods expects a model with a likelihood, and {model} has none")
    traits = traits_of(built, dataset)
    suited = [name for name, method in METHODS.items() if method.suits(traits)]
    for name in asked:
        if name != "all" and name not in suited:
            raise UsageFault(
                f"{name} needs {METHODS[name].needs}, which {model} has not; {model} can be fitted by "
                f"{', '.join(suited) or 'none of the methods'}"
            )
    if not suited:
        raise UsageFault(f"none of the methods suits {model}")
    if asked != ["all"]:
        return asked, []
    size = sum(param.numel() for param in built.parameters())
    slow = [name for name in suited if METHODS[name].thin]
    if slow and size > MOST_PARAMETERS:
        note = (
            f"{', '.join(slow)} left out: {model} has {size:,} parameters, more than {MOST_PARAMETERS:,}; "
            "ask for them by name"
        )
        return [name for name in suited if name not in slow], [note]
    return suited, []


def configure(
    name: str, model: str, dataset: "Dataset", settings: dict[str, Any], draws: int
) -> tuple[dict[str, Any], str]:
    """The configuration of a method's run, and what is to be said of it, if anything.

    Args:
        name: Of the method.
        model: Name of the model.
        dataset: What it is trained on.
        settings: Of `zoo.cli.recipe.resolve`.
        draws: Of the parameters in each chain, for methods that draw them.
    """
    from zoo.cli.recipe import FIT_DEFAULTS, resolve

    method = METHODS[name]
    recipe = resolve(model, dataset, **settings)
    if not method.over_parameters:
        if recipe["objective"] == "em" != method.objective:
            settings = {**settings, "fit": {**BY_GRADIENT, **settings["fit"]}}
        config = resolve(
            model, dataset, objective=method.objective, objective_arguments=method.arguments, **settings
        )
        return config, ""
    items = min(len(dataset.train), MOST_ITEMS)
    arguments: dict[str, Any] = {"items": items}
    if name == "nuts":
        arguments |= {"draws": draws, "chains": CHAINS, "max_tree_depth": TREE_DEPTH}
    elif method.thin:
        arguments |= {"draws": draws, "chains": CHAINS, "thin": method.thin}
    else:
        arguments |= {"draws": GUIDE_DRAWS if name == "svi" else 1}
    fit = {**FIT_DEFAULTS, **OVER_PARAMETERS, "batch_size": items, **settings["fit"]}
    note = ""
    if items < len(dataset.train):
        note = f"given the first {items:,} of {len(dataset.train):,} training items"
    return {**recipe, "objective": name, "objective_arguments": arguments, "fit": fit}, note


def read_draws(folder: Path) -> "dict[str, Tensor]":
    """What a method over the parameters has drawn, by name; empty where there is nothing that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "draws.safetensors"
    try:
        return load_file(path) if path.exists() else {}
    except SafetensorError:
        return {}


def infer_parameters(config: dict[str, Any], dataset: "Dataset", out: Path) -> int:
    """Infers the parameters of a model by a method over them, into a folder; returns the exit code.

    The folder then holds the configuration, the figures, and the draws: ``draws.safetensors`` with
    ``samples.SITE`` and ``stats.NAME``, each of shape ``(chain, draw, ...)``.
    """
    import time

    from safetensors.torch import save

    import inference
    from inference.checkpoint import write_atomically
    from zoo.cli.recipe import build_model
    from zoo.cli.report import say
    from zoo.cli.run_folder import RunFolder
    from zoo.cli.train import machine_of

    run = RunFolder(out)
    run.open(config)
    if run.metrics().get("finished") and read_draws(out):
        say(f"{out} is there already")
        return 0
    model = build_model(config)
    arguments, seed = config["objective_arguments"], config["seed"]
    x = dataset.train.x[: arguments["items"]]
    started = time.monotonic()
    history: list[dict[str, float]] = []
    if METHODS[config["objective"]].thin:
        draws = _by_chains(model, x, config)
        interrupted = draws.interrupted
    else:
        draws, history, interrupted = _by_guide(model, x, config)
    seconds = time.monotonic() - started
    if interrupted:
        say("interrupted; the same command starts it anew")
        return 130
    estimate = inference.log_predictive(model.bayesian_model, draws, dataset.test.x)
    error = estimate.monte_carlo_error
    tensors = {f"samples.{name}": value.contiguous() for name, value in draws.samples.items()}
    tensors |= {f"stats.{name}": value.contiguous() for name, value in draws.stats.items()}
    write_atomically(out / "draws.safetensors", save(tensors))
    run.save_history(history)
    run.write_json(
        "metrics.json",
        {
            "model": config["model"],
            "data": config["data"],
            "fold": config["fold"],
            "objective": config["objective"],
            "epochs": len(history),
            "seconds": round(seconds, 1),
            "parameters": sum(param.numel() for param in model.parameters()),
            "seed": seed,
            "machine": machine_of(model),
            "test": {
                "nats_per_item": estimate.nats_per_item,
                "standard_error": estimate.standard_error,
                "bits_per_dim": estimate.bits_per_dim,
                "kind": estimate.kind,
                "bound": None,
                "particles": estimate.particles,
                "monte_carlo_error": error if error == error else None,  # JSON has no NaN
                "items": len(estimate.per_item),
            },
            "draws": _quality(draws, seconds),
            "finished": True,
        },
    )
    return 0


def _by_chains(model: "GenerativeModel", x: Any, config: dict[str, Any]) -> "Draws":
    """Draws of the parameters given items, by chains."""
    import inference

    arguments, seed = config["objective_arguments"], config["seed"]
    if config["objective"] == "nuts":
        return inference.nuts(
            model.bayesian_model,
            x,
            num_draws=arguments["draws"],
            num_chains=arguments["chains"],
            max_tree_depth=arguments["max_tree_depth"],
            seed=seed,
        )
    kernel_class = {
        "hmc": inference.HMC,
        "mala": inference.MALA,
        "random-walk": inference.RandomWalkMetropolis,
    }[config["objective"]]
    # Chains end at other rotations or permutations of θ: how far apart tells nothing of how far to step.
    kernel = kernel_class(model.bayesian_model, adapt_scale=False)
    return inference.run_chains(
        kernel,
        arguments["draws"],
        x,
        num_chains=arguments["chains"],
        thin=arguments["thin"],
        seed=seed,
    )


def _by_guide(
    model: "GenerativeModel", x: Any, config: dict[str, Any]
) -> tuple["Draws", list[dict[str, float]], bool]:
    """Draws from a guide over the parameters, fitted to items; the history; whether Ctrl-C ended it."""
    from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_sample

    import inference

    # Where the prior's median is the same for all components, none could leave it.
    program: Any = model.bayesian_model
    guide_class = {"map": AutoDelta, "svi": AutoNormal}[config["objective"]]
    guide = guide_class(program, init_loc_fn=init_to_sample)
    objective = inference.ELBO(program, guide)
    result = inference.fit(objective, x, **config["fit"], seed=config["seed"])
    num = config["objective_arguments"]["draws"]
    return (
        inference.posterior_draws(guide, num, x, seed=config["seed"]),
        result.history,
        result.interrupted,
    )


def _quality(draws: "Draws", seconds: float) -> dict[str, Any]:
    """How far chains may be trusted: of their energy, which no permutation or rotation of θ changes."""
    import inference

    quality: dict[str, Any] = {"chains": draws.num_chains, "draws": draws.num_draws}
    rows = {row.name: row for row in inference.diagnose(draws, sites=[]).rows}
    if "energy" in rows:
        energy = rows["energy"]
        quality |= {"of": "energy", "r_hat": energy.r_hat, "ess": energy.ess_bulk}
        quality["ess_per_second"] = energy.ess_bulk / seconds
    if "divergent" in draws.stats:
        quality["divergent"] = int(draws.stats["divergent"].sum())
    return {name: value if value == value else None for name, value in quality.items()}


def figures_of_method(
    name: str, config: dict[str, Any], dataset: "Dataset", run: "RunFolder"
) -> dict[str, Any]:
    """What the table says of a method beside the test figure: bound, variance of its gradient, its draws.

    The variance is computed once, with the trained weights, and kept in ``gradient.json``.
    """
    metrics, history = run.metrics(), run.history()
    figures: dict[str, Any] = {"description": METHODS[name].description}
    if "draws" in metrics:
        return {**figures, "draws": metrics["draws"]}
    best = [row["valid"] for row in history if row["epoch"] == metrics.get("best_epoch") and "valid" in row]
    if best:
        figures["valid"] = best[0]
    if METHODS[name].noisy:
        figures["gradient_variance"] = _gradient_variance(name, config, dataset, run)
    return figures


def _gradient_variance(
    name: str, config: dict[str, Any], dataset: "Dataset", run: "RunFolder"
) -> float | None:
    """Variance of the gradient of a batch, over draws of the noise alone, summed over the parameters.

    None where the objective draws nothing: its gradient has no noise.
    """
    import json

    import inference
    from zoo.cli.recipe import build_objective

    path = run.path / "gradient.json"
    if path.exists():
        try:
            return json.loads(path.read_text(encoding="utf-8"))["variance"]
        except (ValueError, KeyError, TypeError):
            pass  # damaged; it is computed anew
    model = run.load_model()
    objective = build_objective(config, model)
    batch = _batch(objective, dataset, BATCH_OF_GRADIENTS)
    estimate = inference.gradient_variance({name: objective}, batch, repeats=REPEATS, seed=config["seed"])
    variance = estimate[name].variance
    run.write_json("gradient.json", {"variance": variance, "items": BATCH_OF_GRADIENTS, "repeats": REPEATS})
    return variance
