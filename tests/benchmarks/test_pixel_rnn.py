"""What PixelRNN costs: a training step against plain PyTorch, drawing by its cache against full passes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv1d, conv2d, pad

import inference
import zoo
from tests.benchmarks.timing import adam, expect, median_seconds, step_of

pytestmark = pytest.mark.figures

HIDDEN, IMAGES, SIDE = 16, 16, 28


class PlainPixelRNN(nn.Module):
    """The network of a model with one layer, front by front as the paper describes it, and its loss.

    The map is skewed for a diagonal layer, and a convolution along each of its columns, or of the rows of a
    plain one, gives the state-to-state part.
    """

    def __init__(self, rnn):
        super().__init__()
        (self.layer,) = rnn.layers
        self.first, self.head = rnn.first, rnn.head
        self.is_diagonal = len(self.layer.between) == 2

    def forward(self, x):
        maps = pad(2 * x.unsqueeze(1) - 1, (0, int(self.is_diagonal)))
        u = self.first(maps)
        a = self.layer.into(u)
        if self.is_diagonal:
            left, right = a.chunk(2, 1)
            right = self.along_diagonals(right.flip(3), self.layer.between[1]).flip(3)
            h = self.along_diagonals(left, self.layer.between[0]) + pad(right[:, :, :-1], (0, 0, 1, 0))
        else:
            kernel = self.layer.between[0].weight.unflatten(1, (3, -1)).transpose(1, 2)
            h = self.along(a.unbind(2), lambda before: conv1d(before, kernel, padding=1), 2)
        u = (u + self.layer.out_of(h))[..., : x.shape[2]]
        for convolution in self.head:
            u = conv2d(u.relu(), convolution.weight, convolution.bias)
        return binary_cross_entropy_with_logits(u.squeeze(1), x, reduction="sum") / len(x)

    def along_diagonals(self, a, between):
        height, width = a.shape[2:]
        skewed = pad(a, (0, height)).flatten(2)[..., :-height].unflatten(2, (height, -1))
        inside = pad(torch.ones(height, width), (0, height)).flatten()[:-height].view(height, -1)
        kernel = between.weight.unflatten(1, (2, -1)).flip(1).transpose(1, 2)
        h = self.along(skewed.unbind(3), lambda before: conv1d(pad(before, (1, 0)), kernel), 3, inside)
        return pad(h.flatten(2), (0, height)).unflatten(2, (height, -1))[..., :width]

    @staticmethod
    def along(fronts, between, dim, inside=None):
        h = c = None
        states = []
        for time, gates in enumerate(fronts):
            o, f, i, g = (gates if h is None else gates + between(h)).chunk(4, 1)
            new = i.sigmoid() * g.tanh()
            c = new if c is None else f.sigmoid() * c + new
            c = c if inside is None else c * inside[:, time]
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim)


@pytest.fixture
def batch():
    return (torch.rand(IMAGES, SIDE, SIDE) < 0.2).float()


@pytest.mark.parametrize(("layer", "aim"), [("row-lstm", 1 / 1.10), ("diagonal-bilstm", 2)])
def test_a_step_costs_no_more_than_the_same_network_in_plain_pytorch(layer, aim, batch, record):
    rnn = zoo.PixelRNN((SIDE, SIDE), layer=layer, hidden=HIDDEN)
    losses = inference.MaximumLikelihood(rnn), PlainPixelRNN(rnn)
    ours, theirs = (torch.autograd.grad(loss(batch), tuple(rnn.parameters())) for loss in losses)
    assert torch.allclose(*(loss(batch) for loss in losses), rtol=1e-5)
    assert all(torch.allclose(*each, rtol=1e-3, atol=1e-3) for each in zip(ours, theirs, strict=True))
    steps = [step_of(loss, adam(rnn)) for loss in losses]
    fast, slow = median_seconds(steps, batch, rounds=9, warm_up=2)
    record(f"pixel-rnn-step-{layer}", ratio=fast / slow, seconds=fast)
    expect({"step": (slow / fast, aim)})


@pytest.mark.parametrize("layer", ["row-lstm", "diagonal-bilstm"])
def test_drawing_is_far_faster_than_a_full_pass_for_each_pixel(layer, record):
    rnn = zoo.PixelRNN((SIDE, SIDE), layer=layer, hidden=HIDDEN)
    x = rnn.sample(IMAGES, seed=0)

    @torch.no_grad()
    def one_pass(_):
        return rnn.conditionals(x)

    cached, single = median_seconds([lambda _: rnn.sample(IMAGES, seed=0), one_pass], None, 5, 1)
    ratio = SIDE**2 * single / cached
    record(f"pixel-rnn-draw-{layer}", ratio=ratio, seconds=cached)
    expect({"drawing": (ratio, 20)})
