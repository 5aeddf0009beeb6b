"""Training that was interrupted, killed or ran out of disk ends in the same bits as training that was not."""

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

import inference
import zoo

EPOCHS = 5


class FailsAt:
    """A logger that raises at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def log_metrics(self, metrics, step):
        if step == self.epoch:
            raise KeyboardInterrupt


class FailsIn(inference.ELBO):
    """Raises in the middle of an epoch, at a training step."""

    step, fatal = 0, 0

    def forward(self, batch):
        self.step += self.training
        if self.training and self.step == self.fatal:
            raise KeyboardInterrupt
        return super().forward(batch)


def bits(num: int = 30) -> torch.Tensor:
    return (torch.rand(num, 4, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def small_vae() -> zoo.VAE:
    torch.manual_seed(3)
    return zoo.VAE((4,), latent_dim=2, hidden=(8,))


def train(objective, **settings):
    defaults = {"valid": bits(9), "epochs": EPOCHS, "batch_size": 8, "lr": 0.02, "schedule": "cosine"}
    return inference.fit(
        objective, bits(), **{**defaults, "checkpoint_seconds": 0.0, "progress": False, **settings}
    )


def weights(module: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(module.parameters())


@pytest.fixture(scope="module")
def uninterrupted():
    vae = small_vae()
    return train(inference.ELBO(vae)).history, weights(vae)


@pytest.mark.parametrize("epoch", [2, 3, EPOCHS])
def test_interrupted_between_epochs_and_resumed(tmp_path, uninterrupted, epoch):
    vae = small_vae()
    result = train(inference.ELBO(vae), checkpoint=tmp_path / "c.pt", logger=FailsAt(epoch))
    assert result.interrupted and len(result.history) == epoch
    fresh = zoo.VAE((4,), latent_dim=2, hidden=(8,))
    resumed = train(inference.ELBO(fresh), checkpoint=tmp_path / "c.pt")
    assert (resumed.history, resumed.interrupted) == (uninterrupted[0], False)
    assert torch.equal(weights(fresh), uninterrupted[1])


@pytest.mark.parametrize("fatal", [2, 4, 5, 11, 20])
def test_interrupted_within_an_epoch_and_resumed_with_the_same_objective(tmp_path, uninterrupted, fatal):
    vae = small_vae()
    objective = FailsIn(vae)
    objective.fatal = fatal
    assert train(objective, checkpoint=tmp_path / "c.pt").interrupted
    assert (tmp_path / "c.pt").exists() == (fatal > 4)
    if fatal < 5:
        vae.load_state_dict(small_vae().state_dict())  # nothing was saved: as a new process would begin
    resumed = train(objective, checkpoint=tmp_path / "c.pt")
    assert resumed.history == uninterrupted[0]
    assert torch.equal(weights(vae), uninterrupted[1])


def test_interrupted_again_and_again(tmp_path, uninterrupted):
    for epoch in range(1, EPOCHS + 1):
        train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt", logger=FailsAt(epoch + 1))
    vae = small_vae()
    assert train(inference.ELBO(vae), checkpoint=tmp_path / "c.pt").history == uninterrupted[0]
    assert torch.equal(weights(vae), uninterrupted[1])


def test_finished_training_is_read_back_without_a_step(tmp_path, uninterrupted):
    train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()
    vae = zoo.VAE((4,), latent_dim=2, hidden=(8,))
    objective = FailsIn(vae)
    objective.fatal = 1
    with pytest.raises(ValueError, match="another objective"):
        train(objective, checkpoint=tmp_path / "c.pt")
    result = train(inference.ELBO(vae), checkpoint=tmp_path / "c.pt")
    assert result.history == uninterrupted[0] and result.best_epoch > 0 and result.seconds > 0
    assert torch.equal(weights(vae), uninterrupted[1])
    assert (tmp_path / "c.pt").read_bytes() == before


def test_patience_counts_across_an_interruption(tmp_path):
    def run(**settings):
        torch.manual_seed(0)
        vae = small_vae()
        return train(inference.ELBO(vae), epochs=40, lr=0.5, patience=2, **settings), weights(vae)

    whole, whole_weights = run()
    assert whole.stopped_early and len(whole.history) < 40
    run(checkpoint=tmp_path / "c.pt", logger=FailsAt(len(whole.history)))
    resumed, resumed_weights = run(checkpoint=tmp_path / "c.pt")
    assert resumed.stopped_early and resumed.history == whole.history
    assert torch.equal(resumed_weights, whole_weights)


def test_programs_with_free_parameters_resume_in_the_same_session_and_in_a_new_one(tmp_path):
    import pyro
    import pyro.distributions as dist

    def objective():
        def model(x):
            scale = pyro.param("scale", lambda: torch.rand(4) + 1, constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0.0, scale).to_event(1), obs=x)

        return inference.MaximumLikelihood(model)

    whole = objective()
    history = train(whole).history
    for same in (True, False):
        path = tmp_path / f"{same}.pt"
        first = objective()
        train(first, checkpoint=path, logger=FailsAt(3))
        second = first if same else objective()
        assert train(second, checkpoint=path).history == history
        assert torch.equal(
            second.program.parameter_values()["scale"], whole.program.parameter_values()["scale"]
        )


SGD = functools.partial(torch.optim.SGD, momentum=0.5)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("epochs", {"epochs": 7}),
        ("batch_size", {"batch_size": 9}),
        ("lr", {"lr": 0.03}),
        ("schedule", {"schedule": "constant"}),
        ("weight_decay", {"weight_decay": 0.1}),
        ("clip_norm", {"clip_norm": 1.0}),
        ("patience", {"patience": 4}),
        ("seed", {"seed": 1}),
        ("valid_items", {"valid": bits(8)}),
        ("valid_items", {"valid": None}),
        ("optimizer", {"optimizer": SGD}),
    ],
)
def test_checkpoint_of_other_settings_is_refused(tmp_path, name, settings):
    train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt", logger=FailsAt(2))
    before = (tmp_path / "c.pt").read_bytes()
    vae = small_vae()
    with pytest.raises(ValueError, match=f"belongs to a training with another {name}: expected") as caught:
        train(inference.ELBO(vae), checkpoint=tmp_path / "c.pt", **settings)
    assert "\n" not in str(caught.value)
    assert torch.equal(weights(vae), weights(small_vae()))
    assert (tmp_path / "c.pt").read_bytes() == before


@pytest.mark.parametrize(
    "name, objective, data",
    [
        ("items", lambda: inference.ELBO(small_vae()), bits(31)),
        ("data", lambda: inference.ELBO(small_vae()), 1 - bits()),
        ("objective", lambda: inference.ELBO(small_vae(), num_particles=2), bits()),
        ("objective", lambda: inference.ImportanceWeighted(small_vae(), num_particles=2), bits()),
        ("shapes", lambda: inference.ELBO(zoo.VAE((4,), latent_dim=3, hidden=(8,))), bits()),
    ],
)
def test_checkpoint_of_another_objective_or_of_other_data_is_refused(tmp_path, name, objective, data):
    train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt", logger=FailsAt(2))
    with pytest.raises(ValueError, match=f"belongs to a training with another {name}: expected"):
        inference.fit(
            objective(),
            data,
            valid=bits(9),
            epochs=EPOCHS,
            batch_size=8,
            lr=0.02,
            schedule="cosine",
            checkpoint=tmp_path / "c.pt",
            progress=False,
        )


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.pt"
    train(inference.ELBO(small_vae()), checkpoint=path, logger=FailsAt(2))
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match="c.pt is no checkpoint that can be read safely") as caught:
        train(inference.ELBO(small_vae()), checkpoint=path)
    assert "\n" not in str(caught.value)


def test_another_programs_file_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="c.pt is no checkpoint of a training"):
        train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt")


def test_full_disk_leaves_the_checkpoint_before_and_the_best_weights(tmp_path, monkeypatch, uninterrupted):
    path = tmp_path / "c.pt"
    train(inference.ELBO(small_vae()), checkpoint=path, logger=FailsAt(3))
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train(inference.ELBO(small_vae()), checkpoint=path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c.pt"]
    vae = small_vae()
    assert train(inference.ELBO(vae), checkpoint=path).history == uninterrupted[0]
    assert torch.equal(weights(vae), uninterrupted[1])


def test_interrupt_while_a_checkpoint_is_written(tmp_path, monkeypatch, uninterrupted):
    calls = iter(range(100))
    fsync = os.fsync

    def interrupted(fd):
        if next(calls) == 2:
            raise KeyboardInterrupt
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        result = train(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt")
    assert result.interrupted and len(result.history) == 3 and os.listdir(tmp_path) == ["c.pt"]
    vae = small_vae()
    assert train(inference.ELBO(vae), checkpoint=tmp_path / "c.pt").history == uninterrupted[0]
    assert torch.equal(weights(vae), uninterrupted[1])


KILLED = """
import json, os, signal, sys, lightning_fabric, torch
from torch import nn
import inference
import inference.training

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, batch):
        if moment == "step" and self.training:
            count()
        return (batch + torch.randn_like(batch) - self.weight).square().mean()

calls = 0

def count():
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)

def patched(function, after):
    def call(*args):
        if not after:
            count()
        function(*args)
        if after:
            count()
    return call

def train():
    if moment in ("fsync", "before replace"):
        name = moment.split()[-1]
        setattr(os, name, patched(getattr(os, name), after=False))
    if moment == "after replace":
        os.replace = patched(os.replace, after=True)
    objective = Noisy()
    data = torch.arange(30.).reshape(10, 3) / 10
    result = inference.fit(objective, data, valid=data, epochs=4, batch_size=4, lr=0.1, checkpoint=path,
                           checkpoint_seconds=0.0, progress=False)
    print(result.history, objective.weight.tolist())

for path, moment, number in json.loads(sys.argv[1]):
    child = os.fork()  # so that all of them share one import
    if not child:
        train()
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("ended", code, *sorted(os.listdir(os.path.dirname(path))), flush=True)
"""

MOMENTS = {"step": 5, "fsync": 2, "before replace": 1, "after replace": 3}


Ends = dict[str, tuple[str, int, list[str]]]


def run_one_after_the_other(runs: list[tuple[str, str, int]]) -> list[tuple[str, int, list[str]]]:
    """What each training printed in a process of its own, its exit code, and the files that it left.

    A run is the place of its checkpoint, the moment when it is killed, and which of these moments.
    """
    command = [sys.executable, "-c", KILLED, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    ends = re.findall(r"(.*?)ended (-?\d+)([^\n]*)\n", done.stdout, flags=re.DOTALL)
    assert len(ends) == len(runs), done.stderr
    return [(said, int(code), left.split()) for said, code, left in ends]


@pytest.fixture(scope="module")
def killed_and_again(tmp_path_factory) -> tuple[Ends, Ends]:
    """For each moment the end of the training that was killed then, and of the same run again.

    And, as the moment that never comes, the end of one that nothing has stopped.
    """
    paths = {moment: str(tmp_path_factory.mktemp("killed") / "c.pt") for moment in [*MOMENTS, "never"]}
    killed = [(paths[moment], moment, number) for moment, number in MOMENTS.items()]
    ends = run_one_after_the_other([*killed, *((path, "never", 0) for path in paths.values())])
    first, second = ends[: len(killed)], ends[len(killed) :]
    return dict(zip(MOMENTS, first, strict=True)), dict(zip(paths, second, strict=True))


@pytest.mark.parametrize(
    "moment, left",
    [
        ("step", ["c.pt"]),
        ("fsync", ["c.pt", "c.pt.part"]),
        ("before replace", ["c.pt.part"]),
        ("after replace", ["c.pt"]),
    ],
)
def test_killed_and_run_again(killed_and_again, moment, left):
    killed, again = killed_and_again
    assert killed[moment] == ("", -signal.SIGKILL, left)
    said, code, _ = again["never"]
    assert said and code == 0
    assert again[moment] == (said, 0, ["c.pt"])
