"""The cost of Pyro: a VAE's training step against the same in plain PyTorch, alternated in one process."""

import platform
import statistics
import time

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import inference
import zoo
from inference.graph import compile_step

pytestmark = pytest.mark.figures


class PlainVAE(nn.Module):
    """The network of ``zoo.VAE((784,), 20, hidden=(400,))`` and its loss, without Pyro."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def forward(self, x):
        loc, scale = self.encoder(x).chunk(2, dim=-1)
        scale = softplus(scale)
        z = loc + scale * torch.randn_like(scale)
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        divergence = 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum()
        return (reconstruction + divergence) / len(x)


def step_of(loss, optimizer):
    def step(batch):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()

    return step


def median_seconds(steps, batch, rounds=600, warm_up=50):
    """Median time of each step, taken in turn so that whatever else the machine does hits all alike."""
    times = [[] for _ in steps]
    for _ in range(warm_up + rounds):
        for step, seconds in zip(steps, times, strict=True):
            started = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds[warm_up:]) for seconds in times]


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)


def objective():
    return inference.ELBO(zoo.VAE((784,), latent_dim=20, hidden=(400,)))


@pytest.fixture
def batch():
    return torch.bernoulli(torch.rand(100, 784))


def test_both_steps_compute_the_same_loss(batch):
    ours, plain = objective(), PlainVAE()
    pairs = zip(plain.parameters(), ours.parameters(), strict=True)
    with torch.no_grad():
        for theirs, own in pairs:
            theirs.copy_(own)
    losses = []
    for loss in (ours, plain):
        torch.manual_seed(0)
        losses.append(loss(batch).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_eager_step_costs_at_most_a_quarter_more(batch):
    assert eager_ratio(batch) <= 1.25


def test_compiled_step_costs_no_more(batch, record_result):
    compiled = compiled_ratio(batch)
    threads = torch.get_num_threads()
    record_result(
        "training-step",
        {
            "eager": eager_ratio(batch),
            "compiled": compiled,
            "machine": f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__}",
            "command": "make results",
        },
    )
    assert compiled <= 1.0


def eager_ratio(batch):
    ours, plain = objective(), PlainVAE()
    own, theirs = median_seconds([step_of(ours, adam(ours)), step_of(plain, adam(plain))], batch)
    return own / theirs


def compiled_ratio(batch):
    ours, plain = objective(), PlainVAE()
    compiled, optimizer = compile_step(ours, batch), adam(ours)

    def step(batch):
        compiled(batch)
        optimizer.step()

    own, theirs = median_seconds([step, step_of(plain, adam(plain))], batch)
    return own / theirs
