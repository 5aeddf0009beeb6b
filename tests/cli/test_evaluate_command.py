"""``zoo evaluate`` and ``zoo sample``: what they write, and run folders that are no good."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import contents


def read(path):
    return json.loads(path.read_text())


def change(path, **entries):
    path.write_text(json.dumps({**read(path), **entries}))


@pytest.mark.usefixtures("without_pictures")
def test_evaluating_anew_gives_the_same_figures(zoo, run, capsys):
    before = read(run / "metrics.json")
    assert zoo("evaluate", run) == 0
    after = read(run / "metrics.json")
    for metrics in (before, after):
        del metrics["test"]["seconds"]
    assert after == before
    assert "nats per item" in capsys.readouterr().out


@pytest.mark.usefixtures("without_pictures")
def test_particles_and_seed_change_the_figure_and_not_the_training(zoo, run):
    before = read(run / "metrics.json")
    figures = []
    for seed in (0, 1):
        assert zoo("evaluate", run, "--particles", 2, "--seed", seed) == 0
        figures.append(read(run / "metrics.json")["test"]["nats_per_item"])
    assert len({*figures, before["test"]["nats_per_item"]}) == 3
    assert min(figures) > before["test"]["nats_per_item"], "fewer particles bound less tightly"
    after = read(run / "metrics.json")
    assert after["seconds"] == before["seconds"]
    assert after["test"]["particles"] == 2


@pytest.mark.usefixtures("without_pictures")
def test_the_bound_that_was_asked_for_is_reported(zoo, run):
    figures = {}
    for bound in ("importance-weighted", "elbo"):
        assert zoo("evaluate", run, "--particles", 3, "--bound", bound) == 0
        figures[bound] = read(run / "metrics.json")["test"]
        assert figures[bound]["bound"] == bound
    assert figures["elbo"]["nats_per_item"] > figures["importance-weighted"]["nats_per_item"]
    assert read(run / "config.json")["bound"] == "importance-weighted"


@pytest.mark.usefixtures("without_pictures")
def test_the_bound_of_the_run_is_the_one_that_is_reported(zoo, run):
    change(run / "config.json", bound="elbo")
    assert zoo("evaluate", run, "--particles", 1) == 0
    test = read(run / "metrics.json")["test"]
    assert (test["bound"], test["particles"]) == ("elbo", 1)
    assert test["monte_carlo_error"] is None, "a single draw shows no spread, and JSON has no NaN"


def test_an_unknown_bound_is_refused(refused, run):
    before = contents(run)
    line = refused("evaluate", run, "--bound", "elb")
    assert "unknown bound 'elb'" in line and "importance-weighted, elbo" in line
    assert contents(run) == before


def test_pictures_are_drawn_anew(zoo, run):
    (run / "samples.png").unlink()
    assert zoo("evaluate", run, "--particles", 2) == 0
    assert (run / "samples.png").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_run_without_metrics_gets_some(zoo, run):
    (run / "metrics.json").unlink()
    assert zoo("evaluate", run, "--particles", 2) == 0
    metrics = read(run / "metrics.json")
    assert {"model", "data", "objective", "epochs", "seconds", "parameters", "seed", "test"} <= metrics.keys()
    assert metrics["epochs"] == 3


def test_no_particles_are_refused(refused, run):
    assert "--particles" in refused("evaluate", run, "--particles", 0)
    assert "--seed" in refused("evaluate", run, "--seed", -1)


# Folders that are no runs, or no whole ones

DAMAGED = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "binary": lambda data: b"\xff\x00",
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.json", "history.csv"])
def test_a_damaged_file_is_named_and_everything_kept(zoo, refused, run, name, damage):
    path = run / name
    path.write_bytes(DAMAGED[damage](path.read_bytes()))
    before = contents(run)
    if (name, damage) == ("history.csv", "empty"):  # no epoch: nothing to draw
        assert zoo("evaluate", run, "--particles", 2) == 0
        return
    assert f"{name} is damaged" in refused("evaluate", run, "--particles", 2)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("name", "said"), [("config.json", "no run folder"), ("model.safetensors", "no trained model yet")]
)
def test_an_absent_file_is_named(refused, run, name, said):
    (run / name).unlink()
    for command in ("evaluate", "sample"):
        line = refused(command, run)
        assert said in line and name in line


def test_an_absent_history_is_not_missed(zoo, run):
    (run / "history.csv").unlink()
    assert zoo("evaluate", run, "--particles", 2) == 0


def test_what_is_no_run_folder_is_said_to_be_none(refused, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in ("evaluate", "sample"):
        assert "no run folder nowhere" in refused(command, "nowhere")
        assert "no run folder" in refused(command, run / "config.json")
        assert "no run folder" in refused(command, "empty")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"model": "vaee"}, ["unknown model 'vaee' in", "config.json", "did you mean vae?"]),
        ({"data": "imagenet"}, ["unknown data set 'imagenet' in", "config.json", "digits"]),
        ({"model": 3}, ["config.json is damaged", "model must be str"]),
        ({"event_shape": "8x8"}, ["event_shape must be list"]),
        ({"event_shape": ["a"]}, ["cannot be built"]),
        ({"event_shape": [28, 28]}, ["belongs to another model"]),
        ({"arguments": [1]}, ["arguments must be dict"]),
        ({"arguments": {"depth": 3}}, ["depth=3", "hidden"]),
        ({"arguments": {"latent_dim": 10, "hidden": [9]}}, ["belongs to another model"]),
        ({"fit": 7}, ["fit must be dict"]),
        ({"fit": {}}, ["it has no fit.epochs"]),
        ({"particles": "many"}, ["particles must be int"]),
        ({"bound": 3}, ["bound must be str"]),
        ({"bound": "elbow"}, ["unknown bound 'elbow' in", "config.json", "did you mean elbo?"]),
        ({"seed": None}, ["seed must be int"]),
        ({"fold": 3}, ["no folds"]),
        ({"data": "digits-levels"}, ["VAE expects"]),
        ({"labels": 5000}, ["1297", "5000"]),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(refused, run, entries, said):
    change(run / "config.json", **entries)
    before = contents(run)
    line = refused("evaluate", run, "--particles", 2)
    assert [words for words in said if words not in line] == [], line
    assert contents(run) == before


@pytest.mark.parametrize("content", ["[1, 2]", '"run"', "null", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(refused, run, content):
    (run / "config.json").write_text(content)
    assert "config.json is damaged" in refused("evaluate", run)


def test_an_unknown_setting_of_the_training_is_refused(refused, run):
    change(run / "config.json", fit={**read(run / "config.json")["fit"], "nesterov": True})
    assert "no fit.nesterov" in refused("evaluate", run)


def test_metrics_of_something_else_are_refused(refused, run):
    (run / "metrics.json").write_text('{"accuracy": 1.0}')
    assert "metrics.json is damaged" in refused("evaluate", run, "--particles", 2)


@pytest.mark.parametrize("number", ["many", "nan"])
def test_weights_of_another_run_are_refused(refused, run, supervised_run, number):
    if number == "many":
        shutil.copy(supervised_run / "model.safetensors", run)
    else:
        weights = load_file(run / "model.safetensors")
        weights["decoder.layers.2.bias"] = torch.zeros(65)
        save_file(weights, run / "model.safetensors")
    assert "belongs to another model" in refused("evaluate", run)
    assert "belongs to another model" in refused("sample", run)


# Draws


def test_draws_are_a_picture_in_the_run_folder(zoo, run, capsys):
    before = contents(run)
    assert zoo("sample", run, "--num", 1) == 0
    assert capsys.readouterr().out == f"wrote 1 item to {run / 'drawn.png'}\n"
    assert set(contents(run)) - set(before) == {"drawn.png"}


def test_draws_are_numbers_that_the_seed_decides(zoo, run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert zoo("sample", run, "--num", 20, "--seed", seed, "--out", f"{name}.npy") == 0
    a, b, c = (np.load(tmp_path / f"{name}.npy", allow_pickle=False) for name in "abc")
    assert a.shape == (20, 8, 8) and set(np.unique(a)) == {0, 1}
    assert (a == b).all() and (a != c).any()


def test_a_label_conditions_the_draws(zoo, supervised_run, tmp_path):
    assert zoo("sample", supervised_run, "--label", 3) == 0
    assert (supervised_run / "drawn-3.png").exists()
    for label in (0, 1):
        assert zoo("sample", supervised_run, "--label", label, "--out", f"{label}.npy") == 0
    assert (np.load(tmp_path / "0.npy") != np.load(tmp_path / "1.npy")).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--num", "0"), "--num"),
        (("--num", "5000"), "--out FILE.npy"),
        (("--label", "3"), "VAE has none"),
        (("--out", "draws.txt"), ".png or .npy"),
        (("--out", "nowhere/draws.png"), "a folder that is there"),
        (("--out", "folder.png"), ".png or .npy"),
    ],
)
def test_draws_that_cannot_be_are_refused(refused, run, tmp_path, words, said):
    (tmp_path / "folder.png").mkdir()
    before = contents(tmp_path)
    assert said in refused("sample", run, *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_is_refused(refused, supervised_run, label):
    assert "0 to 9" in refused("sample", supervised_run, "--label", label)
