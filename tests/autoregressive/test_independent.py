"""Independent variables against their margins, counted."""

import math

import pytest
import torch

import zoo
from tests.autoregressive.maximum_likelihood import fitted


@pytest.mark.parametrize(("num_levels", "num"), [(2, 6), (5, 30)])
def test_number_of_parameters(num_levels, num):
    model = zoo.Independent((2, 3), num_levels=num_levels)
    assert sum(param.numel() for param in model.parameters()) == num


def test_it_starts_uniform():
    x = torch.zeros(1, 2, 3)
    assert zoo.Independent((2, 3)).log_prob(x).item() == pytest.approx(-6 * math.log(2))
    assert zoo.Independent((2, 3), num_levels=5).log_prob(x.long()).item() == pytest.approx(-6 * math.log(5))


def test_each_conditional_is_the_formula():
    model = zoo.Independent((2, 2), num_levels=3, order=(2, 0, 3, 1))
    with torch.no_grad():
        model.logits.normal_()
    x = torch.randint(3, (5, 2, 2))
    p = model.logits.softmax(-1)
    expected = sum(p[step, x.flatten(1)[:, variable]].log() for step, variable in enumerate(model.order))
    assert torch.allclose(model.log_prob(x), expected)
    assert torch.allclose(model.conditionals(x).probs[0].flatten(0, 1)[torch.tensor(model.order)], p)


def test_maximum_likelihood_is_the_share_of_each_value():
    x = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    model = zoo.Independent((3,))
    loss = fitted(model, x)
    p = x.mean(0)
    assert torch.allclose(model.conditionals(x).probs, p.expand(4, 3), atol=1e-3)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum()
    assert loss == pytest.approx(entropy.item(), abs=1e-4)


def test_maximum_likelihood_is_the_share_of_each_level():
    x = torch.tensor([[0, 2], [1, 1], [1, 0], [2, 0], [1, 0]])
    model = zoo.Independent((2,), num_levels=3, order=(1, 0))
    fitted(model, x)
    expected = torch.tensor([[0.2, 0.6, 0.2], [0.6, 0.2, 0.2]])
    assert torch.allclose(model.conditionals(x).probs[0], expected, atol=1e-3)
