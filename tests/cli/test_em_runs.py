"""Runs whose objective is reached by EM: their options, files, resumption and refusals."""

import json
import re

import pytest

from tests.cli.conftest import call, contents

COINS = ("bernoulli-mixture", "--set", "num_components=5", "--restarts", "2", "--epochs", "6")
WINE = (
    "gaussian-mixture",
    "--data",
    "red-wine",
    "--fold",
    "1",
    "--set",
    "num_components=2",
    "--restarts",
    "1",
)


@pytest.fixture(scope="module")
def coins(tmp_path_factory):
    """A run that no test may change."""
    out = tmp_path_factory.mktemp("em") / "coins"
    assert call("train", *COINS, "--out", out) == 0
    return out


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_run_folder_of_em(coins):
    config = json.loads((coins / "config.json").read_text())
    assert config["objective"] == "em"
    assert config["fit"] == {"epochs": 6, "tolerance": 1e-6, "restarts": 2, "patience": None}
    found = metrics(coins)
    assert found["finished"] and found["objective"] == "em" and found["epochs"] <= 6
    assert found["test"]["kind"] == "exact" and found["train"]["items"] == 1297
    assert "probe" in found
    assert {"components.png", "samples.png", "learning_curve.png"} <= set(contents(coins))
    header, *rows = (coins / "history.csv").read_text().splitlines()
    assert header == "epoch,train,valid" and len(rows) == found["epochs"]
    assert not (coins / "checkpoint.pt").exists()


def test_same_command_same_bits(coins, zoo, tmp_path):
    assert zoo("train", *COINS, "--out", tmp_path / "again") == 0
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (coins / weights).read_bytes()


def test_a_finished_run_is_left_and_evaluated_and_drawn_from(coins, zoo, capsys):
    before = contents(coins)
    assert zoo("train", *COINS, "--out", coins) == 0
    assert "is trained already" in capsys.readouterr().out
    assert contents(coins) == before
    assert zoo("evaluate", coins) == 0
    found = json.loads(before["metrics.json"])["test"]["nats_per_item"]
    assert metrics(coins)["test"]["nats_per_item"] == found
    assert zoo("sample", coins, "--out", "drawn.png") == 0


@pytest.mark.usefixtures("without_pictures")
def test_it_can_start_from_another_run(coins, zoo, tmp_path):
    assert zoo("train", *COINS[:-4], "--epochs", 2, "--init", coins, "--out", tmp_path / "on") == 0
    assert metrics(tmp_path / "on")["train"]["nats_per_item"] < metrics(coins)["train"]["nats_per_item"]


@pytest.mark.usefixtures("without_pictures")
def test_the_tolerance_ends_it(zoo, tmp_path):
    assert zoo("train", *COINS[:-2], "--epochs", 500, "--tolerance", 0.05, "--out", tmp_path / "run") == 0
    assert 1 < metrics(tmp_path / "run")["epochs"] < 60


@pytest.mark.usefixtures("without_pictures")
def test_measurements(zoo, tmp_path):
    assert zoo("train", *WINE, "--epochs", 5, "--out", tmp_path / "run") == 0
    assert metrics(tmp_path / "run")["gaussian"]["nats_per_item"] > 0


@pytest.mark.usefixtures("without_pictures")
def test_by_gradient_instead(zoo, tmp_path):
    """What the recipe says of EM is not taken for a training by gradients."""
    options = ("--set", "num_components=3", "--objective", "maximum-likelihood", "--epochs", 2, "--lr", 0.05)
    assert zoo("train", "bernoulli-mixture", *options, "--out", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"]["lr"] == 0.05 and "restarts" not in config["fit"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("bernoulli-mixture", "--lr", 0.1),
            "EM takes no --lr, only --epochs, --tolerance, --restarts, --pat",
        ),
        (("bernoulli-mixture", "--batch-size", 7), "EM takes no --batch-size"),
        (("bernoulli-mixture", "--compile"), "EM takes no --compile"),
        (("vae", "--restarts", 3), "--restarts is for EM, and the objective is elbo"),
        (("vae", "--tolerance", 0.1), "--tolerance is for EM, and the objective is elbo"),
        (("vae", "--objective", "em"), "vae has none; elbo can train it"),
        (("bernoulli-mixture", "--devices", 2), "EM runs in one process on the CPU, asked for 2 of auto"),
        (("bernoulli-mixture", "--labels", 5), "--labels expects a model with labels"),
        (
            ("bernoulli-mixture", "--set", "num_components=0"),
            "num_components must be an integer of at least 1, got 0",
        ),
    ],
)
def test_what_em_does_not_take_is_refused(arguments, expected, refused, tmp_path):
    assert expected in refused("train", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_singular_covariance_ends_in_one_line_that_says_what_to_do(refused, tmp_path):
    said = refused(
        *("train", "gaussian-mixture", "--data", "red-wine", "--fold", 0, "--set", "num_components=300"),
        *("--set", "pseudo_count=0.0", "--restarts", 1, "--out", tmp_path / "run"),
    )
    assert re.search(r"covariance of component \d+.* is singular", said) and "pseudo_count above 0" in said


def test_a_damaged_configuration_is_noticed(coins, refused, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = json.loads((coins / "config.json").read_text())
    config["fit"]["lr"] = 0.1
    (run / "config.json").write_text(json.dumps(config))
    assert "there is no fit.lr" in refused("evaluate", run)
