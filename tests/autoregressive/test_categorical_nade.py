"""NADE over levels against its formula."""

import pytest
import torch

import zoo


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("num_levels", [3, 5])
@pytest.mark.parametrize("order", [None, (2, 0, 3, 1)], ids=["natural", "scrambled"])
def test_each_conditional_is_the_formula(order, num_levels, ordered):
    nade = zoo.CategoricalNADE((2, 2), num_levels=num_levels, hidden=5, ordered=ordered, order=order).double()
    with torch.no_grad():
        nade.c.normal_()
        nade.b.normal_()
    x = torch.randint(num_levels, (7, 2, 2))
    probs = nade.conditionals(x).probs.flatten(1, 2)
    for item, ours in zip(x.flatten(1).tolist(), probs, strict=True):
        a = nade.c
        for step, variable in enumerate(nade.order):
            b = nade.b.view(4, num_levels)[step]
            p = torch.softmax(nade.V[step] @ torch.sigmoid(a) + b, dim=-1)
            assert torch.allclose(ours[variable], p, rtol=0, atol=1e-12)
            if step < 3:
                rows = range(item[variable]) if ordered else [item[variable]]  # row k - 1 is for [x >= k]
                a = a + sum((nade.W[step, row] for row in rows), torch.zeros(5))


@pytest.mark.parametrize(("ordered", "num_inputs"), [(True, 16), (False, 17)])
def test_number_of_parameters(ordered, num_inputs):
    nade = zoo.CategoricalNADE((8, 8), num_levels=17, hidden=50, ordered=ordered)
    expected = 63 * num_inputs * 50 + 50 + 64 * 17 * 50 + 64 * 17
    assert sum(param.numel() for param in nade.parameters()) == expected


@pytest.mark.parametrize(("wrong", "words"), [(3, "got 3"), (-1, "got -1"), (17, "got 17")])
def test_a_value_outside_the_levels_is_refused(wrong, words):
    nade = zoo.CategoricalNADE((2,), num_levels=3, hidden=4)
    with pytest.raises(ValueError, match=rf"entries in \{{0, \.\.\., 2\}}, {words} and 0 more"):
        nade.check(torch.tensor([[0, wrong]]))


def test_items_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match=r"expects entries of torch\.int64, got torch\.float32"):
        zoo.CategoricalNADE((2,), num_levels=3, hidden=4).check(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_levels": 2}, r"num_levels must be at least 3 \(NADE has two levels\), got 2"),
        ({"num_levels": 3, "hidden": 0}, "hidden must be at least 1, got 0"),
        ({"num_levels": 3, "order": (0, 0)}, r"permutation of 0 \.\.\. 1, got \(0, 0\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        zoo.CategoricalNADE((2,), **arguments)


def test_the_real_levels_of_the_digits_are_scored():
    data = zoo.load("digits-levels")
    nade = zoo.CategoricalNADE(data.event_shape, num_levels=17, hidden=10)
    nade.check(data.train.x)
    assert data.train.x.max() == 16
    assert nade.log_prob(data.train.x[:20]).isfinite().all()
