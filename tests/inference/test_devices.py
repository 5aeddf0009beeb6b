"""Two processes on the CPU: Fabric launches the second one from a script."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import inference

LEARNING_BY_CONTRAST = """
import zoo

def train_machine(devices):
    torch.manual_seed(0)
    machine = zoo.DBM((4,), hidden=(3, 2), centred=True)
    objective = inference.PersistentContrastiveDivergence(machine, num_chains=20, validation_betas=20)
    x = (torch.rand(16, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    result = inference.fit(objective, x, valid=x[:6], epochs=3, batch_size=8, lr=0.1, momentum=0.5,
                           accelerator="cpu", devices=devices, progress=False)
    return result, objective

if __name__ == "__main__":
    result, objective = train_machine(2)
    with open(os.path.join(sys.argv[1], f"machine-{result.rank}.json"), "w") as file:
        json.dump({
            "history": result.history,
            "best epoch": result.best_epoch,
            "state": {name: value.tolist() for name, value in objective.state_dict().items()},
        }, file)
"""

ADVERSARIES = """
def train_adversaries(devices):
    torch.manual_seed(0)
    gan = zoo.GAN((2,), latent_dim=2, hidden=(6,), output="real")
    objective = inference.Adversarial(gan, discriminator=(6,), gradient_penalty=0.5, discriminator_steps=2)
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0)) + 1
    result = inference.fit(objective, x, valid=x[:6], epochs=3, batch_size=8, lr=0.1, accelerator="cpu",
                           devices=devices, progress=False)
    return result, objective

if __name__ == "__main__":
    result, objective = train_adversaries(2)
    with open(os.path.join(sys.argv[1], f"adversaries-{result.rank}.json"), "w") as file:
        json.dump({
            "history": result.history,
            "best epoch": result.best_epoch,
            "state": {name: value.tolist() for name, value in objective.state_dict().items()},
        }, file)
"""

SCRIPT = """
import json, os, sys
import torch
from torch import nn
import inference

class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)
        with torch.no_grad():
            for param in self.net.parameters():
                param.fill_(0.1)

    def forward(self, batch):
        x, y = batch
        return (self.net(x) - y).square().mean()

class Stop:
    def log_metrics(self, metrics, step):
        if step == 3:
            raise KeyboardInterrupt

def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, generator=generator), torch.randn(16, 2, generator=generator)

def train(objective, **settings):
    return inference.fit(objective, data(), valid=data(), epochs=4, batch_size=8, lr=0.05, accelerator="cpu",
                         checkpoint_seconds=0.0, progress=False, **settings)

def weights(objective):
    return nn.utils.parameters_to_vector(objective.parameters()).tolist()

if __name__ == "__main__":
    out = sys.argv[1]
    whole, part, resumed = Regression(), Regression(), Regression()
    result = train(whole, devices=2)
    path = os.path.join(out, "c.pt")
    interrupted = train(part, devices=2, checkpoint=path, logger=Stop())
    again = train(resumed, devices=2, checkpoint=path)
    with open(os.path.join(out, f"rank-{result.rank}.json"), "w") as file:
        json.dump({
            "history": result.history, "weights": weights(whole), "interrupted": interrupted.interrupted,
            "epochs before": len(interrupted.history), "resumed history": again.history,
            "resumed weights": weights(resumed),
        }, file)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder where each of two processes wrote what it came to: one start for both scripts."""
    folder = tmp_path_factory.mktemp("devices")
    script = folder / "script.py"
    script.write_text(SCRIPT + LEARNING_BY_CONTRAST + ADVERSARIES)
    lost = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in lost}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ranks(written):
    return [json.loads((written / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_ranks_end_with_the_same_weights_and_the_same_history(ranks):
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["history"] == ranks[1]["history"]


def test_two_processes_do_what_one_does(ranks):
    scope = {"__name__": "script"}
    exec(SCRIPT, scope)
    single = scope["Regression"]()
    result = scope["train"](single)
    assert torch.allclose(
        nn.utils.parameters_to_vector(single.parameters()), torch.tensor(ranks[0]["weights"])
    )
    assert torch.allclose(
        torch.tensor([list(row.values()) for row in result.history]),
        torch.tensor([list(row.values()) for row in ranks[0]["history"]]),
    )


def test_resumed_with_two_processes(ranks):
    for rank in ranks:
        assert rank["interrupted"] and rank["epochs before"] == 3
        assert rank["resumed history"] == rank["history"]
        assert rank["resumed weights"] == rank["weights"]


def test_machines_have_the_same_weights_means_and_history_in_both_processes(written):
    """Each sees its own items: the running means, and with them the biases, are those of all."""
    first, second = (json.loads((written / f"machine-{rank}.json").read_text()) for rank in range(2))
    assert first["history"] == second["history"]
    chains = {name for name in first["state"] if name.startswith("chain_")}
    assert chains == {"chain_v", "chain_h_1", "chain_h_2"}
    for name in first["state"].keys() - chains:
        assert first["state"][name] == second["state"][name], name
    assert first["state"]["module.batches_seen"] == 2 * first["best epoch"] > 0


def test_players_have_the_same_weights_and_history_in_both_processes(written):
    """Each draws its own: what they learn is from the draws of all."""
    first, second = (json.loads((written / f"adversaries-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["state"]["steps"] == 2 * first["best epoch"] > 0
    assert {*first["history"][0]} >= {"discriminator", "distinct", "valid"}
    assert first["history"][0]["train"] != first["history"][2]["train"]


def test_more_devices_than_items_of_a_batch_are_refused(monkeypatch):
    from lightning_fabric import Fabric

    monkeypatch.setattr(Fabric, "launch", lambda self: None)
    monkeypatch.setattr(Fabric, "world_size", 3)
    net = nn.Linear(2, 2)
    for num, batch_size in ((2, 100), (10, 2)):
        with pytest.raises(ValueError, match="at least 1 for each of 3 devices, got"):
            inference.fit(net, torch.zeros(num, 2), epochs=1, batch_size=batch_size, progress=False)
