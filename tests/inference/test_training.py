"""`inference.fit`: that it trains, chooses, stops, is reproducible, and refuses what cannot work."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import inference
import zoo
from zoo.data import dataset as zoo_data


class Regression(nn.Module):
    """Half the squared distance to a point: deterministic, convex, with a minimum that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))
        self.batches: list[torch.Tensor] = []

    def forward(self, batch):
        if self.training:
            self.batches.append(batch)
        return 0.5 * (batch - self.mean).square().sum(-1).mean()


class Split:
    """A split drawn afresh each time: the items are told apart by their noise."""

    dynamic = True

    def __init__(self, num: int) -> None:
        self.num, self.y = num, None

    @property
    def x(self):
        raise AssertionError("training never needs the fixed items")

    def __len__(self) -> int:
        return self.num

    def batch(self, index, generator=None):
        return torch.rand(len(index), 2, generator=generator)


def points(num: int = 20) -> torch.Tensor:
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(1)) + 3


def fit(objective, data, **settings):
    return inference.fit(objective, data, **{"epochs": 3, "batch_size": 8, "progress": False, **settings})


def small_vae() -> zoo.VAE:
    torch.manual_seed(3)
    return zoo.VAE((4,), latent_dim=2, hidden=(8,))


def bits(num: int = 30) -> torch.Tensor:
    return (torch.rand(num, 4, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def test_loss_falls_to_the_minimum_and_the_weights_with_it():
    objective = Regression()
    result = fit(objective, points(), epochs=60, lr=0.1, schedule="cosine")
    minimum = 0.5 * points().var(0, correction=0).sum().item()
    assert result.history[0]["train"] > 2 * result.history[-1]["train"]
    assert result.history[-1]["train"] == pytest.approx(minimum, rel=0.05)
    assert torch.allclose(objective.mean, points().mean(0), atol=0.05)
    assert result.best_epoch == 60 and not result.stopped_early and not result.interrupted


def test_history_rows():
    result = fit(Regression(), points(), valid=points(5), lr=0.25)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert all(list(row) == ["epoch", "train", "valid", "lr"] and row["lr"] == 0.25 for row in result.history)
    assert list(fit(Regression(), points()).history[0]) == ["epoch", "train", "lr"]
    assert result.seconds > 0 and result.rank == 0


def test_training_loss_is_the_mean_over_items_where_the_last_batch_is_smaller():
    values = torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0]).unsqueeze(-1)

    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, batch):
            return batch.mean() + 0 * self.weight

    row = fit(Distance(), values, valid=values, epochs=1, batch_size=2).history[0]
    assert row["train"] == pytest.approx(0.6)
    assert row["valid"] == pytest.approx(0.6)


def test_each_item_is_seen_once_an_epoch_in_another_order():
    objective = Regression()
    fit(objective, points(), epochs=2)
    assert [len(batch) for batch in objective.batches] == [8, 8, 4] * 2
    first, second = torch.cat(objective.batches[:3]), torch.cat(objective.batches[3:])
    assert not torch.equal(first, second)
    assert torch.equal(first[first[:, 0].argsort()], second[second[:, 0].argsort()])


def test_cosine_schedule_runs_from_lr_to_a_hundredth_step_by_step():
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    fit(Regression(), points(), epochs=4, lr=0.1, schedule="cosine", optimizer=Spy)
    expected = [0.1 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / 12))) for step in range(12)]
    assert seen == pytest.approx(expected)
    assert seen[0] == 0.1


def test_clip_norm_bounds_the_step():
    objective = Regression()
    fit(objective, points(), epochs=1, batch_size=20, lr=1.0, clip_norm=0.01, optimizer=torch.optim.SGD)
    assert objective.mean.norm().item() == pytest.approx(0.01, rel=1e-3)


class Still(nn.Module):
    """No gradient anywhere: what moves the parameters is the decay alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    def forward(self, batch):
        return 0 * (self.weight.sum() + self.bias.sum())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_is_plain_gradient_descent_with_it(momentum):
    objective, mean, velocity = Regression(), torch.zeros(2), torch.zeros(2)
    data = points()
    fit(objective, data, epochs=4, batch_size=20, lr=0.1, momentum=momentum)
    for _ in range(4):
        velocity = momentum * velocity + (mean - data.mean(0))
        mean = mean - 0.1 * velocity
    assert torch.allclose(objective.mean, mean, atol=1e-6)


def test_weight_decay_goes_through_the_momentum_and_leaves_biases():
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def forward(self, batch):
            return 0.0 * (self.weight.sum() + self.bias.sum())

    still = Still()
    fit(still, points(), epochs=2, batch_size=20, lr=0.1, momentum=0.5, weight_decay=0.2)
    first = 1 - 0.1 * 0.2
    second = first - 0.1 * (0.5 * 0.2 + 0.2 * first)
    assert torch.allclose(still.weight, torch.full((2, 2), second))
    assert torch.equal(still.bias, torch.ones(2))


def test_weight_decay_shrinks_the_weights_and_leaves_biases():
    still = Still()
    fit(still, points(), epochs=1, batch_size=20, lr=0.1, weight_decay=0.5)
    assert torch.allclose(still.weight, torch.tensor(1 - 0.1 * 0.5))
    assert torch.equal(still.bias, torch.ones(2))


class Wanders(nn.Module):
    """Every step moves the weight by 1; the validation loss is lowest where the weight is 2."""

    def __init__(self, lowest: float = 2.0) -> None:
        super().__init__()
        self.weight, self.lowest = nn.Parameter(torch.zeros(())), lowest

    def forward(self, batch):
        return -self.weight if self.training else (self.weight - self.lowest).square()


def test_best_weights_by_validation_are_restored():
    objective = Wanders()
    result = fit(
        objective, torch.zeros(1, 1), valid=torch.zeros(1, 1), epochs=6, lr=1.0, optimizer=torch.optim.SGD
    )
    assert [row["valid"] for row in result.history] == [1, 0, 1, 4, 9, 16]
    assert result.best_epoch == 2 and objective.weight.item() == 2 and not result.stopped_early


@pytest.mark.parametrize("patience, epochs", [(1, 3), (2, 4), (3, 5), (10, 6)])
def test_patience_stops(patience, epochs):
    objective = Wanders()
    zero = torch.zeros(1, 1)
    result = fit(objective, zero, valid=zero, epochs=6, lr=1.0, optimizer=torch.optim.SGD, patience=patience)
    assert len(result.history) == epochs and result.stopped_early == (epochs < 6)
    assert objective.weight.item() == 2


def test_same_seed_same_bits_and_another_seed_others():
    runs = []
    for seed, stir in ((5, 0), (5, 1), (6, 0)):
        vae = small_vae()
        torch.manual_seed(stir)
        result = fit(inference.ELBO(vae), bits(), valid=bits(10), seed=seed, lr=0.01)
        runs.append((result.history, nn.utils.parameters_to_vector(vae.parameters())))
    assert runs[0][0] == runs[1][0] and torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0] and not torch.equal(runs[0][1], runs[2][1])


def test_generators_parameter_store_and_modes_are_left_as_they_were():
    mine = pyro.param("mine", torch.tensor(2.0), constraint=dist.constraints.positive)
    vae = small_vae()
    vae.decoder.eval()
    modes = [module.training for module in vae.modules()]
    objective = inference.ELBO(vae)
    store = pyro.get_param_store()
    kept = store._params["mine"]
    validation = torch.distributions.Distribution._validate_args
    state = torch.get_rng_state()
    fit(objective, bits(), valid=bits(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(store.keys()) == ["mine"] and store._params["mine"] is kept and store["mine"] == mine
    assert torch.distributions.Distribution._validate_args == validation
    assert [module.training for module in vae.modules()] == modes


def labelled_model(x, y=None):
    rate = pyro.param("rate", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
    with pyro.plate("data", len(x)):
        if y is not None:
            pyro.sample("y", dist.Bernoulli(rate), obs=y.float())
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)


def unlabelled_model(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).expand([2]).to_event(1), obs=x)


def test_split_tensor_and_tuple_train_alike_and_labels_go_where_they_are_taken():
    x, y = points(), torch.ones(20, dtype=torch.int64)
    split = zoo_data.Split(x, y)
    losses = {}
    for name, data in {"split": split, "tuple": (x, y), "tensor": x}.items():
        objective = inference.MaximumLikelihood(labelled_model)
        assert objective.takes_labels
        losses[name] = fit(objective, data, lr=0.1).history[-1]["train"] if name != "tensor" else None
    assert losses["split"] == losses["tuple"]
    plain = inference.MaximumLikelihood(unlabelled_model)
    assert not plain.takes_labels
    assert fit(plain, split).history == fit(inference.MaximumLikelihood(unlabelled_model), x).history


def test_labels_are_taken_by_a_module_whose_forward_has_them():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))

        def forward(self, x, y=None):
            assert y is not None
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.loc, 1.0).expand([2]).to_event(1), obs=x)

    fit(inference.MaximumLikelihood(Model()), zoo_data.Split(points(), torch.ones(20).long()))


def test_dynamic_split_is_drawn_afresh_each_epoch_and_never_made_whole():
    seen = []
    for _ in range(2):
        objective = Regression()
        fit(objective, Split(10), epochs=2, batch_size=10)
        seen.append(objective.batches)
    assert not torch.equal(seen[0][0].sort(0).values, seen[0][1].sort(0).values)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


class Explodes(nn.Module):
    """Turns to NaN after so many training steps: in the loss, the weights alone or validation alone."""

    def __init__(self, where: str, after: int) -> None:
        super().__init__()
        self.weight, self.where, self.after, self.steps = nn.Parameter(torch.ones(())), where, after, 0

    def forward(self, batch):
        self.steps += self.training
        broken = self.steps > self.after
        if broken and (self.where == "loss" or (self.where == "valid" and not self.training)):
            return self.weight * math.nan
        if broken and self.where == "weights" and self.training:
            return (self.weight - self.weight.detach()).sqrt()  # 0, with an infinite slope
        return -self.weight


@pytest.mark.parametrize("where", ["loss", "weights", "valid"])
@pytest.mark.parametrize("after, kept", [(0, 0), (3, 3)])
def test_loss_that_is_not_finite_names_the_epoch_and_keeps_the_best_weights(where, after, kept):
    objective = Explodes(where, after)
    zero = torch.zeros(1, 1)
    valid = zero if where == "valid" else None
    with pytest.raises(FloatingPointError, match=f"in epoch {after + 1}, .*weights of epoch {kept}$"):
        fit(objective, zero, valid=valid, epochs=6, lr=1.0, optimizer=torch.optim.SGD)
    assert objective.weight.item() == 1 + after


class Refuses(nn.Module):
    """Gives up by itself after so many steps of training, or in validation after those."""

    def __init__(self, where: str, after: int) -> None:
        super().__init__()
        self.weight, self.where, self.after, self.steps = nn.Parameter(torch.ones(())), where, after, 0

    def forward(self, batch):
        self.steps += self.training
        if self.steps > self.after and self.training == (self.where == "train"):
            raise FloatingPointError("layer 3 (Coupling) gives a value that is not finite")
        return -self.weight


@pytest.mark.parametrize("where", ["train", "valid"])
@pytest.mark.parametrize("after", [0, 3])
def test_an_objective_that_gives_up_is_passed_on_with_the_best_weights(where, after):
    objective = Refuses(where, after)
    items = torch.zeros(2, 1)  # two steps an epoch: the first error may come amid one
    with pytest.raises(FloatingPointError, match="^layer 3"):
        fit(objective, items, valid=items, epochs=6, batch_size=1, lr=1.0, optimizer=torch.optim.SGD)
    whole_epochs = after // 2
    assert objective.weight.item() == 1 + 2 * whole_epochs


def test_loss_that_is_not_finite_is_found_within_a_long_epoch():
    objective = Explodes("loss", after=20)
    with pytest.raises(FloatingPointError, match="in epoch 1, by step 100"):
        fit(objective, torch.zeros(1000, 1), epochs=1, batch_size=1, lr=1.0, optimizer=torch.optim.SGD)
    assert objective.steps == 100


def test_float64_stays_float64():
    objective = Regression().double()
    fit(objective, points().double())
    assert objective.mean.dtype == torch.float64


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer of at least 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"devices": 0}, "devices must be"),
        ({"num_nodes": 0}, "num_nodes must be"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"lr": math.nan}, "lr must be above 0, got nan"),
        ({"lr": math.inf}, "lr must be above 0, got inf"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, got 'linear'"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, and left to Adam, got -0.1"),
        ({"weight_decay": math.inf}, "weight_decay must be at least 0"),
        ({"weight_decay": 0.1, "optimizer": torch.optim.SGD}, "got 0.1 with an optimizer of its own"),
        ({"momentum": -0.1}, "momentum must lie between 0 and 1, below it, got -0.1"),
        ({"momentum": 1.0}, "momentum must lie between 0 and 1, below it, got 1.0"),
        ({"momentum": math.nan}, "momentum must lie between 0 and 1, below it, got nan"),
        ({"momentum": 0.5, "optimizer": torch.optim.SGD}, "got 0.5 with an optimizer of its own"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"patience": 2}, "patience expects at least 1 and a valid set"),
        ({"patience": 0, "valid": torch.zeros(2, 2)}, "patience expects at least 1"),
        ({"compile": True, "devices": 2}, "compile=True runs on one device"),
        ({"checkpoint": "no/such/folder/checkpoint.pt"}, "checkpoint must lie in a folder that exists"),
        ({"valid": torch.zeros(0, 2)}, "expected a tensor of items"),
    ],
)
def test_arguments_are_checked(settings, message):
    objective = Regression()
    with pytest.raises(ValueError, match=message) as caught:
        fit(objective, points(), **settings)
    assert "\n" not in str(caught.value)
    assert not objective.batches


@pytest.mark.parametrize(
    "data", [torch.zeros(0, 2), torch.tensor(1.0), (torch.zeros(3, 2), torch.zeros(4)), [1.0, 2.0], 3, ()]
)
def test_data_are_checked(data):
    with pytest.raises(ValueError, match="expected a tensor of items") as caught:
        fit(Regression(), data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data, message",
    [
        (torch.zeros(3, 5), "VAE expects items of shape"),
        (torch.full((3, 4), math.nan), "NaN"),
        (torch.full((3, 4), 0.5), "entries in {0, 1}"),
        ((torch.zeros(3, 4), torch.zeros(3)), "does not take 2 tensors"),
    ],
)
def test_data_are_checked_by_the_model(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(inference.ELBO(small_vae()), data)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        fit(inference.ELBO(small_vae()), bits(), valid=data)


def test_dynamic_split_is_checked():
    with pytest.raises(ValueError, match="VAE expects items of shape"):
        fit(inference.ELBO(small_vae()), Split(10))


def test_nothing_to_train_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)

    with pytest.raises(ValueError, match="no parameters to train"):
        fit(inference.MaximumLikelihood(model), points())


def test_ctrl_c_keeps_what_there_is():
    class Interrupted(Wanders):
        steps = 0

        def forward(self, batch):
            self.steps += self.training
            if self.steps == self.stop:
                raise KeyboardInterrupt
            return super().forward(batch)

    for stop, weight, epochs in ((3, 2, 0), (6, 4, 1), (11, 8, 2)):
        objective = Interrupted(lowest=8)
        objective.stop = stop
        data = torch.zeros(4, 1)
        result = fit(objective, data, valid=data, batch_size=1, lr=1.0, optimizer=torch.optim.SGD)
        assert result.interrupted and len(result.history) == result.best_epoch == epochs
        assert objective.weight.item() == weight


class Constant(nn.Module):
    """A loss that never changes, with one weight that it uses and one that it does not."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        return 0 * self.used + 1.0


@pytest.mark.filterwarnings("ignore:no gradient")
def test_an_equal_loss_is_no_improvement():
    result = inference.fit(
        Constant(), torch.zeros(6, 2), valid=torch.zeros(6, 2), epochs=50, patience=3, progress=False
    )
    assert result.best_epoch == 1
    assert result.stopped_early
    assert len(result.history) == 4


def test_parameters_that_no_gradient_reaches_are_named():
    with pytest.warns(UserWarning, match="reaches 1 of the parameters, idle among them"):
        inference.fit(Constant(), torch.zeros(6, 2), epochs=1, progress=False)


def test_a_model_in_the_place_of_an_objective_is_refused():
    with pytest.raises(
        ValueError, match=r"expects an objective, for instance inference.ELBO\(model\), got VAE"
    ):
        inference.fit(zoo.VAE((2,)), torch.zeros(6, 2), epochs=1)
