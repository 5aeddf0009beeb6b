"""The figures of a run: on the test items, as ``metrics.json`` holds them and as people read them."""

import logging
import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.run_folder import TEST_FIGURES, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table
    from torch import Tensor

    from zoo.data import Dataset
    from zoo.model import GenerativeModel

PROBE_ITEMS = 10_000
"""Training items that a probe or a judging classifier is fitted on, at most: keeps MNIST under a minute."""


NO_LIKELIHOOD = {**TEST_FIGURES, "kind": "none"}
"""What the ``test`` of a ``metrics.json`` holds where the model has no likelihood."""

JUDGED_BY_DRAWS = ("adversarial", "adversarial-autoencoder", "wasserstein-autoencoder")
"""Objectives that are after good draws: their runs have figures of those, besides a likelihood or without."""

TRAIN_ITEMS = 10_000
"""Training items whose likelihood stands beside that of the test items, at most."""

LAYER_DRAWS = 100
"""From the guide, for each test item, where what its layers tell is measured."""

CLASSIFIED_AT_A_TIME = 1000
"""Items whose labels are found at once: a machine holds each of them once for every label."""

INVERTED = 1000
"""Test items that are inverted; where there are fewer, each several times with other noise."""

INVERSION_TOLERANCE = 1e-5
"""Largest residual of a layer's equation."""


def say(text: str) -> None:
    """Prints one line for the user."""
    print(text, flush=True)


def counted(num: int, what: str) -> str:
    """``1 draw``, ``2 draws``."""
    return f"{num:,} {what}{'' if num == 1 else 's'}"


def drawn(figures: dict[str, Any]) -> str:
    """Which draws a figure comes from, in words; empty where it comes from none.

    Args:
        figures: With ``kind``, ``particles`` and ``bound``, as `inference.LikelihoodEstimate` has them; those
            of runs from before there was a choice of the bound have no ``bound``.
    """
    if figures.get("bound") == "elbo" and not figures.get("particles"):
        return "by mean field, with an estimated log Z"
    if not figures.get("particles"):
        return ""
    if figures.get("kind") == "estimate":
        return f"by annealing from the mean field, {counted(figures['particles'], 'chain')} per item"
    if figures.get("bound") == "elbo":
        return f"by the ELBO, mean over {counted(figures['particles'], 'draw')} of noise per item"
    return f"by {counted(figures['particles'], 'importance sample')} per item"


def test_metrics(
    model: "GenerativeModel",
    dataset: "Dataset",
    config: dict[str, Any],
    *,
    particles: int | None = None,
    bound: str | None = None,
    chains: int | None = None,
    betas: int | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure that the model has on the test items: likelihood, draws, accuracy, probe.

    Draws are compared with the items where there is no likelihood, where the objective was after draws and no
    likelihood, and where ``draws`` is given.

    Args:
        model: A trained model.
        dataset: What it was trained on.
        config: Its configuration.
        particles: Draws per item where log p(x) is bounded; None takes the recipe's.
        bound: Which one, of `zoo.cli.recipe.BOUNDS`; None takes the recipe's.
        chains: Of the annealing that estimates log Z, where the density is unnormalised; None takes the
            recipe's, or else a number that suits the size.
        betas: Steps of that annealing; None takes the recipe's, or else 2,000.
        draws: How many are compared with the test items; None takes as many as those.
        seed: Seed of whatever is drawn.
    """
    if model.density == "none":
        metrics: dict[str, Any] = {"test": {**NO_LIKELIHOOD, "items": len(dataset.test)}}
        model.to(dataset.test.x.device)  # where scikit-learn and matplotlib read
    else:
        metrics = _likelihood_metrics(
            model, dataset, config, particles=particles, bound=bound, chains=chains, betas=betas, seed=seed
        )
    if draws or model.density == "none" or config["objective"] in JUDGED_BY_DRAWS:
        from zoo.cli.sample_figures import sample_figures

        metrics["samples"] = sample_figures(model, dataset, draws=draws, seed=seed)
    if dataset.num_classes is None:
        return metrics
    if hasattr(model, "features") and (dataset.train.y[:PROBE_ITEMS].unique() >= 0).sum() > 1:
        metrics["probe"] = probe_accuracies(model.features, dataset)
        if len(dataset.event_shape) > 1 and has_code(model):
            metrics["carried"] = carried_by_code(model, dataset.train)
    if getattr(model, "num_classes", None) is not None:  # a machine may be built without labels
        metrics["accuracy"] = _accuracy(model, dataset.test)
        if hasattr(model.classify, "parameters"):  # elsewhere p(y | x) is no network of its own
            metrics["accuracy_classifier_alone"] = _classifier_alone(dataset, config)
        metrics["generated_as_asked"] = _generated_as_asked(model, dataset, seed)
    return metrics


def _likelihood_metrics(
    model: "GenerativeModel",
    dataset: "Dataset",
    config: dict[str, Any],
    *,
    particles: int | None,
    bound: str | None,
    chains: int | None,
    betas: int | None,
    seed: int,
) -> dict[str, Any]:
    """The figures that log p(x) gives, of a model that has one; the arguments as of `test_metrics`."""
    import inference

    started = time.monotonic()
    bound = bound or config["bound"]
    particles = config["particles"] if particles is None else particles
    of_test: dict[str, Any] = {}
    of_chains: dict[str, Any] = {}
    if model.density == "unnormalized":
        from zoo.cli.undirected_figures import likelihood_figures

        annealing = config["annealing"]
        estimate, of_test, of_chains = likelihood_figures(
            model,
            dataset,
            bound=bound,
            particles=particles,
            chains=chains or annealing.get("chains"),
            betas=betas or annealing.get("betas"),
            seed=seed,
        )
    else:
        estimate = inference.log_likelihood(
            model,
            dataset.test,
            particles=particles,
            bound=bound,
            # A flow of convolutions holds many feature maps for each draw: so they stay in the cache.
            chunk=500 if bound == "elbo" else 4000,
            seed=seed,
        )
    error = estimate.monte_carlo_error
    model.to(dataset.test.x.device)  # where scikit-learn and matplotlib read
    metrics: dict[str, Any] = {
        "test": {
            "nats_per_item": estimate.nats_per_item,
            "standard_error": estimate.standard_error,
            "bits_per_dim": estimate.bits_per_dim,
            "kind": estimate.kind,
            "bound": estimate.bound,
            "particles": estimate.particles,
            "monte_carlo_error": None if math.isnan(error) else error,  # JSON has no NaN
            "items": len(estimate.per_item),
            "seconds": round(time.monotonic() - started, 1),
            **of_test,
        }
    }
    if of_chains:
        metrics["chains"] = of_chains
    if model.density == "exact":  # elsewhere it would take as long as the training
        items = dataset.train.x[:TRAIN_ITEMS]
        seen = inference.log_likelihood(model, items, progress=False)
        metrics["train"] = {"nats_per_item": seen.nats_per_item, "items": len(items)}
    if len(dataset.event_shape) == 1 and dataset.test.x.is_floating_point():
        metrics["gaussian"] = {"nats_per_item": _full_gaussian(dataset)}
    if hasattr(model, "divergences"):
        metrics["layers"] = _layers(model, dataset, seed)
    if hasattr(model, "invert"):
        metrics["inversion"] = _inversion(model, dataset, seed)
    if dataset.rate is not None and hasattr(model, "log_prob_of"):
        from zoo.cli.sound import sound_figures

        metrics |= sound_figures(model, dataset)
    if dataset.alphabet is not None and hasattr(model, "log_prob_of"):
        from zoo.cli.text import text_figures

        metrics |= text_figures(model, dataset, seed)
    return metrics


def _full_gaussian(dataset: "Dataset") -> float:
    """Negative log-density, nats per test item, of one Gaussian with every covariance: what to beat."""
    import torch

    learn = torch.cat([dataset.train.x, dataset.valid.x]).double()
    gaussian = torch.distributions.MultivariateNormal(learn.mean(0), learn.T.cov(correction=0))
    return -gaussian.log_prob(dataset.test.x.double()).mean().item()


def _layers(model: Any, dataset: "Dataset", seed: int) -> dict[str, Any]:
    """What each layer of a hierarchy tells of a test item, from the bottom to the top: nats, a mean."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = [model.divergences(x, num_draws=LAYER_DRAWS) for x in dataset.test.x.split(100)]
    return {"kl": torch.cat(found).double().mean(0).tolist(), "draws": LAYER_DRAWS}


def _inversion(model: Any, dataset: "Dataset", seed: int) -> dict[str, float]:
    """How a flow that is inverted layer by layer, by an iteration, finds test items again, in float32."""
    import torch

    x = dataset.test.x.repeat(math.ceil(INVERTED / len(dataset.test)), *[1] * len(dataset.event_shape))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        numbers = model.dequantize(x[:INVERTED])  # the same image never twice
        z = model.transform.inv(numbers)
        found = model.invert(z, tolerance=INVERSION_TOLERANCE)
        errors = (model.transform(z) - numbers).abs().flatten(1).amax(1)
    iterations = torch.stack([layer.iterations for layer in found])
    return {
        "layers": len(found),
        "items": INVERTED,
        "tolerance": INVERSION_TOLERANCE,
        "residual": max(layer.residual.max().item() for layer in found),
        "iterations": int(iterations.max()),
        "mean_iterations": iterations.double().mean().item(),
        "median_error": errors.median().item(),
        "error": errors.max().item(),
    }


def _fit_quietly(classifier: Any, features: Any, labels: Any) -> Any:
    """Fits a scikit-learn classifier on at most `PROBE_ITEMS` labelled items."""
    known = labels >= 0
    return classifier.fit(features[known][:PROBE_ITEMS].numpy(), labels[known][:PROBE_ITEMS].numpy())


def probe_accuracies(features: "Callable[[Tensor], Tensor]", dataset: "Dataset") -> dict[str, float]:
    """Test accuracy of a logistic regression on features of the items, and on their raw entries.

    Args:
        features: From items to ``(num, features)``.
        dataset: With labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    accuracies = {}
    for name, seen in (("features", features), ("raw", lambda x: x.flatten(1))):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        _fit_quietly(probe, seen(dataset.train.x[:PROBE_ITEMS]), dataset.train.y[:PROBE_ITEMS])
        accuracies[name] = float(probe.score(seen(dataset.test.x).numpy(), dataset.test.y.numpy()))
    return accuracies


def has_code(model: Any) -> bool:
    """Whether an item has one code, a vector that an encoder finds without a label."""
    return (
        hasattr(model, "encode")
        and hasattr(model, "decode")
        and hasattr(model, "latent_dim")
        and not getattr(model, "num_classes", None)
    )


def carried_by_code(model: Any, split: Any) -> dict[str, list[float]]:
    """What each entry of a code carries: the share of its variance that the label, or the ink, explains.

    Of the label that is η², the variance of the labels' means over the variance of all; of the ink, the sum
    of an image's entries, the squared correlation. 0 is nothing, 1 is that the entry tells nothing else.

    Args:
        model: One that has a code, as `has_code` tells.
        split: Images and their labels; those of -1 are passed over.
    """
    import torch

    known = split.y >= 0
    x, y = split.x[known][:PROBE_ITEMS], split.y[known][:PROBE_ITEMS]
    with torch.no_grad():
        codes = model.encode(x).mean.double().cpu()
    codes = codes - codes.mean(0)
    total = codes.square().mean(0).clamp(min=1e-12)
    by_label = torch.zeros_like(total)
    for label in y.unique():
        members = codes[y == label]
        by_label += len(members) / len(codes) * members.mean(0).square()
    ink = x.flatten(1).double().sum(1)
    ink = (ink - ink.mean()) / ink.std(correction=0).clamp(min=1e-12)
    by_ink = (codes * ink[:, None]).mean(0).square()
    return {"label": (by_label / total).tolist(), "ink": (by_ink / total).tolist()}


def _accuracy(model: "GenerativeModel", split: Any) -> float:
    """Share of items whose label q(y | x) gets right."""
    import torch

    with torch.no_grad():
        labels = torch.cat([model.classify(x).argmax(-1) for x in split.x.split(CLASSIFIED_AT_A_TIME)])
    return (labels == split.y).double().mean().item()


def _classifier_alone(dataset: "Dataset", config: dict[str, Any]) -> float:
    """Test accuracy of the same encoder q(y | x), trained on the labelled items alone, by the same recipe."""
    import inference
    from zoo.cli.recipe import build_model

    model = build_model(config)
    known = dataset.train.y >= 0
    fit = {**config["fit"], "batch_size": min(config["fit"]["batch_size"], int(known.sum()))}
    with one_process(), quiet_lightning():
        inference.fit(
            inference.CrossEntropy(model.classify),
            (dataset.train.x[known], dataset.train.y[known]),
            valid=(dataset.valid.x, dataset.valid.y),
            **fit,
            seed=config["seed"],
            progress=False,
        )
    model.to(dataset.test.x.device).eval()
    return _accuracy(model, dataset.test)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's notes on how it was set up stay out of the terminal, its warnings do not."""
    import lightning_fabric

    logger = logging.getLogger(lightning_fabric.__name__)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def one_process() -> Iterator[None]:
    """`fit` takes a process that has a local rank for one of several; by now the others have ended."""
    rank = os.environ.pop("LOCAL_RANK", None)
    try:
        yield
    finally:
        if rank is not None:
            os.environ["LOCAL_RANK"] = rank


def _generated_as_asked(model: "GenerativeModel", dataset: "Dataset", seed: int) -> dict[str, float]:
    """Share of drawn items that a classifier of real ones takes for the label asked for; its accuracy."""
    import torch
    from sklearn.svm import SVC

    from zoo.data import load

    train = load(dataset.name, fold=dataset.fold).train  # with every label
    judge = _fit_quietly(SVC(C=10.0), train.x[:PROBE_ITEMS].flatten(1), train.y[:PROBE_ITEMS])
    each = 100
    if model.density == "unnormalized":
        from zoo.cli.undirected_figures import share_of_work

        each = max(10, round(100 * share_of_work(model)))
    asked = torch.arange(dataset.num_classes).repeat_interleave(each)
    drawn = model.sample(len(asked), seed=seed, y=asked).flatten(1)
    return {
        "share": float(judge.score(drawn.numpy(), asked.numpy())),
        "judge_accuracy": float(judge.score(dataset.test.x.flatten(1).numpy(), dataset.test.y.numpy())),
    }


def plain_table(*columns: str) -> "Table":
    """An empty table without a frame, which a narrow terminal would break."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # and nothing is cut off
    return table


def _likelihood_rows(test: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table on the likelihood: figure, value, explanation."""
    bound = "≤ " if test["kind"] == "lower bound" else ""
    how = {
        "exact": "exact",
        "lower bound": f"an upper bound: log p(x) is bounded from below {drawn(test)}",
        "estimate": f"an estimate{', ' if drawn(test) else ''}{drawn(test)}"
        + (", with an estimated log Z" if "log_z" in test else ""),
    }
    return [
        (
            "-log p(x), nats per item",
            f"{bound}{test['nats_per_item']:.2f} ± {test['standard_error']:.2f}",
            how[test["kind"]],
        ),
        (
            "-log p(x), bits per dim",
            f"{bound}{test['bits_per_dim']:.3f}",
            "the same in bits per entry of an item",
        ),
    ]


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints the figures of ``metrics.json`` as a table."""
    from rich.console import Console

    test = metrics["test"]
    table = plain_table("test figure", "value", "")
    if test["kind"] == "none":
        table.add_row("-log p(x)", "none", "the model has no likelihood: its draws are judged")
    else:
        for row in _likelihood_rows(test):
            table.add_row(*row)
    if "log_z" in test:
        from zoo.cli.undirected_figures import likelihood_rows

        for row in likelihood_rows(metrics):
            table.add_row(*row)
    if "sound" in metrics:
        from zoo.cli.sound import sound_rows

        for row in sound_rows(metrics):
            table.add_row(*row)
    if "characters" in metrics:
        from zoo.cli.text import text_rows

        for row in text_rows(metrics):
            table.add_row(*row)
    if "gaussian" in metrics:
        table.add_row(
            "one full Gaussian, nats",
            f"{metrics['gaussian']['nats_per_item']:.2f}",
            "fitted to the items that are not for testing",
        )
    if "train" in metrics:
        table.add_row(
            "training items, nats",
            f"{metrics['train']['nats_per_item']:.2f}",
            "what was learnt by heart is the difference",
        )
    for layer, divergence in enumerate(metrics.get("layers", {}).get("kl", []), start=1):
        table.add_row(
            f"KL of z_{layer}, nats", f"{divergence:.2f}", "what this layer of the code tells of an item"
        )
    if "samples" in metrics:
        from zoo.cli.sample_figures import sample_rows

        for row in sample_rows(metrics["samples"]):
            table.add_row(*row)
    if "inversion" in metrics:
        inversion = metrics["inversion"]
        table.add_row(
            "inverse, largest residual",
            f"{inversion['residual']:.1e}",
            f"of {inversion['items']:,} items; a layer took {inversion['mean_iterations']:.0f} iterations in "
            f"the mean, {inversion['iterations']} at most",
        )
    if "probe" in metrics:
        table.add_row(
            "linear probe, code",
            f"{metrics['probe']['features']:.1%}",
            "accuracy, from what the model makes of x",
        )
        table.add_row("linear probe, raw", f"{metrics['probe']['raw']:.1%}", "accuracy, from x itself")
    if "carried" in metrics:
        table.add_row("entries of the code", *_carried_in_words(metrics["carried"]))
    if "accuracy" in metrics:
        alone, asked = metrics.get("accuracy_classifier_alone"), metrics["generated_as_asked"]
        of_guide = alone is not None
        table.add_row("q(y | x)" if of_guide else "p(y | x)", f"{metrics['accuracy']:.1%}", "accuracy")
        if of_guide:
            table.add_row(
                "q(y | x) alone",
                f"{alone:.1%}",
                "accuracy, the same network trained on the labelled items only",
            )
        table.add_row(
            "drawn as asked",
            f"{asked['share']:.1%}",
            f"have their label, by a classifier that gets {asked['judge_accuracy']:.1%} of real items right",
        )
    if metrics.get("seconds") is not None:
        what = f"{counted(metrics['epochs'], 'epoch')}, {counted(metrics['parameters'], 'parameter')}"
        table.add_row("training", f"{metrics['seconds']:.1f} s", what)
    Console(highlight=False).print(table)


def _carried_in_words(carried: dict[str, list[float]]) -> tuple[str, str]:
    """The entry that carries most of the label, and the one that carries most of the ink."""
    best = {what: max(range(len(shares)), key=shares.__getitem__) for what, shares in carried.items()}
    said = [
        f"{carried[what][entry]:.0%} of the variance of z[{entry}] is the {what}'s"
        for what, entry in best.items()
    ]
    return str(len(carried["label"])), ", ".join(said)


def report_folds(out: Path) -> None:
    """Writes and prints the ``metrics.json`` of a cross-validation: mean and standard error over folds."""
    run = RunFolder(out)
    folds = [fold.metrics() for fold in run.folds]
    first = folds[0]
    of_test = {**first["test"], "items": sum(fold["test"]["items"] for fold in folds)}
    if of_test["kind"] != "none":
        nats = [fold["test"]["nats_per_item"] for fold in folds]
        of_test |= {
            "nats_per_item": statistics.mean(nats),
            "standard_error": statistics.stdev(nats) / math.sqrt(len(nats)) if len(nats) > 1 else math.nan,
            "bits_per_dim": statistics.mean(fold["test"]["bits_per_dim"] for fold in folds),
        }
    metrics = {
        **{name: first.get(name) for name in ("model", "data", "objective", "parameters", "seed", "machine")},
        "folds": len(folds),
        "epochs": max(fold["epochs"] for fold in folds),
        "seconds": round(sum(fold["seconds"] or 0.0 for fold in folds), 1),
        "test": of_test,
        **{
            name: {**first[name], "nats_per_item": statistics.mean(f[name]["nats_per_item"] for f in folds)}
            for name in ("gaussian", "train")
            if all(name in fold for fold in folds)
        },
        "finished": True,
    }
    if all("samples" in fold for fold in folds):
        metrics["samples"] = _mean_of([fold["samples"] for fold in folds])
    run.write_json("metrics.json", metrics)
    say(f"mean over {counted(len(folds), 'fold')}, ± its standard error over them")
    print_metrics(metrics)


def _mean_of(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number, of dictionaries of the same form."""
    first = figures[0]
    return {
        name: _mean_of([each[name] for each in figures])
        if isinstance(first[name], dict)
        else statistics.mean(each[name] for each in figures)
        for name in first
    }
