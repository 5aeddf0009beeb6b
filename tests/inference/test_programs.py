"""Pyro programs, however a user writes them: trained, read back, and nothing left behind."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import inference
from inference.program import Program


def data(num: int = 40) -> torch.Tensor:
    return 2 + 0.5 * torch.randn(num, generator=torch.Generator().manual_seed(0))


def fit(objective, x=None, **settings):
    defaults = {"epochs": 150, "batch_size": 100, "lr": 0.05, "progress": False}
    return inference.fit(objective, data() if x is None else x, **{**defaults, **settings})


def normal_model(x):
    loc = pyro.param("normal.loc", torch.tensor(0.0))
    scale = pyro.param("normal.scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


def test_plain_function_with_constrained_parameters():
    before = pyro.param("normal.loc", torch.tensor(7.0))
    objective = inference.MaximumLikelihood(normal_model)
    fit(objective)
    values = objective.program.parameter_values()
    assert values["normal.loc"].item() == pytest.approx(data().mean().item(), abs=0.01)
    assert values["normal.scale"].item() == pytest.approx(data().std(correction=0).item(), abs=0.01)
    assert dict(pyro.get_param_store().items()) == {"normal.loc": before} and before == 7


def test_two_objectives_over_one_function_do_not_share():
    first, second = inference.MaximumLikelihood(normal_model), inference.MaximumLikelihood(normal_model)
    fit(first, epochs=5)
    second.prepare(data())
    assert (
        second.program.parameter_values()["normal.loc"] == 0 != first.program.parameter_values()["normal.loc"]
    )


def test_trained_functions_are_evaluated_with_their_parameters_through_the_objective():
    objective = inference.MaximumLikelihood(normal_model)
    fit(objective)
    values = objective.program.parameter_values()
    expected = dist.Normal(values["normal.loc"], values["normal.scale"]).log_prob(data())
    estimate = inference.log_likelihood(objective, data(), progress=False)
    assert torch.allclose(estimate.per_item, expected.double(), atol=1e-5) and estimate.kind == "exact"
    assert Program.of(objective) is Program.of(objective.program) is objective.program
    untrained = inference.log_likelihood(normal_model, data(), progress=False)
    assert untrained.mean < estimate.mean - 1


def global_model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    precision = pyro.sample("precision", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", 40, subsample=x):
        pyro.sample("x", dist.Normal(mean, precision.rsqrt()), obs=x)


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal, AutoDelta])
@pytest.mark.parametrize("batch_size", [40, 16])
def test_auto_guide_over_global_latent_sites(auto, batch_size):
    guide = auto(global_model)
    objective = inference.ELBO(global_model, guide)
    result = fit(objective, epochs=5 * batch_size, batch_size=batch_size, lr=0.1, schedule="cosine")
    assert len(pyro.get_param_store()) == 0
    medians = guide.median()
    # The posterior is near the data's mean, drawn to the prior by one part in 1 + 40 · 4 or so.
    assert medians["mean"].item() == pytest.approx(data().mean().item(), abs=0.1)
    assert 2 < medians["precision"].item() < 5
    assert result.history[-1]["train"] < 1.2


def test_bound_of_mini_batches_averages_to_that_of_all():
    """Global sites count once for all items, not once for each batch."""
    guide = AutoDelta(global_model)  # without noise
    objective = inference.ELBO(global_model, guide)
    objective.prepare(data()[:10])
    parts = [objective(data()[start : start + 10]) for start in range(0, 40, 10)]
    whole = inference.ELBO(global_model, guide)(data())
    assert torch.allclose(torch.stack(parts).mean(), whole, atol=1e-5)


def test_guide_over_local_latent_sites_in_a_data_plate():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormal(model)
    fit(inference.ELBO(model, guide), epochs=150, lr=0.2, schedule="cosine")
    medians = torch.stack([guide.median()["z"], data() / 2])
    assert (medians[0] - medians[1]).abs().mean() < 0.1 and torch.corrcoef(medians)[0, 1] > 0.9


class Scaled(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(3.0), constraint=constraints.positive)
        self.loc = PyroSample(dist.Normal(0.0, 10.0))
        self.net = nn.Linear(1, 1)

    def forward(self, x):
        loc, shift = self.loc, self.net(torch.zeros(1)).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc + 0 * shift, self.scale), obs=x)


def test_pyro_module_with_parameter_and_sample():
    model = Scaled()
    guide = AutoNormal(model)
    fit(inference.ELBO(model, guide), epochs=150, lr=0.1)
    assert model.scale.item() == pytest.approx(0.5, abs=0.15)
    assert guide.median()["loc"].item() == pytest.approx(2, abs=0.2)
    assert len(pyro.get_param_store()) == 0


class Methods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(1, 2), nn.Linear(1, 1)

    def forward_program(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.decoder(z.unsqueeze(-1)).squeeze(-1), 1.0), obs=x)

    def backward_program(self, x):
        loc, scale = self.encoder(x.unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))


@pytest.mark.parametrize("dressed", [False, True])
def test_methods_of_a_module(dressed):
    module = Methods()
    model, guide = module.forward_program, module.backward_program
    if dressed:  # Pyro's handlers hide the method
        model, guide = poutine.scale(model, scale=1.0), config_enumerate(guide)
    before = copy.deepcopy(module.state_dict())
    result = fit(inference.ELBO(model, guide), epochs=30)
    assert result.history[-1]["train"] < result.history[0]["train"] - 0.3
    assert not any(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_module_as_model_and_function_as_guide():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.0))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc, 1.0))
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        weight = pyro.param("weight", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(weight * x, 0.4))

    model = Model()
    objective = inference.ELBO(model, guide)
    fit(objective, epochs=150, lr=0.1)
    assert model.loc.item() == pytest.approx(2, abs=0.3)
    assert objective.program.parameter_values()["weight"] > 0.5


def test_modules_that_plain_functions_register():
    net = nn.Linear(1, 1)

    def model(x):
        pyro.module("my.net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(torch.zeros(1)), 1.0), obs=x)

    fit(inference.MaximumLikelihood(model))
    assert net(torch.zeros(1)).item() == pytest.approx(2, abs=0.1)


def test_copy_of_an_objective_is_independent():
    module = Methods()
    objectives = [
        inference.ELBO(module.forward_program, module.backward_program),
        inference.MaximumLikelihood(normal_model),
    ]
    for objective in objectives:
        objective.prepare(data())
        twin = copy.deepcopy(objective)
        before = [param.clone() for param in objective.parameters()]
        fit(twin, epochs=3)
        assert all(torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(before, twin.parameters(), strict=True))


def test_module_parameters_loaded_anew_are_not_overruled():
    module = Methods()
    objective = inference.ELBO(module.forward_program, module.backward_program)
    fit(objective, epochs=2)
    module.load_state_dict(
        {name: torch.zeros_like(v) for name, v in module.state_dict().items()}, assign=True
    )
    objective(data())
    assert all((param == 0).all() for param in module.parameters())


def test_wrong_programs_are_refused():
    for model, guide in ((3, None), (normal_model, 3), (None, None)):
        with pytest.raises(ValueError, match="expected an object with .model and .guide"):
            Program(model, guide)


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("dim", [-1, -2])
def test_plate_over_the_batch_is_told_from_one_of_the_same_size(num, dim):
    def model(x):
        with pyro.plate("features", num, dim=-3 - dim), pyro.plate("data", len(x), dim=dim):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x if dim == -2 else x.T)

    structure = Program(model).prepare(torch.zeros(num, num))
    assert (structure.data_dim, structure.plate_nesting, structure.loose) == (dim, 2, ())
    assert structure.latent == structure.unguided == ("z",)
