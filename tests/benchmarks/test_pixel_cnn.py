"""What PixelCNN costs: drawing by its cache against full passes, a training step against plain PyTorch."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d

import inference
import zoo
from tests.benchmarks.timing import adam, expect, median_seconds, step_of

pytestmark = pytest.mark.figures

BLOCKS, HIDDEN, IMAGES = 15, 16, 16


class PlainMaskedConv2d(nn.Conv2d):
    """A convolution with zeros where the future is, as one writes it down."""

    def __init__(self, into, out, size, sees):
        super().__init__(into, out, size, padding=size // 2)
        mask = torch.ones_like(self.weight)
        mask[:, :, size // 2 + 1 :] = 0
        mask[:, :, size // 2, size // 2 + (sees == "B") :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PlainPixelCNN(nn.Module):
    """The network of ``zoo.PixelCNN((28, 28), 16, 15, gated=False)`` and its loss."""

    def __init__(self):
        super().__init__()
        h = HIDDEN
        self.first = PlainMaskedConv2d(1, 2 * h, 7, "A")
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(2 * h, h, 1),
                nn.ReLU(),
                PlainMaskedConv2d(h, h, 3, "B"),
                nn.ReLU(),
                nn.Conv2d(h, 2 * h, 1),
            )
            for _ in range(BLOCKS)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(2 * h, 2 * h, 1), nn.ReLU(), nn.Conv2d(2 * h, 1, 1))

    def forward(self, x):
        h = self.first(2 * x.unsqueeze(1) - 1)
        for block in self.blocks:
            h = h + block(h)
        logits = self.head(h).squeeze(1)
        return binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def model():
    return zoo.PixelCNN((28, 28), HIDDEN, BLOCKS, gated=False)


@pytest.fixture
def batch():
    return (torch.rand(50, 28, 28) < 0.2).float()


def pair(batch):
    """The objective as `inference.fit` has it, and the plain network with the same weights."""
    ours, plain = model(), PlainPixelCNN()
    stack = ours.stack
    convolutions = [stack.masked[0]]
    for block in zip(stack.into, stack.masked[1:], stack.out_of, strict=True):
        convolutions += block
    convolutions += ours.head
    theirs = [part for part in plain.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        for own, their in zip(convolutions, theirs, strict=True):
            their.weight[:, :, : own.weight.shape[2]] = own.weight
            their.bias.copy_(own.bias)
    objective = inference.MaximumLikelihood(ours)
    objective.prepare(batch)
    return objective, plain


def test_both_compute_the_same_loss(batch):
    ours, plain = pair(batch)
    assert ours(batch).item() == pytest.approx(plain(batch).item(), rel=1e-5)


def test_a_step_costs_at_most_a_tenth_more_than_the_plain_network(batch, record, threads):
    ours, plain = pair(batch)
    own, theirs = median_seconds(
        [step_of(ours, adam(ours)), step_of(plain, adam(plain))], batch, rounds=20, warm_up=2
    )
    record("pixel-cnn-step", ratio=own / theirs, seconds=own)
    expect({"step": (theirs / own, 1 / 1.10)})


@torch.no_grad()
def test_drawing_is_twenty_times_as_fast_as_a_full_pass_for_each_pixel(record, threads):
    cnn = model().eval()
    x = torch.zeros(IMAGES, 28 * 28)

    def draw(_):
        cnn.sample(IMAGES, seed=0)

    def full_pass(_):
        return torch.bernoulli(cnn.params(x)[:, 400].sigmoid())

    cached, full = median_seconds([draw, full_pass], None, rounds=7, warm_up=1)
    record("pixel-cnn-draw", ratio=784 * full / cached, seconds=cached, full_pass_seconds=full)
    expect({"drawing": (784 * full / cached, 20)})
