"""The full joint table against the table itself, and against counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zoo
from tests.autoregressive.maximum_likelihood import fitted


def configurations(num):
    """All of them, the first variable slowest, shape ``(2^num, num)``."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * num).reshape(-1, num)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_number_of_parameters(num):
    assert sum(param.numel() for param in zoo.FullJoint((num,)).parameters()) == 2**num - 1


@given(st.permutations(range(4)), st.integers(0, 2**31))
def test_log_prob_is_the_table_in_scan_order(order, seed):
    generator = torch.Generator().manual_seed(seed)
    model = zoo.FullJoint((2, 2), order=order)
    with torch.no_grad():
        model.logits.copy_(torch.randn(15, generator=generator) * 3)
    x = torch.empty(16, 4)
    x[:, torch.tensor(order)] = configurations(4)
    expected = torch.cat([torch.zeros(1), model.logits]).log_softmax(0)
    assert torch.allclose(model.log_prob(x.view(16, 2, 2)), expected, atol=1e-5)


def test_each_conditional_is_a_ratio_of_sums():
    model = zoo.FullJoint((4,))
    with torch.no_grad():
        model.logits.normal_()
    every = configurations(4)
    p = torch.cat([torch.zeros(1), model.logits]).softmax(0)
    for x, probs in zip(every, model.conditionals(every).probs, strict=True):
        for i in range(4):
            same = (every[:, :i] == x[:i]).all(1)
            assert torch.allclose(probs[i], p[same & (every[:, i] == 1)].sum() / p[same].sum(), atol=1e-6)


def test_maximum_likelihood_is_the_share_of_each_configuration():
    counts = torch.tensor([3, 1, 2, 5, 1, 4, 2, 2])
    x = configurations(3).repeat_interleave(counts, dim=0)
    model = zoo.FullJoint((3,))
    loss = fitted(model, x)
    shares = counts / counts.sum()
    assert torch.allclose(model.log_prob(configurations(3)).exp(), shares, atol=1e-3)
    assert loss == pytest.approx(-(shares @ shares.log()).item(), abs=1e-4)


def test_items_never_seen_lose_their_probability():
    x = configurations(4)[[0, 3, 9]]
    model = zoo.FullJoint((2, 2))
    fitted(model, x.view(3, 2, 2))
    p = model.log_prob(configurations(4).view(-1, 2, 2)).exp()
    assert torch.allclose(p[[0, 3, 9]], torch.full((3,), 1 / 3), atol=0.03)


def test_a_table_that_is_too_large_is_refused():
    zoo.FullJoint((4, 5))
    with pytest.raises(ValueError, match="at most 20 entries for a table of all configurations, got 21"):
        zoo.FullJoint((3, 7))
