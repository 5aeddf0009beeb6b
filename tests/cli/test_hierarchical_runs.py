"""What the commands make of a hierarchical VAE: what each layer tells, the warm-up of its recipe."""

import json
import shutil

import matplotlib.image
import pytest
import torch

from tests.cli.conftest import call
from zoo.cli.run_folder import RunFolder
from zoo.data import load

OPTIONS = ("--set", "hidden=((8,),(4,))", "--epochs", "2", "--accelerator", "cpu")


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that no test may change."""
    folder = tmp_path_factory.mktemp("hierarchical") / "run"
    assert call("train", "hierarchical-vae", *OPTIONS, "--evaluation-particles", 5, "--out", folder) == 0
    return folder


def test_metrics_hold_what_each_layer_tells(run):
    layers = read(run / "metrics.json")["layers"]
    model, test = RunFolder(run).load_model(), load("digits").test.x
    torch.manual_seed(0)
    found = torch.cat([model.divergences(x, num_draws=100) for x in test.split(100)])
    expected = found.double().mean(0).tolist()
    assert layers == {"kl": pytest.approx(expected), "draws": 100}
    assert expected[0] != pytest.approx(expected[1], rel=0.3)


@pytest.mark.usefixtures("without_pictures")
def test_evaluating_anew_prints_a_row_for_each_layer(zoo, run, tmp_path, capsys):
    own = shutil.copytree(run, tmp_path / "own")
    before = read(own / "metrics.json")["layers"]
    (own / "metrics.json").write_text(json.dumps(read(own / "metrics.json") | {"layers": None}))
    assert zoo("evaluate", own, "--particles", 5) == 0
    assert read(own / "metrics.json")["layers"] == before
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for layer, divergence in enumerate(before["kl"], start=1):
        (row,) = (line for line in lines if line.startswith(f"KL of z_{layer}, nats"))
        assert f"{divergence:.2f}" in row


def test_the_warm_up_of_the_recipe_reaches_the_objective(run):
    config = read(run / "config.json")
    assert config["objective"] == "elbo" and config["objective_arguments"]["warm_up"] > 0
    assert config["arguments"]["hidden"] == [[8], [4]]


def test_traversals_go_through_the_top_layer(run):
    assert {path.name for path in run.glob("*.png")} == {
        *("samples.png", "reconstructions.png", "traversals.png", "learning_curve.png")
    }
    assert matplotlib.image.imread(run / "traversals.png").std() > 0


def test_another_model_has_no_such_figures(trained):
    assert "layers" not in read(trained / "vae" / "metrics.json")


@pytest.mark.usefixtures("without_pictures")
def test_widths_that_do_not_suit_the_layers_are_refused(refused):
    line = refused("train", "hierarchical-vae", "--set", "hidden=((8,),)", "--out", "run")
    assert "hidden must hold the widths of each of 2 layers" in line
