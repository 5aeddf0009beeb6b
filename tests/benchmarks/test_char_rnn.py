"""What CharRNN costs: a training step of the LSTM against plain PyTorch, the state carried in both."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

import inference
import zoo
from tests.benchmarks.timing import adam, expect, median_seconds, step_of

pytestmark = pytest.mark.figures

PREFIX = "program.owners.0."
"""What an objective calls the model's parameters by."""

K, HIDDEN, LENGTH, ROWS = 84, 512, 100, 32


class PlainLSTM(nn.Module):
    """The network of ``zoo.CharRNN((100,), 84, 512, cell="lstm")`` and its loss, as one writes them down."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(K, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, K)
        self.start = nn.Parameter(torch.zeros(2, 1, HIDDEN))
        self.state = None

    def forward(self, x):
        if self.state is None:
            h, c = self.start.unsqueeze(2).expand(-1, -1, len(x), -1)
        else:
            h, c = self.state
        before = h[-1].unsqueeze(1)
        out, (h, c) = self.rnn(one_hot(x, K).float(), (h.contiguous(), c.contiguous()))
        self.state = h.detach(), c.detach()
        logits = self.head(torch.cat([before, out[:, :-1]], 1))
        return cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="sum") / len(x)


@pytest.fixture
def batch():
    return torch.randint(K, (ROWS, LENGTH))


def pair(batch):
    """The objective as `inference.fit` has it, and the plain network with the same weights."""
    model, plain = zoo.CharRNN((LENGTH,), K, HIDDEN, cell="lstm"), PlainLSTM()
    plain.load_state_dict(model.state_dict())
    objective = inference.TruncatedBackpropagation(model)
    objective.prepare(batch)
    return objective, plain


def test_both_compute_the_same_losses_and_gradients(batch):
    ours, plain = pair(batch)
    for _ in range(2):  # from the beginning, and from the state that it left
        losses = [module(batch) for module in (ours, plain)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
        for module, loss in zip((ours, plain), losses, strict=True):
            module.zero_grad(set_to_none=False)
            loss.backward()
        theirs = {name: param.grad for name, param in plain.named_parameters()}
        for name, param in ours.named_parameters():
            other = theirs[name.removeprefix(PREFIX)]
            assert torch.allclose(param.grad, other, rtol=1e-3, atol=1e-3), name


def test_a_step_costs_at_most_a_tenth_more_than_the_plain_network(batch, record):
    ours, plain = pair(batch)
    own, theirs = median_seconds(
        [step_of(ours, adam(ours)), step_of(plain, adam(plain))], batch, rounds=15, warm_up=2
    )
    record("char-rnn-step", ratio=own / theirs, seconds=own)
    expect({"step": (theirs / own, 1 / 1.10)})
