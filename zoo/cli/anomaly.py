"""``zoo anomaly``: how well log p(x) of a trained run tells its test items from what is not of the kind.

References:
    | The meaning and use of the area under a receiver operating characteristic curve (Hanley & McNeil, 1982)
    | Comparing the areas under two or more correlated receiver operating characteristic curves: a
      nonparametric approach (DeLong, DeLong & Clarke-Pearson, 1988), for the standard error
    | Nonparametric analysis of clustered ROC curve data (Obuchowski, 1997), for that of paired items
    | Do deep generative models know what they don't know? (Nalisnick et al., 2019), for why to look at all
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from zoo.cli.errors import UsageFault, choose
from zoo.data import DESCRIPTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data import Dataset

NOISE_SHARE = 0.1

ALTERATIONS = ("transposed", "noise", "shuffled")
"""What may be done to the test items, by the name that ``--against`` takes."""


class Anomalies(NamedTuple):
    """Items that are not of the kind.

    Attributes:
        x: Shape ``(num, *event_shape)``.
        description: What they are.
        paired: Whether anomaly i was made of test item i alone.
    """

    x: "Tensor"
    description: str
    paired: bool


def anomaly(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of zoo train.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(ALTERATIONS)}, or a data set with items of the same kind, as "
            "fashion-mnist for a model of mnist; repeatable; left out, all of those three that fit the data.",
        ),
    ] = None,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Draws per item in the bound; left out, the recipe's.")
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=2, help="Use so many test items, chosen by the seed; left out, all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="File of the picture, .png; left out, anomaly.png in the run folder."),
    ] = None,
    result: Annotated[Path | None, typer.Option(help="Also write the figures to a JSON file.")] = None,
) -> None:
    """Tell test items from anomalies by log p(x).

    The area under the ROC curve, AUC, is the share of pairs of a test item and an anomaly in which the test
    item is the likelier: 0.5 cannot tell, 1 tells all. Anomalies are test items transposed; with noise, which
    flips 10% of the binary entries, or sets 10% of the levels to any level; shuffled, which exchanges entries
    between items; or the test items of another data set. The figures go into anomaly.json in the run folder,
    the histograms into a picture.
    """
    for name in against or []:
        choose("anomalies", name, [*ALTERATIONS, *DESCRIPTIONS])
    out = out or run / "anomaly.png"
    if out.suffix != ".png" or out.is_dir():
        raise UsageFault(f"--out expects a file that ends in .png, got {out}")

    import inference
    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import log_prob_histograms, to_png
    from zoo.cli.report import say
    from zoo.cli.run_folder import RunFolder
    from zoo.data import load

    folder = RunFolder(run)
    model, config = folder.load_model(), folder.config()
    if model.density == "none":
        raise UsageFault(f"zoo anomaly expects a model with a likelihood, and {config['model']} has none")
    for option, file in (("--out", out), ("--result", result)):
        if file is not None and not file.parent.is_dir():
            raise UsageFault(f"{option} expects a file in a folder that is there, got {file}")
    dataset = load(config["data"], fold=config["fold"])
    test = _chosen(dataset.test.x, items, seed)
    anomalies = {
        name: _anomalies(name, dataset, test, items, seed)
        for name in dict.fromkeys(against or _fitting(dataset))
    }

    log_z = None
    if model.density == "unnormalized" and hasattr(model, "annealing"):
        from zoo.cli.undirected_figures import estimated_log_z

        log_z = estimated_log_z(model, seed=seed)  # one for all: the comparison does not hang on it

    def log_prob(x: "Tensor", what: str) -> Any:
        estimate = inference.log_likelihood(
            model,
            x,
            particles=config["particles"] if particles is None else particles,
            bound=config["bound"],
            log_z=log_z,
            seed=seed,
        )
        if not estimate.per_item.isfinite().all():
            hint = "" if what == "test items" else "; --against takes the kinds that the model allows"
            raise FloatingPointError(f"log p(x) is not finite for some of the {what}{hint}")
        return estimate

    of_test = log_prob(test, "test items")
    results, histograms = {}, {}
    for name, kind in anomalies.items():
        estimate = log_prob(kind.x, f"anomalies, {name}")
        auc, error = area_under_curve(of_test.per_item, estimate.per_item, paired=kind.paired)
        results[name] = {
            "description": kind.description,
            "auc": auc,
            "standard_error": error,
            "nats_per_item": estimate.nats_per_item,
            "items": len(kind.x),
        }
        histograms[f"{name}: AUC {auc:.3f} ± {error:.3f}"] = estimate.per_item
    figures = {
        "model": config["model"],
        "data": config["data"],
        "fold": config["fold"],
        "kind": of_test.kind,
        "bound": of_test.bound,
        "particles": of_test.particles,
        "seed": seed,
        "items": len(test),
        "nats_per_item": of_test.nats_per_item,
        "against": results,
    }
    folder.write_json("anomaly.json", figures)
    if result is not None:
        RunFolder(result.parent).write_json(result.name, figures)
    write_atomically(out, to_png(log_prob_histograms(of_test.per_item, histograms)))
    _print(figures)
    say(f"figures are in {run / 'anomaly.json'}, histograms in {out}")


def area_under_curve(test: "Tensor", anomalous: "Tensor", *, paired: bool = False) -> tuple[float, float]:
    """Area under the ROC curve of a score that should be higher for test items, and its standard error.

    Of item i among the others, V_i is the share that it is on the right side of, ties by half; then the
    variance of the area is var(V_i) / m + var(V_j) / n over m test items i and n anomalies j (DeLong et al.,
    1988). Where anomaly i is made of test item i, the two are one draw, and it is var(V_i + V'_i) / n
    (Obuchowski, 1997, for clusters of two).

    Args:
        test: Scores of test items, shape ``(m,)``, at least 2.
        anomalous: Scores of anomalies, shape ``(n,)``, at least 2.
        paired: Whether anomaly i is made of test item i.

    Example:
        >>> import torch
        >>> area, error = area_under_curve(torch.tensor([3.0, 2.0, 0.0]), torch.tensor([1.0, 1.0]))
        >>> print(f"{area:.3f} ± {error:.3f}")
        0.667 ± 0.333
    """
    import torch
    from sklearn.metrics import roc_auc_score

    labels = torch.cat([torch.ones(len(test)), torch.zeros(len(anomalous))])
    area = float(roc_auc_score(labels.numpy(), torch.cat([test, anomalous]).numpy()))
    of_test = _share_below(test, anomalous)
    of_anomalous = 1 - _share_below(anomalous, test)
    if paired:
        variance = (of_test + of_anomalous).var() / len(test)
    else:
        variance = of_test.var() / len(test) + of_anomalous.var() / len(anomalous)
    return area, math.sqrt(variance.item())


def _share_below(scores: "Tensor", others: "Tensor") -> "Tensor":
    """For each score the share of the others that are lower, ties by half."""
    import torch

    others = others.sort().values
    below = torch.searchsorted(others, scores)
    not_above = torch.searchsorted(others, scores, right=True)
    return (below + not_above).double() / (2 * len(others))


def _fitting(dataset: "Dataset") -> list[str]:
    """The alterations that can be made of a data set's items."""
    shape = dataset.event_shape
    square = len(shape) > 1 and shape[-1] == shape[-2]
    fits = {"transposed": square, "noise": dataset.support.is_discrete, "shuffled": True}
    return [name for name in ALTERATIONS if fits[name]]


def _anomalies(name: str, dataset: "Dataset", test: "Tensor", items: int | None, seed: int) -> Anomalies:
    """The anomalies of a name, for the test items of a data set."""
    import torch

    if name in DESCRIPTIONS:
        return _other_data(name, dataset, items, seed)
    if name not in _fitting(dataset):
        needed = {"transposed": "square images", "noise": "binary entries or levels"}[name]
        raise UsageFault(f"--against {name} expects {needed}, which {dataset.name} has not")
    generator = torch.Generator().manual_seed(seed)
    if name == "transposed":
        return Anomalies(test.mT, "test images transposed", paired=True)
    if name == "shuffled":
        order = torch.rand(test.shape, generator=generator).argsort(0)
        return Anomalies(test.take_along_dim(order, 0), "entries exchanged between test items", paired=False)
    hit = torch.rand(test.shape, generator=generator) < NOISE_SHARE
    if hasattr(dataset.support, "upper_bound"):
        low, high = dataset.support.lower_bound, dataset.support.upper_bound
        noise = torch.randint(low, high + 1, test.shape, generator=generator, dtype=test.dtype)
        what = "set to any level"
    else:
        noise, what = 1 - test, "flipped"
    altered = torch.where(hit, noise, test)
    return Anomalies(altered, f"test items, {NOISE_SHARE:.0%} of the entries {what}", paired=True)


def _other_data(name: str, dataset: "Dataset", items: int | None, seed: int) -> Anomalies:
    """The test items of another data set, which must be of the same kind."""
    from zoo.data import load

    if name == dataset.name:
        raise UsageFault(f"--against {name} is what the model was trained on, and no anomaly")
    other = load(name, fold=dataset.fold if name.endswith("-wine") else None)
    if (other.event_shape, repr(other.support)) != (dataset.event_shape, repr(dataset.support)):
        raise UsageFault(
            f"--against {name} has items of another kind, {tuple(other.event_shape)}, {other.support}, than "
            f"{dataset.name}, {tuple(dataset.event_shape)}, {dataset.support}"
        )
    return Anomalies(_chosen(other.test.x, items, seed), f"test items: {other.description}", paired=False)


def _chosen(x: "Tensor", items: int | None, seed: int) -> "Tensor":
    """At most so many of the items, drawn without replacement: MNIST's first test items are its easy ones."""
    import torch

    if items is None or items >= len(x):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:items]]


def _in_words(auc: float, error: float) -> str:
    if abs(auc - 0.5) <= 2 * error:
        return "cannot tell"
    if auc < 0.5:
        return "takes the anomalies for likelier"
    steps = {0.7: "tells some", 0.9: "tells most", 1.0: "tells nearly all"}
    return next((words for step, words in steps.items() if auc < step), "tells all")


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console

    from zoo.cli.report import drawn, plain_table

    bound = "≤ " if figures["kind"] == "lower bound" else ""
    table = plain_table("items", "what they are", "nats", "AUC", "in words")
    table.add_row(
        "test", f"{figures['items']:,} test items", f"{bound}{figures['nats_per_item']:.2f}", "", ""
    )
    for name, result in figures["against"].items():
        table.add_row(
            name,
            result["description"],
            f"{bound}{result['nats_per_item']:.2f}",
            f"{result['auc']:.3f} ± {result['standard_error']:.3f}",
            _in_words(result["auc"], result["standard_error"]),
        )
    how = {
        "exact": "exact",
        "lower bound": f"bounded from above (≤):\nlog p(x) is bounded from below {drawn(figures)}",
        "estimate": f"estimated{', ' if drawn(figures) else ''}{drawn(figures)}",
    }
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"nats: -log p(x) per item, {how[figures['kind']]}\n"
        "AUC: how often a test item is likelier than an anomaly, 0.5 cannot tell, 1 tells all; ± its "
        "standard error (DeLong et al., 1988)"
    )
