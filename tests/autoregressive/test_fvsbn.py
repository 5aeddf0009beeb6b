"""The fully visible sigmoid belief network against its formula."""

import pytest
import torch

import zoo
from tests.autoregressive.maximum_likelihood import fitted


def network(event_shape, order=None):
    model = zoo.FVSBN(event_shape, order=order)
    with torch.no_grad():
        for param in model.parameters():
            param.normal_()
    return model


@pytest.mark.parametrize("order", [None, (4, 0, 5, 2, 1, 3)], ids=["natural", "scrambled"])
def test_each_conditional_is_the_formula(order):
    model = network((2, 3), order)
    x = torch.randint(2, (7, 2, 3)).float()
    probs = model.conditionals(x).probs.flatten(1)
    entries = x.flatten(1)[:, torch.tensor(model.order)]
    for step, variable in enumerate(model.order):
        logit = model.bias[step] + sum(model.weight[j, step] * entries[:, j] for j in range(step))
        assert torch.allclose(probs[:, variable], torch.sigmoid(logit), atol=1e-6)


def test_number_of_parameters_that_are_used():
    model = network((6,))
    model.log_prob(torch.randint(2, (50, 6)).float()).sum().backward()
    assert int((model.bias.grad != 0).sum() + (model.weight.grad != 0).sum()) == 6 * 7 // 2
    assert torch.equal(model.weight.grad, model.weight.grad.triu(1))


def test_what_lies_below_the_diagonal_is_never_used():
    model, x = network((6,)), torch.randint(2, (9, 6)).float()
    before = model.log_prob(x), model.sample(20, seed=0)
    with torch.no_grad():
        model.weight += torch.full((6, 6), 100.0).tril()
    assert torch.equal(model.log_prob(x), before[0])
    assert torch.equal(model.sample(20, seed=0), before[1])


def test_it_starts_at_fair_coins():
    assert torch.equal(zoo.FVSBN((2, 3)).conditionals(torch.ones(4, 2, 3)).probs, torch.full((4, 2, 3), 0.5))


def test_it_learns_a_copy():
    """The second of two variables is the first: log 2 nats in all."""
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert fitted(zoo.FVSBN((2,)), x) == pytest.approx(0.6931, abs=0.05)
