"""A training that was killed or interrupted ends, by the same command, as if it had not been."""

import json
import shutil
import signal
from pathlib import Path

import lightning_fabric
import pytest
import torch

import inference
from tests.cli.conftest import SMALL, contents, spawn_in

MOMENTS = {
    "writing the configuration": ("during", "config.json", 1),
    "before the first checkpoint": ("after", "epoch", 1),
    "writing the first checkpoint": ("during", "checkpoint.pt", 1),
    "between two checkpoints": ("after", "epoch", 2),
    "writing the last checkpoint": ("during", "checkpoint.pt", 3),
    "writing the weights": ("during", "model.safetensors", 1),
    "trained and evaluated, before the metrics": ("before", "metrics.json", 2),
    "writing the metrics": ("during", "metrics.json", 2),
}

KILLED = """
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import lightning_fabric
import matplotlib.backends.backend_agg
import pyro
import rich.progress
import safetensors.torch
import sklearn.linear_model

import inference.checkpoint
import inference.likelihood
import inference.training
import zoo.cli.pictures
import zoo.cli.report
import zoo.data.digits
import zoo.latent
from zoo.cli import main

moments, *args = sys.argv[1:]
write, fsync, log = inference.checkpoint.write_atomically, os.fsync, lightning_fabric.Fabric.log_dict
seen = Counter()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at(*event):
    seen[event] += 1
    return (*event, seen[event]) == moment


def write_atomically(path, data):
    name = Path(path).name
    if at("before", name):
        die()
    if at("during", name):
        os.fsync = half
    write(path, data)


def half(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    fsync(descriptor)
    die()


def log_dict(self, metrics, step):
    log(self, metrics, step)
    if at("after", "epoch"):
        die()
    if at("interrupt", "epoch"):
        signal.raise_signal(signal.SIGINT)


inference.checkpoint.write_atomically = write_atomically
lightning_fabric.Fabric.log_dict = log_dict
for number, chosen in enumerate(json.loads(moments)):
    moment = tuple(chosen)
    child = os.fork()  # so that all of them share one import
    if not child:
        os.mkdir(str(number))
        os.chdir(str(number))
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
        main(args)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

TRAIN = ("train", "vae", "--out", "run", *SMALL, "--checkpoint-seconds", "0")


def is_finished(run):
    path = run / "metrics.json"
    return path.exists() and json.loads(path.read_text()).get("finished", False)


def assert_same_bits(run, other):
    for name in ("model.safetensors", "history.csv"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder for each moment and for Ctrl-C, in it what a process that ended then left and printed."""
    folder = tmp_path_factory.mktemp("stopped")
    moments = {**MOMENTS, "Ctrl-C": ("interrupt", "epoch", 2)}
    done = spawn_in(folder, json.dumps(list(moments.values())), *TRAIN, code=KILLED)
    ends = done.stdout.splitlines()
    assert ends == [f"ended {-signal.SIGKILL}"] * len(MOMENTS) + ["ended 130"], done.stderr
    assert done.stderr == ""
    return {moment: folder / str(number) for number, moment in enumerate(moments)}


@pytest.fixture(scope="module")
def killed(stopped):
    """For each moment the run that was killed then."""
    return {moment: stopped[moment] / "run" for moment in MOMENTS}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_training_ends_in_the_same_bits(zoo, killed, trained, tmp_path, moment):
    run = Path(shutil.copytree(killed[moment], tmp_path / "run"))
    assert not is_finished(run)
    assert zoo(*TRAIN) == 0
    assert is_finished(run)
    assert_same_bits(run, trained / "vae")
    assert set(contents(run)) - {"config.json.part"} == set(contents(trained / "vae"))
    test, expected = (
        json.loads((path / "metrics.json").read_text())["test"] for path in (run, trained / "vae")
    )
    assert test["nats_per_item"] == expected["nats_per_item"]


def test_a_run_killed_before_it_had_weights_says_so(refused, killed):
    for command in ("evaluate", "sample"):
        assert "no trained model yet" in refused(command, killed["between two checkpoints"])
        assert "no run folder" in refused(command, killed["writing the configuration"])


def test_a_training_goes_on_from_its_checkpoint(zoo, killed, trained, tmp_path, monkeypatch):
    shutil.copytree(killed["between two checkpoints"], tmp_path / "run")
    epochs = []
    log = lightning_fabric.Fabric.log_dict
    record = lambda self, metrics, step: [epochs.append(step), log(self, metrics, step)]  # noqa: E731
    monkeypatch.setattr(lightning_fabric.Fabric, "log_dict", record)
    assert zoo(*TRAIN) == 0
    assert epochs == [2, 3], "the first epoch was saved"


def test_ctrl_c_leaves_a_run_that_is_usable_and_goes_on(stopped, zoo, trained, tmp_path):
    assert (stopped["Ctrl-C"] / "stderr").read_text() == ""
    assert "the same command goes on" in (stopped["Ctrl-C"] / "stdout").read_text().splitlines()[-1]
    run = Path(shutil.copytree(stopped["Ctrl-C"] / "run", tmp_path / "run"))
    assert zoo("evaluate", "run", "--particles", 5) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and metrics["test"]["particles"] == 5 and not metrics["finished"]
    assert zoo("sample", "run") == 0
    assert (run / "drawn.png").exists()
    assert zoo(*TRAIN) == 0
    assert_same_bits(run, trained / "vae")


def test_ctrl_c_in_the_first_epoch_leaves_a_run_too(zoo, trained, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(inference.ELBO, "forward", lambda self, batch: signal.raise_signal(signal.SIGINT))
        assert zoo(*TRAIN) == 130
    assert "0 of 3 epochs" in capsys.readouterr().out
    assert zoo("evaluate", "run", "--particles", 5) == 0
    assert zoo("sample", "run", "--num", 3) == 0
    assert zoo(*TRAIN) == 0
    assert_same_bits(tmp_path / "run", trained / "vae")


def test_ctrl_c_elsewhere_ends_without_a_traceback(zoo, run, monkeypatch, capsys):
    monkeypatch.setattr(
        "inference.log_likelihood", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT)
    )
    before = contents(run)
    assert zoo("evaluate", run) == 130
    assert len(capsys.readouterr().err.splitlines()) <= 1
    assert contents(run) == before


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def interrupted(killed, tmp_path):
    """A run that has a checkpoint, in the working directory."""
    return Path(shutil.copytree(killed["between two checkpoints"], tmp_path / "run"))


def test_a_checkpoint_that_would_run_code_is_refused(refused, interrupted, tmp_path):
    proof = tmp_path / "proof"
    torch.save({"settings": {}, "objective": Payload(proof)}, interrupted / "checkpoint.pt")
    assert "checkpoint.pt is no checkpoint" in refused(*TRAIN)
    assert not proof.exists()
    torch.load(interrupted / "checkpoint.pt", weights_only=False)
    assert proof.exists(), "the payload would not have run anywhere"


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_checkpoint_is_refused_and_kept(refused, interrupted, tmp_path, damage):
    path = interrupted / "checkpoint.pt"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"dear reader"}[damage])
    before = contents(tmp_path)
    assert "checkpoint.pt is no checkpoint" in refused(*TRAIN)
    assert contents(tmp_path) == before


def test_a_checkpoint_of_another_training_is_refused(refused, interrupted, tmp_path):
    config = interrupted / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 5'))
    assert "another seed" in refused(*TRAIN, "--seed", "5")
