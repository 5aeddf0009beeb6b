"""How the draws of a model compare with test items, where there is no likelihood, or beside one."""

import functools
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.cli.report import PROBE_ITEMS, counted, one_process, quiet_lightning

if TYPE_CHECKING:
    from zoo.cli.run_folder import RunFolder
    from zoo.data import Dataset
    from zoo.model import GenerativeModel

MOST_ITEMS = 2000
"""Test items, at most, that draws are compared with, and as many draws where no number is asked for."""

TESTED = 500
"""Items of each set, at most, that the two-sample test tells apart."""

CHANNELS, FEATURES = (16, 32), 32
"""Widths of the classifier whose last hidden layer gives the features: few, for few items."""

SMALL = 100
"""Entries of an item up to which `zoo compare` draws from every model: a pixel at a time takes its time."""


@dataclass(frozen=True)
class Judge:
    """A classifier of real items, for what its last hidden layer makes of draws.

    Attributes:
        network: From the entries of items to the logits of the labels.
        accuracy: Share of test items whose label it gets right.
        centre: Mean of each feature over training items, shape ``(features,)``.
        spread: Its standard deviation.
    """

    network: nn.Sequential
    accuracy: float
    centre: Tensor
    spread: Tensor

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, each feature of mean 0 and variance 1 over training items."""
        return (self.network[:-1](x.float()) - self.centre) / self.spread


def sample_figures(
    model: "GenerativeModel", dataset: "Dataset", *, draws: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Draws against test items, and under ``real`` validation items against the same, which is the yardstick.

    The Fréchet distance and precision and recall look at the features of a classifier that was trained on the
    real training items; where they are no images or have no labels, precision and recall look at the entries
    and there is no Fréchet distance. MMD² and the two-sample test look at the entries.

    Args:
        model: A trained model.
        dataset: What it was trained on.
        draws: How many; None is as many as there are test items, 2,000 at most.
        seed: Of the draws.

    Raises:
        FloatingPointError: If a draw is no finite number.
    """
    started = time.monotonic()
    test = dataset.test.x[:MOST_ITEMS]
    drawn = model.sample(draws or len(test), seed=seed).to(test.device)
    if drawn.is_floating_point() and not drawn.isfinite().all():
        raise FloatingPointError(f"some draws of {type(model).__name__} are no finite numbers")
    judge = judge_of(dataset.name, dataset.fold) if _is_judged(dataset) else None
    figures = {"draws": len(drawn), "items": len(test), **_compared(drawn, test, judge)}
    if judge is not None:
        figures["judge"] = {"accuracy": judge.accuracy, "features": len(judge.centre)}
    figures["real"] = _yardstick(dataset.name, dataset.fold)
    figures["seconds"] = round(time.monotonic() - started, 1)
    return figures


def has_sample_figures(dataset: "Dataset") -> bool:
    """Whether draws can be compared with items at all: not those of texts and sounds, one long sequence."""
    return dataset.alphabet is None and dataset.rate is None


def figures_of_row(run: "RunFolder", dataset: "Dataset") -> dict[str, Any] | None:
    """What a comparison says of the draws of a run: its metrics' own, or else those kept in ``samples.json``.

    None where items are large, so that drawing would take long, or where there is no drawing.
    """
    samples = run.metrics().get("samples")
    if samples is not None and samples["draws"] == samples["items"]:  # else it is not as the others'
        return samples
    is_cheap = _is_judged(dataset) and dataset.event_shape.numel() <= SMALL
    if samples is None and not is_cheap:
        return None
    path = run.path / "samples.json"
    if path.exists():
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            if figures.keys() >= {"draws", "items", "mmd", "real"}:
                return figures
        except (ValueError, AttributeError):
            pass  # damaged; they are computed anew
    try:
        figures = sample_figures(run.load_model(), dataset)
    except (ArithmeticError, ValueError, RuntimeError):  # for instance an inverse that does not converge
        if samples is not None:  # it is compared by nothing else
            raise
        return None
    run.write_json("samples.json", figures)
    return figures


@functools.cache
def judge_of(name: str, fold: int | None) -> Judge:
    """The classifier of a data set, trained anew in each process that asks for it: the same every time.

    Args:
        name: Of a data set with labels.
        fold: Its fold; None where it has none.
    """
    import inference
    from zoo.data import load

    dataset = load(name, fold=fold)  # with every label
    x, y = dataset.train.x[:PROBE_ITEMS].float(), dataset.train.y[:PROBE_ITEMS]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = _classifier(dataset.event_shape, dataset.num_classes)
    network[2].weight.data /= x.std()  # levels may go up to 255
    with one_process(), quiet_lightning():
        inference.fit(
            inference.CrossEntropy(network),
            (x, y),
            valid=(dataset.valid.x.float(), dataset.valid.y),
            epochs=30,
            lr=5e-3,
            patience=5,
            accelerator="cpu",
            progress=False,
        )
    network.eval()
    with torch.no_grad():
        features = network[:-1](x)
        right = network(dataset.test.x.float()).argmax(-1) == dataset.test.y
    return Judge(network, right.double().mean().item(), features.mean(0), features.std(0).clamp(min=1e-6))


def sample_rows(samples: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table on the draws: figure, value, explanation with the figure of real items."""
    real = samples["real"]
    rows = []
    if "frechet" in samples:
        judge = samples["judge"]
        rows.append(
            (
                "draws, Fréchet distance",
                f"{samples['frechet']:.2f} ± {samples['frechet_error']:.2f}",
                f"to test items, lower is better, real items {real['frechet']:.2f}; {judge['features']} "
                f"features of a classifier that gets {judge['accuracy']:.1%} of test items right",
            )
        )
    by = "by features" if "frechet" in samples else "by their entries"
    rows += [
        (
            "draws, MMD²",
            f"{samples['mmd']:.4f} ± {samples['mmd_error']:.4f}",
            f"to test items, 0 is of one law, lower is better; real items {real['mmd']:.4f}",
        ),
        (
            "draws told from real",
            f"{samples['told_apart']:.1%} ± {samples['told_apart_error']:.1%}",
            f"by a classifier, where 50% is guessing (p = {samples['told_apart_p']:.2g}); real items "
            f"{real['told_apart']:.1%}",
        ),
        (
            "draws, precision",
            f"{samples['precision']:.1%}",
            f"are like test items, {by}: higher is better, real items {real['precision']:.1%}",
        ),
        (
            "draws, recall",
            f"{samples['recall']:.1%}",
            f"of test items are like draws, {by}: higher is better, real items {real['recall']:.1%}",
        ),
        (
            "draws compared",
            f"{samples['draws']:,}",
            f"with {counted(samples['items'], 'test item')}; real items are {real['draws']:,} for validation",
        ),
    ]
    return rows


def _is_judged(dataset: "Dataset") -> bool:
    return dataset.num_classes is not None and len(dataset.event_shape) > 1 and has_sample_figures(dataset)


def _classifier(event_shape: torch.Size, num_classes: int) -> nn.Sequential:
    """Two convolutions and a dense layer of features."""
    *channels, height, width = event_shape
    image = (math.prod(channels), height, width)
    size = CHANNELS[1] * math.ceil(height / 2) * math.ceil(width / 2)
    return nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, image),
        nn.Conv2d(image[0], CHANNELS[0], 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, padding=1, stride=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(size, FEATURES),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(FEATURES, num_classes),
    )


@functools.cache
def _yardstick(name: str, fold: int | None) -> dict[str, Any]:
    """Validation items, as many as there may be draws, against test items."""
    from zoo.data import load

    dataset = load(name, fold=fold)
    test = dataset.test.x[:MOST_ITEMS]
    valid = dataset.valid.x[: len(test)]
    judge = judge_of(name, fold) if _is_judged(dataset) else None
    return {"draws": len(valid), **_compared(valid, test, judge)}


def _compared(drawn: Tensor, real: Tensor, judge: Judge | None) -> dict[str, float]:
    """The figures of one set of items against test items."""
    import inference

    entries, of_real = drawn.flatten(1).double(), real.flatten(1).double()
    mmd = inference.maximum_mean_discrepancy(entries, of_real)
    told = inference.classifier_two_sample_test(entries[:TESTED], of_real[:TESTED], permutations=200)
    figures = {
        "mmd": mmd.value,
        "mmd_error": mmd.standard_error,
        "told_apart": told.accuracy,
        "told_apart_error": told.standard_error,
        "told_apart_p": told.p_value,
    }
    features, of_real = (entries, of_real) if judge is None else map(judge.features, (drawn, real))
    if judge is not None:
        figures["frechet"] = inference.frechet_distance(features, of_real)
        figures["frechet_error"] = inference.frechet_error(features, of_real)
    figures["precision"], figures["recall"] = inference.precision_recall(of_real, features)
    return figures
