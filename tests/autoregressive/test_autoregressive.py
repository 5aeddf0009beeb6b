"""The family's base, by a model written here: what it makes of four methods, and what it refuses."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import nn

import zoo
from zoo.autoregressive.autoregressive import Autoregressive

AUTOREGRESSIVE = [getattr(zoo.autoregressive, name) for name in zoo.autoregressive.__all__]


class Counting(Autoregressive):
    """p(x_i = 1 | x_<i) = σ(w Σ_{j<i} x_j): the state is a number."""

    def __init__(self, event_shape, order=None, num_levels=2):
        super().__init__(event_shape, order, num_levels)
        self.w = nn.Parameter(torch.tensor(0.7))

    def params(self, x):
        return self.w * (x.cumsum(-1) - x)

    def initial_state(self):
        return self.w.new_zeros(())

    def params_at(self, step, state):
        return self.w * state

    def advance(self, step, state, value):
        return state + value


def test_four_methods_make_a_model():
    model = Counting((2, 2), order=(3, 1, 0, 2))
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])  # entries 0 to 3; along the scan 1, 0, 1, 1
    p = torch.tensor([0.0, 0.7, 0.7, 1.4]).sigmoid()
    expected = (p[0] * (1 - p[1]) * p[2] * p[3]).log()
    assert torch.allclose(model.log_prob(x), expected)
    trace = poutine.trace(model.model).get_trace(x)
    assert trace.log_prob_sum().item() == pytest.approx(expected.item())
    probs = model.conditionals(x).probs
    assert torch.allclose(probs, torch.stack([p[2], p[1], p[3], p[0]]).view(1, 2, 2))
    held = {f"x_{variable}": value for variable, value in enumerate(x.flatten(1).unbind(1))}
    trace = poutine.trace(pyro.condition(model.model, data=held)).get_trace(num=1)
    assert torch.equal(trace.nodes["_RETURN"]["value"], x)
    assert trace.observation_nodes == ["x_3", "x_1", "x_0", "x_2"]
    assert trace.log_prob_sum().item() == pytest.approx(expected.item())


def test_the_order_is_row_by_row_unless_given():
    assert Counting((2, 3)).order == (0, 1, 2, 3, 4, 5)
    assert Counting((2, 3)).is_natural
    assert Counting((4,), order=range(4)).is_natural
    scrambled = Counting((3,), order=torch.tensor([2, 0, 1]))
    assert scrambled.order == (2, 0, 1) and not scrambled.is_natural


def test_entries_are_numbered_row_by_row():
    model = Counting((2, 3), order=(5, 0, 3, 1, 4, 2))
    x = torch.arange(12).view(2, 2, 3)
    entries = model.in_scan_order(x)
    assert entries.tolist() == [[5, 0, 3, 1, 4, 2], [11, 6, 9, 7, 10, 8]]
    assert torch.equal(model.assembled(entries.unbind(-1)), x)


@pytest.mark.parametrize("order", [None, (5, 0, 3, 1, 4, 2)], ids=["natural", "scrambled"])
@pytest.mark.parametrize("batch_shape", [(), (4,), (2, 3)], ids=str)
def test_items_are_taken_apart_and_put_together_again(order, batch_shape):
    model = Counting((2, 3), order)
    x = torch.randn(*batch_shape, 2, 3)
    entries = model.in_scan_order(x)
    assert entries.shape == (*batch_shape, 6)
    assert torch.equal(model.assembled(entries.unbind(-1)), x)


def test_values_of_different_batches_are_put_together():
    model = Counting((2,))
    x = model.assembled([torch.zeros(3), torch.ones(2, 1)])
    assert x.shape == (2, 3, 2)
    assert x[1, 2].tolist() == [0.0, 1.0]


def test_the_order_is_no_part_of_the_state():
    model = Counting((3,), order=(2, 0, 1))
    assert list(model.state_dict()) == ["w"]
    other = Counting((3,))
    other.load_state_dict(model.state_dict())
    assert other.order == (0, 1, 2)


@pytest.mark.parametrize(
    ("num_levels", "support", "dtype"),
    [
        (2, constraints.boolean, torch.float32),
        (5, constraints.integer_interval(0, 4), torch.int64),
        (None, constraints.real, torch.float32),
    ],
)
def test_levels_say_what_the_entries_may_be(num_levels, support, dtype):
    model = Counting((3,), num_levels=num_levels)
    assert type(model.support) is type(support) and vars(model.support) == vars(support)
    assert model.check(torch.ones(2, 3).to(dtype)) is None


@pytest.mark.parametrize("order", [(), (0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3), (-1, 0, 1)], ids=str)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError) as caught:
        Counting((3,), order)
    assert str(caught.value) == f"order must be a permutation of 0 ... 2, got {order}"


def test_a_long_order_is_cut_in_the_message():
    with pytest.raises(ValueError, match=r"of 0 \.\.\. 783, got \(0, 1, .*, 2\d.*\.\.\.$") as caught:
        Counting((28, 28), order=range(785))
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    "order",
    [
        [0.9, 1.9, 2.9],
        "102",
        ["1", "0", "2"],
        [False, True, 2],
        [0, 1, None],
        5,
        "abc",
        [float("nan"), 1, 2],
        torch.tensor([[0, 1, 2]]),
        torch.tensor([0.0, 1.0, 2.0]),
    ],
    ids=str,
)
def test_an_order_of_anything_but_integers_is_refused(order):
    with pytest.raises(ValueError, match=r"order must be a permutation of 0 \.\.\. 2, got") as caught:
        Counting((3,), order)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [[2, 0, 1], range(2, -1, -1), torch.tensor([2, 0, 1]), np.array([2, 0, 1])])
def test_an_order_may_be_any_sequence_of_integers(order):
    assert Counting((3,), order).order == tuple(int(i) for i in order)


@pytest.mark.parametrize("num_levels", [1, 0, -3])
def test_too_few_levels_are_refused(num_levels):
    with pytest.raises(ValueError, match=f"num_levels must be at least 2, got {num_levels}"):
        Counting((3,), num_levels=num_levels)


def test_integer_models_refuse_other_items():
    model = zoo.Independent((2,), num_levels=3)
    model.check(torch.tensor([[0, 2]]))
    for wrong, words in (
        (torch.tensor([[0, 3]]), r"entries in \{0, \.\.\., 2\}, got 3"),
        (torch.tensor([[0, -1]]), r"entries in \{0, \.\.\., 2\}, got -1"),
        (torch.tensor([[0.0, 1.0]]), r"entries of torch\.int64, got torch\.float32"),
    ):
        with pytest.raises(ValueError, match=words):
            model.check(wrong)


def test_half_of_an_item_can_be_completed_by_its_probability():
    """Importance sampling by what is conditioned on, as a user would write it, against enumeration."""
    model = zoo.FullJoint((4,))
    with torch.no_grad():
        model.logits.normal_()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    p = model.log_prob(every).detach().exp()
    agrees = (every[:, 2] == 1) & (every[:, 3] == 0)
    expected = (p[agrees] @ every[agrees]) / p[agrees].sum()
    held = {"x_2": torch.tensor(1.0), "x_3": torch.tensor(0.0)}
    trace = poutine.trace(pyro.condition(model.model, data=held)).get_trace(num=20_000)
    trace.compute_log_prob()
    weights = (trace.nodes["x_2"]["log_prob"] + trace.nodes["x_3"]["log_prob"]).detach().exp()
    x = trace.nodes["_RETURN"]["value"]
    assert torch.allclose(weights @ x / weights.sum(), expected, atol=0.02)
    assert weights.mean().item() == pytest.approx(p[agrees].sum().item(), abs=0.01)


# Recipes


def recipes():
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}") for cls in AUTOREGRESSIVE for name in cls.recipes
    ]


@pytest.mark.parametrize(("cls", "name"), recipes())
def test_a_recipe_suits_the_data_that_it_is_for(cls, name):
    recipe = cls.recipes[name]
    assert recipe["objective"] in ("maximum-likelihood", "truncated-backpropagation")
    if name.endswith("mnist"):  # not at hand everywhere
        model = cls((28, 28), **recipe["model"])
        assert model.support is constraints.boolean
        return
    data = zoo.load(name)
    model = cls(data.event_shape, **recipe["model"])
    for part in (data.train, data.valid, data.test):
        model.check(part.x)
    assert type(model.support) is type(data.support) and vars(model.support) == vars(data.support)
    assert model.log_prob(data.test.x[:2]).isfinite().all()


def test_every_model_of_the_family_has_a_recipe():
    assert AUTOREGRESSIVE
    assert all(issubclass(cls, Autoregressive) and cls.recipes for cls in AUTOREGRESSIVE)
