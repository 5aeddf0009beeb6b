"""``zoo train``: what a run folder holds, what each option does, and cross-validation."""

import csv
import errno
import json
import math
import os
import shlex
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import SMALL, SMALL_SUPERVISED, contents
from zoo.latent import VAE

WINE = {
    "model": {"latent_dim": 2, "hidden": (8,), "likelihood": "gaussian"},
    "objective": "elbo",
    "fit": {"epochs": 1},
    "particles": 5,
}


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def wine(monkeypatch):
    """A short recipe for a data set with folds."""
    monkeypatch.setattr(VAE, "recipes", {**VAE.recipes, "red-wine": WINE})


def test_a_run_folder_holds_configuration_weights_figures_history_and_pictures(run):
    pictures = {"samples.png", "reconstructions.png", "traversals.png", "learning_curve.png"}
    files = {"config.json", "model.safetensors", "metrics.json", "history.csv"}
    assert set(contents(run)) == files | pictures
    assert all((run / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_metrics_hold_the_figures_of_the_training_and_of_the_test_items(run):
    metrics = read(run / "metrics.json")
    expected = {"model": "vae", "data": "digits", "objective": "elbo", "epochs": 3, "seed": 0}
    assert metrics.items() >= expected.items()
    assert metrics["parameters"] == sum(w.numel() for w in load_file(run / "model.safetensors").values())
    assert metrics["seconds"] > 0
    test = metrics["test"]
    assert (test["kind"], test["bound"]) == ("lower bound", "importance-weighted")
    assert 0 < test["monte_carlo_error"] < test["standard_error"]
    assert 30 < test["nats_per_item"] < 64 * math.log(2) + 1
    assert test["bits_per_dim"] == pytest.approx(test["nats_per_item"] / (64 * math.log(2)))
    assert 0 < test["standard_error"] < 1
    assert test["items"] == 250


@pytest.mark.usefixtures("without_pictures")
def test_an_exact_density_has_the_training_items_figure_beside(zoo, tmp_path, capsys):
    fast = ("--epochs", 40, "--lr", 0.1, "--batch-size", 250)
    assert zoo("train", "full-joint", "--data", "digits-4x4", "--out", "run", *fast) == 0
    metrics = read(tmp_path / "run" / "metrics.json")
    assert (metrics["test"]["kind"], metrics["test"]["bound"]) == ("exact", None)
    assert metrics["train"]["items"] == 1297
    # A table learns its training images by heart, as far as the validation images let it.
    assert metrics["train"]["nats_per_item"] < metrics["test"]["nats_per_item"]
    assert f"{metrics['train']['nats_per_item']:.2f}" in capsys.readouterr().out


def test_wines_have_the_figure_of_one_gaussian_beside(zoo, tmp_path, capsys, monkeypatch):
    from zoo.cli.pictures import draw_pictures

    monkeypatch.setattr(  # one fold's pictures are drawn as well as those of ten
        "zoo.cli.pictures.draw_pictures",
        lambda model, dataset, run: draw_pictures(model, dataset, run) if run.path.name == "fold-9" else [],
    )
    small = ("--epochs", 1, "--set", "hidden=5", "--set", "components=2")
    assert zoo("train", "rnade", "--data", "red-wine", "--out", "run", *small) == 0
    metrics = read(tmp_path / "run" / "metrics.json")
    nats = [
        read(tmp_path / "run" / f"fold-{k}" / "metrics.json")["gaussian"]["nats_per_item"] for k in range(10)
    ]
    # The paper's figure for the same ten folds.
    assert (
        metrics["gaussian"]["nats_per_item"]
        == pytest.approx(sum(nats) / 10)
        == pytest.approx(13.19, abs=0.005)
    )
    assert "13.19" in capsys.readouterr().out


@pytest.mark.usefixtures("without_pictures")
def test_a_run_from_before_weight_decay_can_still_be_read(zoo, run):
    config = read(run / "config.json")
    assert config["fit"].pop("weight_decay") == 0.0
    (run / "config.json").write_text(json.dumps(config))
    assert zoo("evaluate", run, "--particles", 2) == 0


@pytest.mark.usefixtures("without_pictures")
def test_a_run_from_before_there_was_a_choice_of_the_bound_can_still_be_read(zoo, run, capsys):
    config = read(run / "config.json")
    assert config.pop("bound") == "importance-weighted"
    (run / "config.json").write_text(json.dumps(config))
    metrics = read(run / "metrics.json")
    assert metrics["test"].pop("bound") == "importance-weighted"
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert zoo("train", "vae", *SMALL, "--out", run) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trained already" in shown and "importance samples" in shown
    assert zoo("evaluate", run, "--particles", 2) == 0
    assert read(run / "metrics.json")["test"]["bound"] == "importance-weighted"


@pytest.mark.usefixtures("without_pictures")
def test_a_recipe_chooses_the_bound_and_the_command_line_another(zoo, monkeypatch, tmp_path, capsys):
    digits = {**VAE.recipes["digits"], "particles": 3, "bound": "elbo"}
    monkeypatch.setattr(VAE, "recipes", {"digits": digits})
    monkeypatch.setenv("COLUMNS", "150")
    said = {
        "elbo": "log p(x) is bounded from below by the ELBO, mean over 3 draws of noise per item",
        "importance-weighted": "bounded from below by 3 importance samples per item",
    }
    for out, words, bound in (
        ("recipe", (), "elbo"),
        ("other", ("--evaluation-bound", "importance-weighted"), "importance-weighted"),
    ):
        assert zoo("train", "vae", *SMALL, "--out", out, *words) == 0
        assert said[bound] in " ".join(capsys.readouterr().out.split())
        assert read(tmp_path / out / "config.json")["bound"] == bound
        assert read(tmp_path / out / "metrics.json")["test"]["bound"] == bound


def test_history_has_a_row_for_each_epoch(run):
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["train"]) > float(rows[2]["train"])
    assert float(rows[0]["valid"]) > float(rows[2]["valid"])


def test_metrics_of_a_model_with_labels_hold_its_accuracies(supervised_run):
    metrics = read(supervised_run / "metrics.json")
    shares = [
        metrics["accuracy"],
        metrics["accuracy_classifier_alone"],
        *metrics["generated_as_asked"].values(),
        *metrics["probe"].values(),
    ]
    assert all(0 < share < 1 for share in shares)
    assert metrics["generated_as_asked"]["judge_accuracy"] > 0.9
    assert metrics["probe"]["raw"] > 0.85


@pytest.mark.usefixtures("without_pictures")
def test_options_reach_the_configuration(zoo, tmp_path):
    options = {
        "objective": ("--objective", "importance-weighted"),
        "num_particles": ("--particles", 3),
        "particles": ("--evaluation-particles", 5),
        "bound": ("--evaluation-bound", "elbo"),
        "epochs": ("--epochs", 2),
        "batch_size": ("--batch-size", 500),
        "lr": ("--lr", 0.01),
        "schedule": ("--schedule", "constant"),
        "weight_decay": ("--weight-decay", 0.25),
        "patience": ("--patience", 1),
        "precision": ("--precision", "32-true"),
        "compile": ("--no-compile", False),
        "seed": ("--seed", 7),
    }
    words = [word for option in options.values() for word in option if word is not False]
    assert zoo("train", "vae", "--out", "run", "--set", "hidden=(8,)", "--set", "latent_dim=3", *words) == 0
    config = read(tmp_path / "run" / "config.json")
    came = {**config, **config["fit"], **config["objective_arguments"]}
    assert {name: came[name] for name in options} == {name: option[1] for name, option in options.items()}
    assert config["arguments"] == {"latent_dim": 3, "hidden": [8]}
    test = read(tmp_path / "run" / "metrics.json")["test"]
    assert (test["particles"], test["bound"]) == (5, "elbo")


@pytest.mark.usefixtures("without_pictures")
def test_the_folder_is_named_after_model_and_data(zoo, tmp_path):
    assert zoo("train", "vae", "--data", "digits", *SMALL) == 0
    assert (tmp_path / "runs" / "vae-digits" / "model.safetensors").exists()


@pytest.mark.usefixtures("without_pictures")
def test_the_seed_decides_every_bit(zoo, trained, tmp_path):
    assert zoo("train", "vae", "--out", "same", *SMALL) == 0
    assert zoo("train", "vae", "--out", "other", "--seed", 1, *SMALL) == 0
    weights = [
        path / "model.safetensors" for path in (trained / "vae", tmp_path / "same", tmp_path / "other")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].read_bytes() != weights[2].read_bytes()


@pytest.mark.usefixtures("without_pictures")
def test_init_starts_from_the_weights_of_another_run(zoo, run, tmp_path):
    tiny_steps = ("--lr", 1e-12, "--schedule", "constant")
    assert zoo("train", "vae", "--out", "on", "--init", run, *SMALL, *tiny_steps) == 0
    before, after = load_file(run / "model.safetensors"), load_file(tmp_path / "on" / "model.safetensors")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_init_from_another_model_is_refused(refused, supervised_run, tmp_path):
    line = refused("train", "vae", "--out", "on", "--init", supervised_run, *SMALL)
    assert "belongs to another model" in line
    assert not (tmp_path / "on").exists()


@pytest.mark.usefixtures("without_pictures")
def test_few_labels_make_do_without_a_probe(zoo, tmp_path):
    assert zoo("train", "supervised-vae", "--labels", 1, "--out", "run", *SMALL_SUPERVISED) == 0
    metrics = read(tmp_path / "run" / "metrics.json")
    assert "accuracy" in metrics and "probe" not in metrics


@pytest.mark.usefixtures("without_pictures")
def test_logger_tensorboard_writes_events_beside_the_history(zoo, tmp_path):
    assert zoo("train", "vae", "--out", "run", "--logger", "tensorboard", *SMALL) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "history.csv").exists()


def test_logger_tensorboard_says_what_to_install(refused, monkeypatch):
    def missing(**kwargs):
        raise ModuleNotFoundError("No module named 'tensorboard'")

    monkeypatch.setattr("lightning_fabric.loggers.TensorBoardLogger", missing)
    assert "pyro-zoo[tensorboard]" in refused("train", "vae", "--logger", "tensorboard", *SMALL, code=1)


def test_the_table_says_which_way_the_bound_goes(zoo, trained, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert zoo("train", "vae", "--out", trained / "vae", *SMALL) == 0
    shown = " ".join(capsys.readouterr().out.split())
    nats = read(trained / "vae" / "metrics.json")["test"]["nats_per_item"]
    assert f"≤ {nats:.2f} ± " in shown
    assert "log p(x) is bounded from below by 1,000 importance samples per item" in shown
    assert "3 epochs" in shown


@pytest.mark.parametrize("kind", ["exact", "estimate"])
def test_the_table_marks_no_bound_where_there_is_none(capsys, kind):
    from zoo.cli.report import print_metrics

    print_metrics({"test": {"nats_per_item": 3.0, "standard_error": 0.1, "bits_per_dim": 0.5, "kind": kind}})
    shown = capsys.readouterr().out
    assert "3.00 ± 0.10" in shown and kind in shown and "≤" not in shown


# What was there before


def test_a_finished_run_is_shown_and_not_touched(zoo, run, capsys):
    before = contents(run)
    assert zoo("train", "vae", "--out", run, *SMALL) == 0
    assert "trained already" in capsys.readouterr().out
    assert contents(run) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--seed", "1"), "another seed"),
        (("--set", "latent_dim=3"), "another arguments"),
        (("--epochs", "4"), "another fit"),
        (("--devices", "2"), "another devices"),
    ],
)
def test_a_run_of_another_configuration_is_kept(refused, run, change, said):
    before = contents(run)
    assert said in refused("train", "vae", "--out", run, *SMALL, *change)
    assert contents(run) == before


def test_a_folder_that_is_no_run_is_kept(refused, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear reader")
    assert "not empty" in refused("train", "vae", "--out", "thesis", *SMALL)
    assert contents(tmp_path) == {"thesis/chapter.tex": b"dear reader"}


def test_a_file_in_the_place_of_the_folder_is_kept(refused, tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert "got the file notes" in refused("train", "vae", "--out", "notes", *SMALL)
    assert contents(tmp_path) == {"notes": b"mine"}


def test_a_loss_that_is_no_number_ends_in_one_line(refused, tmp_path):
    assert "lower lr" in refused("train", "vae", "--lr", "1e10", "--out", "run", *SMALL, code=1)
    assert not (tmp_path / "run").exists()


def test_a_layer_that_gives_no_number_ends_in_one_line_that_names_it(refused, tmp_path):
    line = refused("train", "nice", "--data", "digits-levels", "--lr", "1e10", "--out", "run", *SMALL, code=1)
    assert "layer " in line and "Coupling) gives a " in line and "not finite" in line
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(zoo, refused, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left" in refused("train", "vae", "--out", "run", *SMALL, code=1)
    assert contents(tmp_path) == {}
    assert zoo("train", "vae", "--out", "run", *SMALL) == 0


def test_a_folder_that_cannot_be_made_ends_in_one_line(refused, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "run")

    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    assert refused("train", "vae", "--out", "run", *SMALL, code=1) == "zoo: Permission denied: run"


# Cross-validation


def test_data_with_folds_train_all_of_them_and_report_the_mean(zoo, wine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zoo.cli.pictures.draw_pictures", lambda model, dataset, run: [])  # 30 of them
    assert zoo("train", "vae", "--data", "red-wine", "--out", "cv") == 0
    folds = [read(tmp_path / "cv" / f"fold-{number}" / "metrics.json") for number in range(10)]
    assert [fold["fold"] for fold in folds] == list(range(10))
    summary = read(tmp_path / "cv" / "metrics.json")
    nats = torch.tensor([fold["test"]["nats_per_item"] for fold in folds], dtype=torch.float64)
    assert summary["folds"] == 10
    assert summary["test"]["items"] == 1599
    assert summary["test"]["nats_per_item"] == pytest.approx(nats.mean().item())
    assert summary["test"]["standard_error"] == pytest.approx(nats.std().item() / math.sqrt(10))
    assert {"model", "data", "objective", "epochs", "seconds", "parameters", "seed"} <= summary.keys()

    # A fold that is missing is trained, the others are left.
    shutil.rmtree(tmp_path / "cv" / "fold-7")
    before = contents(tmp_path / "cv" / "fold-2")
    assert zoo("train", "vae", "--data", "red-wine", "--out", "cv") == 0
    assert contents(tmp_path / "cv" / "fold-2") == before
    assert read(tmp_path / "cv" / "metrics.json")["test"] == pytest.approx(summary["test"], abs=1)

    capsys.readouterr()
    assert zoo("evaluate", "cv", "--particles", 2) == 0
    assert "10 folds" in capsys.readouterr().out
    assert read(tmp_path / "cv" / "metrics.json")["test"]["particles"] == 2


def test_one_fold_is_a_run_of_its_own(zoo, wine, tmp_path):
    assert zoo("train", "vae", "--data", "red-wine", "--fold", 9) == 0
    run = tmp_path / "runs" / "vae-red-wine-fold-9"
    metrics = read(run / "metrics.json")
    assert metrics["fold"] == 9 and metrics["test"]["items"] == 159
    assert {path.name for path in run.glob("*.png")} == {"samples.png", "learning_curve.png"}


def test_folds_go_into_no_folder_of_something_else(refused, wine, run):
    before = contents(run)
    assert "not empty" in refused("train", "vae", "--data", "red-wine", "--out", run)
    assert contents(run) == before


def test_a_folder_of_folds_names_them_when_asked_for_a_draw(zoo, refused, run, tmp_path):
    (tmp_path / "cv").mkdir()
    run.rename(tmp_path / "cv" / "fold-0")
    assert "cv/fold-0" in refused("sample", "cv")


# Processes


def test_two_devices_train_one_model_and_print_once(spawn, tmp_path):
    options = ("--devices", "2", "--nodes", "1", "--precision", "bf16-mixed")
    done = spawn("train", "supervised-vae", "--out", "run", *options, *SMALL_SUPERVISED)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("training supervised-vae") == 1
    metrics = read(tmp_path / "run" / "metrics.json")
    assert metrics["finished"] and metrics["epochs"] == 3
    assert read(tmp_path / "run" / "config.json")["devices"] == 2


def test_a_run_outside_a_terminal_prints_nothing_but_its_results(spawn):
    done = spawn("train", "vae", "--out", "run", "--precision", "bf16-mixed", *SMALL)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "training vae on digits in run"
    assert done.stdout.splitlines()[-1] == "pictures, weights and history are in run"


@pytest.mark.usefixtures("without_pictures")
def test_lightning_is_as_talkative_after_a_run_as_before(zoo):
    import logging

    import lightning_fabric

    before = logging.getLogger(lightning_fabric.__name__).level
    assert zoo("train", "vae", "--out", "run", *SMALL) == 0
    assert logging.getLogger(lightning_fabric.__name__).level == before


@pytest.mark.usefixtures("without_pictures")
def test_a_result_holds_the_figures_and_the_command_that_gave_them(tmp_path, zoo):
    out, result = tmp_path / "run", tmp_path / "results" / "vae.json"
    result.parent.mkdir()
    for _ in range(2):  # a finished run gives its result as well
        assert zoo("train", "vae", *SMALL, "--out", out, "--result", result) == 0
        written = read(result)
        assert written.pop("command") == "zoo train vae " + " ".join(map(shlex.quote, SMALL))
        assert written == read(out / "metrics.json")
        result.unlink()


def test_a_finished_run_with_damaged_files_is_not_called_trained(run, refused):
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(weights[:100])
    again = ("train", "vae", *SMALL, "--out", run)
    assert "model.safetensors is damaged" in refused(*again)
    (run / "model.safetensors").write_bytes(weights)
    metrics = read(run / "metrics.json")
    (run / "metrics.json").write_text(json.dumps(metrics | {"test": 3}))
    assert "metrics.json is damaged" in refused(*again)


def test_the_setting_that_differs_is_named(run, refused):
    said = refused("train", "vae", *SMALL, "--patience", 5, "--out", run)
    assert "another fit.patience: asked for 5, there is null" in said


def test_labels_are_refused_for_a_model_that_has_none(refused):
    assert "--labels expects a model with labels" in refused("train", "vae", *SMALL, "--labels", 100)
