"""What the commands make of a run of a flow: of levels, where the density is a bound, and of real entries."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tests.cli.conftest import call, contents
from zoo.flows.fixed_point import ConvergenceError
from zoo.flows.mintnet import MintNet

LEVELS = ("--data", "digits-levels", "--epochs", "1", "--accelerator", "cpu")
SMALL_MINTNET = (*LEVELS, "--set", "layers=2", "--set", "hidden=4")


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs that no test may change: ``nice`` and ``mintnet`` of levels, ``realnvp`` of one fold of wines."""
    folder = tmp_path_factory.mktemp("flows")
    assert call("train", "nice", *LEVELS, "--set", "hidden=(16,)", "--out", folder / "nice") == 0
    assert call("train", "mintnet", *SMALL_MINTNET, "--out", folder / "mintnet") == 0
    wine = ("--data", "red-wine", "--fold", "0", "--epochs", "1", "--set", "hidden=(8,)")
    assert call("train", "realnvp", *wine, "--accelerator", "cpu", "--out", folder / "realnvp") == 0
    return folder


@pytest.fixture
def own(runs, tmp_path):
    """Copies a run to where a test may change it."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("nice", {"samples.png", "interpolations.png", "learning_curve.png"}),
        ("mintnet", {"samples.png", "interpolations.png", "inversion.png", "learning_curve.png"}),
        ("realnvp", {"samples.png", "learning_curve.png"}),
    ],
)
def test_a_run_holds_the_pictures_of_its_model(runs, name, pictures):
    assert {path.name for path in (runs / name).glob("*.png")} == pictures


@pytest.mark.parametrize("name", ["nice", "mintnet"])
def test_levels_have_the_elbo_of_the_recipe(runs, name):
    test = read(runs / name / "metrics.json")["test"]
    assert (test["kind"], test["bound"], test["particles"]) == ("lower bound", "elbo", 10)
    assert 0 < test["monte_carlo_error"] < test["standard_error"]
    assert 0 < test["bits_per_dim"] < 5


def test_real_entries_have_an_exact_density(runs):
    metrics = read(runs / "realnvp" / "metrics.json")
    assert (metrics["test"]["kind"], metrics["test"]["bound"]) == ("exact", None)
    assert {"train", "gaussian"} <= metrics.keys()


def test_importance_weights_bound_more_tightly_than_the_elbo(zoo, own, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    run = own("nice")
    before = read(run / "metrics.json")["test"]
    assert zoo("evaluate", run, "--bound", "importance-weighted") == 0
    assert "10 importance samples per item" in capsys.readouterr().out
    after = read(run / "metrics.json")["test"]
    assert after["particles"] == 10 and after["nats_per_item"] < before["nats_per_item"] - 0.1


@pytest.mark.parametrize("name", ["nice", "mintnet"])
def test_draws_of_levels_are_levels(zoo, own, tmp_path, name):
    run = own(name)
    assert zoo("sample", run, "--num", 20, "--out", "drawn.npy") == 0
    drawn = np.load(tmp_path / "drawn.npy", allow_pickle=False)
    assert drawn.dtype == np.int64 and drawn.shape == (20, 8, 8)
    assert drawn.min() == 0 and drawn.max() == 16
    assert zoo("sample", run) == 0
    assert matplotlib.image.imread(run / "drawn.png").shape[0] > 100


def test_a_picture_of_draws_has_the_ink_of_their_levels(zoo, own, monkeypatch):
    seen = []
    monkeypatch.setattr("zoo.cli.pictures.item_grid", lambda items, **settings: seen.append(settings))
    monkeypatch.setattr("zoo.cli.pictures.to_png", lambda figure: b"")
    assert zoo("sample", own("nice")) == 0
    assert [settings["highest"] for settings in seen] == [16]


def test_draws_of_real_entries_are_numbers(zoo, runs, tmp_path):
    assert zoo("sample", runs / "realnvp", "--num", 20, "--out", "drawn.npy") == 0
    drawn = np.load(tmp_path / "drawn.npy", allow_pickle=False)
    assert drawn.dtype == np.float32 and drawn.shape == (20, 11) and np.isfinite(drawn).all()


def test_anomalies_are_told_by_the_bound_of_the_run(zoo, own, capsys):
    run = own("mintnet")
    assert zoo("anomaly", run, "--against", "transposed") == 0
    figures = read(run / "anomaly.json")
    test = read(run / "metrics.json")["test"]
    assert (figures["kind"], figures["bound"], figures["particles"]) == ("lower bound", "elbo", 10)
    assert figures["nats_per_item"] == pytest.approx(test["nats_per_item"])
    assert figures["against"]["transposed"]["auc"] > 0.9
    shown = " ".join(capsys.readouterr().out.split())
    assert "bounded from below by the ELBO, mean over 10 draws of noise per item" in shown


def test_anomalies_of_real_entries_are_told_by_the_exact_density(zoo, own):
    run = own("realnvp")
    assert zoo("anomaly", run) == 0
    figures = read(run / "anomaly.json")
    assert (figures["kind"], figures["bound"], list(figures["against"])) == ("exact", None, ["shuffled"])


@pytest.mark.parametrize(("name", "said"), [("nice", "got v, x"), ("realnvp", "are vectors")])
def test_a_flow_completes_nothing(refused, own, name, said):
    run = own(name)
    before = contents(run)
    assert said in refused("complete", run)
    assert contents(run) == before


def test_an_inverse_that_does_not_converge_ends_in_one_line(refused, own, monkeypatch):
    def fail(self, z):
        raise ConvergenceError("the inverse of 3 of 64 items did not converge", [0, 1, 2])

    run = own("mintnet")
    monkeypatch.setattr(MintNet, "decode", fail)
    assert "3 of 64 items did not converge" in refused("sample", run, code=1)
    assert not (run / "drawn.png").exists()


def test_a_mistake_of_ours_is_not_passed_off_as_a_fault_of_the_surroundings(runs, monkeypatch):
    from zoo.cli import main

    def fail(self, z):
        raise ZeroDivisionError

    monkeypatch.setattr(MintNet, "decode", fail)
    with pytest.raises(ZeroDivisionError):
        main(["sample", str(runs / "mintnet")])


def test_a_training_whose_pictures_cannot_be_drawn_keeps_its_figures(zoo, tmp_path, monkeypatch, capsys):
    def fail(self, z):
        raise ConvergenceError("the inverse of 3 of 96 items did not converge", [0, 1, 2])

    monkeypatch.setattr(MintNet, "decode", fail)
    assert zoo("train", "mintnet", *SMALL_MINTNET, "--out", "run") == 0
    assert "samples.png is not drawn: the inverse of 3 of 96 items" in capsys.readouterr().out
    assert read(tmp_path / "run" / "metrics.json")["finished"]


def test_weights_that_give_no_number_name_the_layer(refused, own):
    import torch
    from safetensors.torch import load_file, save_file

    run = own("nice")
    weights = load_file(run / "model.safetensors")
    name = next(name for name in weights if name.endswith("bias"))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, run / "model.safetensors")
    for command in ("evaluate", "anomaly", "sample"):
        line = refused(command, run, code=1)
        assert "layer " in line and "Coupling) gives a " in line
