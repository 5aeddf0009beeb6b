"""The contract's base class, by models written here: what it adds to a subclass, and what it refuses."""

import copy

import pytest
import torch
from pyro.distributions import constraints
from torch import nn

import zoo
from tests.cases import Coins
from zoo.registry import MODELS, model_class, model_name


class Levels(Coins):
    """Coins under another support: `check` reads nothing else."""

    support = constraints.integer_interval(0, 16)


class RGBPixelCNN(Coins):
    pass


def test_names_say_the_class_and_the_instance():
    names = [cls((2,)).name for cls in (Coins, Coins, RGBPixelCNN, zoo.SupervisedVAE, zoo.VAE)]
    stems, numbers = zip(*(name.rsplit("_", 1) for name in names), strict=True)
    assert stems == ("coins", "coins", "rgb_pixel_cnn", "supervised_vae", "vae")
    assert int(numbers[1]) == int(numbers[0]) + 1


def test_classes_of_one_name_share_no_instance_name():
    other = type("Coins", (Coins,), {})
    assert len({Coins((2,)).name, other((2,)).name, copy.deepcopy(Coins((2,))).name}) == 3


def test_event_shape_may_be_any_sequence():
    assert Coins([2, 3]).event_shape == torch.Size((2, 3))


def test_without_an_exact_density_log_prob_says_where_to_look():
    class Implicit(Coins):
        density = "none"
        log_prob = zoo.GenerativeModel.log_prob

    with pytest.raises(
        NotImplementedError, match=r"Implicit has no exact log_prob \(its density is 'none'\)"
    ):
        Implicit((2,)).log_prob(torch.zeros(1, 2))


def test_a_model_without_latents_needs_no_guide():
    assert Coins((2,)).guide(torch.zeros(1, 2)) is None


def test_sample_passes_conditions_on():
    class Switched(Coins):
        def _sample(self, num: int, on: bool) -> torch.Tensor:
            return torch.full((num, *self.event_shape), float(on))

    assert Switched((2,)).sample(1, on=True).tolist() == [[1.0, 1.0]]
    with pytest.raises(TypeError, match="off"):
        Switched((2,)).sample(1, off=True)


def test_sample_carries_no_gradient_even_where_the_draw_would():
    class Noisy(Coins):
        def _sample(self, num: int) -> torch.Tensor:
            return self.logits + torch.randn(num, *self.event_shape)

    assert not Noisy((2,)).sample(3).requires_grad


def test_sample_follows_a_model_in_training_or_evaluation_alike():
    model = Coins((2,))
    assert torch.equal(model.eval().sample(9, seed=0), model.train().sample(9, seed=0))
    assert model.training


@pytest.mark.parametrize(
    ("cls", "x", "message"),
    [
        (Coins, torch.ones(4), "Coins expects items of shape (batch, 2), got (4,)"),
        (Coins, torch.ones(0, 2), "Coins expects at least one item, got none"),
        (Coins, torch.ones(4, 2).long(), "Coins expects entries of torch.float32, got torch.int64"),
        (Coins, torch.tensor([[0.0, torch.nan]] * 3), "Coins expects numbers, got NaN in 3 of its entries"),
        (Coins, torch.tensor([[0.5, 2.0]]), "Coins expects entries in {0, 1}, got 0.5 and 1 more outside it"),
        (Coins, None, "Coins expects a tensor of items, got NoneType"),
        (Levels, torch.ones(4, 2), "Levels expects entries of torch.int64, got torch.float32"),
        (
            Levels,
            torch.tensor([[0, 17]]),
            "Levels expects entries in {0, ..., 16}, got 17 and 0 more outside it",
        ),
    ],
    ids=["shape", "empty", "type", "nan", "support", "none", "level-type", "level"],
)
def test_check_says_what_was_expected_and_what_came(cls, x, message):
    with pytest.raises(ValueError) as caught:
        cls((2,)).check(x)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("support", "wrong", "words"),
    [
        (constraints.real, torch.inf, "expects finite numbers, got infinity in 1 of its entries"),
        (
            constraints.unit_interval,
            7.0,
            "expects entries in interval(lower_bound=0.0, upper_bound=1.0), got 7",
        ),
        (constraints.positive, -1.0, "expects entries in greaterThan(lower_bound=0.0), got -1"),
    ],
    ids=["real", "unit-interval", "positive"],
)
def test_check_describes_other_supports(support, wrong, words):
    model = Coins((1,))
    model.support = support
    model.check(torch.tensor([[0.5]]))
    with pytest.raises(ValueError) as caught:
        model.check(torch.tensor([[0.5], [wrong]]))
    assert words in str(caught.value)


def test_check_looks_at_every_item():
    x = torch.zeros(25_000, 2)
    Coins((2,)).check(x)
    x[-1, 1] = 2
    with pytest.raises(ValueError, match="got 2 and 0 more"):
        Coins((2,)).check(x)


def test_check_follows_the_type_of_the_parameters():
    model = Coins((2,)).double()
    model.check(torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expects entries of torch\.float64, got torch\.float32"):
        model.check(torch.ones(1, 2))


def test_check_changes_nothing():
    x = torch.ones(4, 2)
    Coins((2,)).check(x)
    assert torch.equal(x, torch.ones(4, 2))


def test_parameters_belong_to_the_module():
    assert [type(param) for param in Coins((2,)).parameters()] == [nn.Parameter]


# The registry


@pytest.mark.parametrize("name", MODELS)
def test_registry_finds_the_class_by_its_name(name):
    cls = model_class(name)
    assert issubclass(cls, zoo.GenerativeModel)
    assert model_name(cls) == name
    assert cls.__name__.lower() == name.replace("-", "")


def test_registry_suggests_the_nearest_name():
    with pytest.raises(ValueError, match=r"unknown model 'vea' \(did you mean vae\?\); the models are "):
        model_class("vea")
    with pytest.raises(ValueError, match="unknown model 'transformer'; the models are ") as caught:
        model_class("transformer")
    assert all(name in str(caught.value) for name in MODELS)


def test_registry_refuses_a_class_that_it_does_not_hold():
    with pytest.raises(ValueError, match="Coins is no model of the zoo"):
        model_name(Coins)
