"""What WaveNet costs: drawing by ring buffers against full passes, a training step against plain PyTorch."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

import inference
import zoo
from tests.benchmarks.timing import adam, expect, median_seconds, step_of

pytestmark = pytest.mark.figures

SAMPLES = 400
"""Drawn at once, of which one is compared with a full pass."""

C, S, K = 32, 64, 256


class PlainWaveNet(nn.Module):
    """The network of ``zoo.WaveNet((4096,))`` and its loss, as one writes them down."""

    def __init__(self):
        super().__init__()
        self.dilations = [2**layer for _ in range(2) for layer in range(9)]
        self.front = nn.Linear(2, C, bias=False)
        self.gates = nn.ModuleList(nn.Conv1d(C, 2 * C, 2, dilation=d) for d in self.dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(C, C, 1, bias=False) for _ in self.dilations[1:])
        self.skip = nn.Linear(C * len(self.dilations), S)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(S, S), nn.ReLU(), nn.Linear(S, K))

    def forward(self, x):
        level = 2 / 255 * x[:, :-1].float() - 1
        amplitude = level.sign() * (level.abs() * math.log(256)).expm1() / 255
        h = pad(self.front(torch.stack([level, 4 * amplitude], -1)).transpose(1, 2), (1, 0))
        told = []
        for layer, (gate, d) in enumerate(zip(self.gates, self.dilations, strict=True)):
            a = gate(pad(h, (d, 0)))
            told.append(a[:, :C].tanh() * a[:, C:].sigmoid())
            if layer < len(self.residuals):
                h = h + self.residuals[layer](told[-1])
        logits = self.head(self.skip(torch.cat(told, dim=1).transpose(1, 2)))
        return cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="sum") / len(x)


@pytest.fixture
def batch():
    return zoo.load("speech").train.x[:2]


def pair(batch):
    """The objective as `inference.fit` has it, and the plain network with the same weights."""
    model, plain = zoo.WaveNet((4096,)), PlainWaveNet()
    plain.load_state_dict(model.state_dict())
    objective = inference.MaximumLikelihood(model)
    objective.prepare(batch)
    return objective, plain


def test_both_compute_the_same_loss_and_gradient(batch):
    ours, plain = pair(batch)
    losses = [module(batch) for module in (ours, plain)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for own, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, rtol=1e-3, atol=1e-2)


def test_a_step_costs_at_most_a_tenth_more_than_the_plain_network(batch, record, threads):
    ours, plain = pair(batch)
    own, theirs = median_seconds(
        [step_of(ours, adam(ours)), step_of(plain, adam(plain))], batch, rounds=15, warm_up=2
    )
    record("wavenet-step", ratio=own / theirs, seconds=own)
    expect({"step": (theirs / own, 1 / 1.10)})


@torch.no_grad()
def test_drawing_is_fifty_times_as_fast_as_a_full_pass_for_each_sample(record, threads):
    model = zoo.WaveNet((4096,)).eval()
    x = torch.randint(K, (1, model.receptive_field + 1))  # all that a sample looks at, and its own place

    def draw(_):
        model.generate(1, SAMPLES, seed=0)

    def full_pass(_):
        return torch.multinomial(model.params(x)[0, -1].softmax(-1), 1)

    cached, full = median_seconds([draw, full_pass], None, rounds=7, warm_up=1)
    rate = SAMPLES / cached
    record("wavenet-draw", ratio=full * rate, samples_per_second=rate, full_pass_seconds=full)
    expect({"drawing": (full * rate, 50)})
