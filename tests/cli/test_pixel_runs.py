"""Runs of the models of pixels: by label, from training to completion, and what a pixel sees."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
from tests.cli.conftest import call
from zoo import PixelCNN
from zoo.cli.complete import by_label, shown
from zoo.cli.pixel_pictures import receptive_field
from zoo.cli.run_folder import RunFolder
from zoo.data import load

TINY = ("--set", "hidden=4", "--set", "layers=1", "--epochs", "1", "--accelerator", "cpu")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """A trained run by label that no test may change."""
    folder = tmp_path_factory.mktemp("pixels") / "by-label"
    assert call("train", "pixel-cnn", *TINY, "--set", "num_classes=10", "--out", folder) == 0
    return folder


def test_a_run_by_label_has_its_figures_and_pictures(labelled):
    metrics = json.loads((labelled / "metrics.json").read_text())
    assert metrics["test"]["kind"] == "exact"
    assert 0 <= metrics["accuracy"] <= 1 and 0 <= metrics["generated_as_asked"]["share"] <= 1
    assert "accuracy_classifier_alone" not in metrics, "p(y | x) is no network that could be trained alone"
    for picture in ("samples", "labels", "receptive_field", "learning_curve"):
        assert (labelled / f"{picture}.png").read_bytes().startswith(b"\x89PNG"), picture


def test_draws_by_label(zoo, labelled, tmp_path):
    out = tmp_path / "threes.npy"
    assert zoo("sample", labelled, "--label", 3, "--num", 5, "--seed", 2, "--out", out) == 0
    model = RunFolder(labelled).load_model()
    assert torch.equal(torch.from_numpy(np.load(out)), model.sample(5, seed=2, y=3))


@pytest.mark.parametrize("label", [None, 8])
def test_completions_by_label(zoo, labelled, tmp_path, capsys, label):
    out = tmp_path / "draws.npy"
    options = () if label is None else ("--label", label)
    assert zoo("complete", labelled, "--items", 5, "--num", 2, *options, "--out", out) == 0
    assert "ancestral: exact" in " ".join(capsys.readouterr().out.split())
    draws = torch.from_numpy(np.load(out))
    test = load("digits").test
    observed = shown("bottom", test.x[:5], 0)
    model = RunFolder(labelled).load_model()
    for item, own in enumerate(test.y[:5].tolist()):
        asked = own if label is None else label
        of_label = torch.full((5,), label) if label is not None else test.y[:5]
        place = (of_label[:item] == asked).sum()
        group = (of_label == asked).nonzero().flatten()
        expected = inference.complete(
            model.given(asked), test.x[group], observed[group], num=2, seed=asked, progress=False
        )
        assert torch.equal(draws[:, item], expected.draws[:, place]), item


def test_what_completions_are_worth_stays_with_its_image():
    model = PixelCNN((3, 3), 4, 1, num_classes=3)
    x, y = model.sample(4, y=torch.tensor([2, 0, 2, 1])), torch.tensor([2, 0, 2, 1])
    observed = torch.rand(4, 3, 3) < 0.5
    settings = {"num": 3, "particles": 30, "seed": 0, "progress": False}
    together = by_label(model, x, y, observed, settings)
    for item in (1, 3):
        own_seed = {**settings, "seed": int(y[item])}
        alone = inference.complete(model.given(int(y[item])), x[[item]], observed[[item]], **own_seed)
        for name in ("effective_sample_size", "log_evidence", "log_evidence_error"):
            assert torch.equal(getattr(together, name)[item], getattr(alone, name)[0]), name
        assert torch.equal(together.draws[:, item], alone.draws[:, 0])


def test_labels_that_cannot_be_are_refused(refused, labelled, tmp_path):
    assert refused("sample", labelled, "--label", 10) == "zoo: --label expects one of 0 to 9, got 10"
    assert refused("complete", labelled, "--label", -1) == "zoo: --label expects one of 0 to 9, got -1"
    plain = Path(shutil.copytree(labelled, tmp_path / "plain"))
    config = json.loads((plain / "config.json").read_text())
    del config["arguments"]["num_classes"]
    (plain / "config.json").write_text(json.dumps(config))
    weights = plain / "model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: w for name, w in load_file(weights).items() if "of_label" not in name}, weights)
    line = refused("complete", plain, "--label", 3)
    assert line == "zoo: --label expects a model of pixels by label, and PixelCNN here is none"


def test_what_a_pixel_does_not_see_is_white():
    model = PixelCNN((9, 9), 4, 1, first_kernel_size=3)
    figure = receptive_field(model, model.sample(3), None)
    shown_values = figure.axes[0].images[0].get_array()
    seen = model.influence(model.sample(3), 6, 4) > 0
    assert seen.any() and not seen.all()
    hidden = np.isnan(np.ma.filled(shown_values.astype(float), np.nan))
    assert (hidden == ~seen.numpy()).all()


def test_labels_may_not_be_hidden_from_a_model_that_needs_them(refused):
    line = refused("train", "pixel-cnn", *TINY, "--set", "num_classes=10", "--labels", 100, "--out", "run")
    assert line == (
        "zoo: --labels expects a model that learns from items without one too, and pixel-cnn does not"
    )
