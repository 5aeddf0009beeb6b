"""What the commands make of a GAN: the losses of both players, what goes wrong, rates of its own for each."""

import csv
import json

import pytest

from tests.cli.conftest import SMALL, call
from zoo.cli.pictures import losses_by_player
from zoo.cli.recipe import check_config
from zoo.cli.run_folder import RunFolder
from zoo.implicit import GAN


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that no test may change."""
    folder = tmp_path_factory.mktemp("implicit") / "run"
    assert call("train", "gan", *SMALL, "--out", folder) == 0
    return folder


def test_the_history_has_a_column_for_each_player_and_share(run):
    with open(run / "history.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["epoch", "train", "discriminator"]
    assert {*header} >= {"accuracy", "distinct", "valid", "lr"} and len(rows) == 3


def test_it_ends_with_samples_and_no_likelihood(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["finished"] and metrics["test"]["nats_per_item"] is None
    assert {path.name for path in run.glob("*.png")} == {"samples.png", "learning_curve.png"}
    assert json.loads((run / "config.json").read_text())["objective"] == "adversarial"


def test_the_learning_curve_has_a_panel_for_each_unit(run):
    folder = RunFolder(run)
    config, history = folder.config(), folder.history()
    players = ("discriminator", "generator")
    valid, losses, shares = losses_by_player(history, config, players).axes
    assert valid.get_ylabel() == "MMD², no unit" and len(valid.lines) == 1
    assert losses.get_ylabel() == "loss, nats"
    drawn = {line.get_label(): [*line.get_ydata()] for line in losses.lines}
    assert drawn == {
        "discriminator": [row["discriminator"] for row in history],
        "generator": [row["train"] for row in history],
    }
    assert [line.get_label() for line in shares.lines] == ["told apart", "distinct draws"]
    critic = {**config, "objective_arguments": {"loss": "wasserstein"}}
    assert losses_by_player(history, critic, players).axes[1].get_ylabel() == "loss, units of an item"
    coded = {**config, "objective": "adversarial-autoencoder"}
    assert losses_by_player(history, coded, players).axes[0].get_ylabel() == "loss, nats per item"
    alone = [{name: row[name] for name in ("epoch", "train", "discriminator", "lr")} for row in history]
    assert len(losses_by_player(alone, config, players).axes) == 1


@pytest.mark.usefixtures("without_pictures")
def test_what_goes_wrong_is_said_once_while_training(zoo, capsys, monkeypatch):
    monkeypatch.setattr("inference.adversarial.SETTLED", 1)
    monkeypatch.setattr("inference.adversarial.COLLAPSED", 2.0)  # what no generator reaches
    assert zoo("train", "gan", *SMALL, "--out", "run") == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("the generator has collapsed: in epoch 1 it has") == 1


@pytest.mark.usefixtures("without_pictures")
def test_a_recipe_may_have_a_rate_for_each_and_the_command_one_for_all(zoo, monkeypatch, tmp_path):
    recipe = GAN.recipes["digits"]
    rates = {"discriminator": 2e-3, "generator": 1e-3}
    fit = recipe["fit"] | {"lr": rates, "schedule": "constant", "betas": (0.5, 0.9)}
    monkeypatch.setattr(GAN, "recipes", {"digits": recipe | {"fit": fit}})
    assert zoo("train", "gan", *SMALL, "--out", "each") == 0
    config = RunFolder(tmp_path / "each").config()
    assert config["fit"]["lr"] == rates and config["fit"]["betas"] == [0.5, 0.9]
    assert RunFolder(tmp_path / "each").history()[-1]["lr"] == 1e-3
    assert zoo("train", "gan", *SMALL, "--out", "each") == 0, "the same configuration, as it was read"
    assert zoo("train", "gan", *SMALL, "--lr", 0.004, "--out", "all") == 0
    assert RunFolder(tmp_path / "all").history()[-1]["lr"] == 0.004


def test_runs_from_before_there_were_betas_had_those_of_adam(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    assert config["fit"].pop("betas")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert RunFolder(tmp_path).config()["fit"]["betas"] == [0.9, 0.999]
    check_config(RunFolder(tmp_path).config(), tmp_path)
