"""NADE against equations 9 and 10 of its paper."""

import pytest
import torch

import inference
import zoo
from tests.autoregressive.maximum_likelihood import fitted


@pytest.mark.parametrize("order", [None, (4, 0, 5, 2, 1, 3)], ids=["natural", "scrambled"])
def test_each_conditional_is_the_formula(order):
    nade = zoo.NADE((2, 3), hidden=4, order=order).double()
    with torch.no_grad():
        nade.c.normal_()
        nade.b.normal_()
    x = torch.randint(2, (7, 2, 3)).double()
    probs = nade.conditionals(x).probs.flatten(1)
    entries = x.flatten(1)[:, torch.tensor(nade.order)]
    for step, variable in enumerate(nade.order):
        h = torch.sigmoid(nade.c + sum(entries[:, j : j + 1] * nade.W[j, 0] for j in range(step)))
        p = torch.sigmoid(h @ nade.V[step, 0] + nade.b.view(6)[step])
        assert torch.allclose(probs[:, variable], p, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num", "hidden"), [(6, 4), (784, 500)])
def test_number_of_parameters(num, hidden):
    nade = zoo.NADE((num,), hidden=hidden)
    expected = (num - 1) * hidden + hidden + num * hidden + num
    assert sum(param.numel() for param in nade.parameters()) == expected


def test_every_weight_is_used():
    nade = zoo.NADE((6,), hidden=4)
    nade.log_prob(torch.randint(2, (50, 6)).float()).sum().backward()
    assert all((param.grad != 0).all() for param in nade.parameters())


@pytest.mark.parametrize("hidden", [0, -1])
def test_a_layer_without_units_is_refused(hidden):
    with pytest.raises(ValueError, match=f"hidden must be at least 1, got {hidden}"):
        zoo.NADE((6,), hidden=hidden)


def test_many_variables_stay_finite():
    nade = zoo.NADE((28, 28), hidden=20)
    x = torch.bernoulli(torch.full((3, 28, 28), 0.9))
    log_prob = nade.log_prob(x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(param.grad.isfinite().all() for param in nade.parameters())


def test_it_learns_a_parity():
    """The third of three variables says whether the first two differ, which no logistic regression can."""
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert fitted(zoo.NADE((3,), hidden=8), x) == pytest.approx(2 * 0.6931, abs=0.05)
    assert fitted(zoo.FVSBN((3,)), x) == pytest.approx(3 * 0.6931, abs=0.05)


def test_mixed_precision_trains():
    nade = zoo.NADE((2, 3), hidden=3)
    before = nade.W.detach().clone()
    result = inference.fit(
        inference.MaximumLikelihood(nade), nade.sample(8), epochs=2, precision="bf16-mixed", progress=False
    )
    assert len(result.history) == 2 and not torch.equal(nade.W, before)
    assert nade.W.dtype == torch.float32
