"""compile=True: the traced step is the eager one. All tests but one replay the graph without compiling it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import inference
import zoo


@pytest.fixture
def replayed(monkeypatch):
    """Runs the traced graph as it is."""
    graphs = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graphs.append(graph) or graph)
    return graphs


def bits(num: int = 30) -> torch.Tensor:
    return (torch.rand(num, 4, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def small_vae() -> zoo.VAE:
    torch.manual_seed(3)
    return zoo.VAE((4,), latent_dim=2, hidden=(8,))


def fit(objective, **settings):
    defaults = {"epochs": 4, "batch_size": 8, "lr": 0.02, "progress": False}
    return inference.fit(objective, bits(), **{**defaults, **settings})


class Autoencoder(nn.Module):
    """Deterministic."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4))
        self.runs = 0

    def forward(self, x):
        self.runs += self.training
        return nn.functional.binary_cross_entropy_with_logits(self.net(x), x)


def weights(module):
    return nn.utils.parameters_to_vector(module.parameters())


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_same_losses_and_weights_as_eager(replayed, clip_norm):
    eager, compiled = Autoencoder(), Autoencoder()
    expected = fit(eager, clip_norm=clip_norm)
    result = fit(compiled, clip_norm=clip_norm, compile=True)
    assert [row["train"] for row in result.history] == pytest.approx(
        [row["train"] for row in expected.history]
    )
    assert torch.allclose(weights(eager), weights(compiled), atol=1e-6)
    assert len(replayed) == 1
    assert compiled.runs == 2 + 4 < eager.runs  # traced, and the smaller batch at the end of each epoch


@pytest.mark.parametrize(
    "make", [inference.ELBO, lambda vae: inference.ImportanceWeighted(vae, num_particles=3)]
)
def test_elbo_is_traced_and_the_module_learns(replayed, make):
    compiled, eager = small_vae(), small_vae()
    result = fit(make(compiled), compile=True, valid=bits())
    expected = fit(make(eager), valid=bits())
    # The graph replays the same draws: the same losses up to rounding.
    assert [row["valid"] for row in result.history] == pytest.approx(
        [row["valid"] for row in expected.history], abs=1e-4
    )
    assert torch.allclose(weights(compiled), weights(eager), atol=1e-4)
    assert all(isinstance(param, nn.Parameter) for param in compiled.parameters())


def normal_model(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale).expand([4]).to_event(1), obs=x)


def test_free_parameters_are_traced(replayed):
    compiled, eager = (inference.MaximumLikelihood(normal_model) for _ in range(2))
    fit(compiled, compile=True)
    fit(eager)
    expected = eager.program.parameter_values()
    assert expected["loc"] != 0 and len(replayed) == 1
    for name, value in compiled.program.parameter_values().items():
        assert torch.allclose(value, expected[name], atol=1e-6)
    assert len(pyro.get_param_store()) == 0


def test_resume_to_the_bit(replayed, tmp_path):
    class Stop:
        def log_metrics(self, metrics, step):
            if step == 3:
                raise KeyboardInterrupt

    whole = small_vae()
    history = fit(inference.ELBO(whole), compile=True).history
    settings = {"compile": True, "checkpoint": tmp_path / "c.pt", "checkpoint_seconds": 0.0}
    assert fit(inference.ELBO(small_vae()), logger=Stop(), **settings).interrupted
    vae = small_vae()
    assert fit(inference.ELBO(vae), **settings).history == history
    assert torch.equal(weights(vae), weights(whole))
    with pytest.raises(ValueError, match="another compile"):
        fit(inference.ELBO(small_vae()), checkpoint=tmp_path / "c.pt")


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight.square() if x.sum() > 0 else self.weight


def test_objective_that_depends_on_values_is_refused_in_one_line(replayed):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="do not depend on the values of the batch") as caught:
        fit(Branches(), compile=True)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state) and not replayed


def test_module_that_the_graph_would_not_reach_is_refused(replayed):
    net = nn.Linear(1, 4)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(torch.zeros(1)), 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="the graph does not reach .*free_parameters") as caught:
        fit(inference.MaximumLikelihood(model), compile=True)
    assert "\n" not in str(caught.value)
    before = net.bias.clone()
    fit(inference.MaximumLikelihood(model))
    assert not torch.equal(net.bias, before)


def test_compiled_for_real():
    from torch._inductor import config

    vae = zoo.VAE((4,), latent_dim=1, hidden=(2,))
    # Without trial builds for every set of vector instructions, and without processes that wait for work.
    with config.patch({"cpp.vec_isa_ok": False, "compile_threads": 1}):
        result = fit(inference.ELBO(vae), compile=True, lr=0.1, epochs=20)
    assert result.history[-1]["train"] < result.history[0]["train"] - 0.2
