"""Variational EM: which parameters move when, where it ends, and that it and a baseline resume to the bit."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import inference


class Gauss(nn.Module):
    """One Gaussian above another; guide and model may share the last of the parameters."""

    def __init__(self, *, shared=False):
        super().__init__()
        self.shared = shared
        for name, value in {"w": 0.5, "alpha": 0.1, "tau": -0.1, "both": 0.2}.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def model(self, x):
        pyro.module("gauss", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.w * z + self.both, 1.0), obs=x)

    def guide(self, x):
        pyro.module("gauss", self)
        centred = x - self.both if self.shared else x
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.alpha * centred, self.tau.exp()))


def data(num=400):
    return 0.3 + 2.0 * torch.randn(num, generator=torch.Generator().manual_seed(0))


class Watched(inference.VariationalEM):
    """Keeps which parameters had a gradient, before each step."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.seen = []

    def forward(self, batch):
        loss = super().forward(batch)
        if self.training:
            params = dict(self.program.owners[0].named_parameters())
            grads = torch.autograd.grad(loss, params.values(), retain_graph=True, allow_unused=True)
            self.seen.append({name for name, grad in zip(params, grads, strict=True) if grad is not None})
        return loss


@pytest.mark.parametrize("shared", [False, True])
def test_steps_move_guide_and_model_in_turn(shared, recwarn):
    gauss = Gauss(shared=shared)
    objective = Watched(gauss, e_steps=2, m_steps=1)
    before = {name: param.detach().clone() for name, param in gauss.named_parameters()}
    inference.fit(objective, data(20), epochs=1, batch_size=10, progress=False)
    guide, model = {"alpha", "tau"} | ({"both"} if shared else set()), {"w", "both"}
    moved = {name for name, param in gauss.named_parameters() if not torch.equal(param, before[name])}
    assert moved == guide and objective.seen == [guide, guide] and objective.steps == 2
    inference.fit(objective, data(10), epochs=2, batch_size=10, progress=False)
    assert objective.seen == [guide, guide, model, guide] and objective.steps == 4
    assert not [warning for warning in recwarn if "no gradient of this objective" in str(warning.message)]


def test_gradient_of_each_step_is_the_elbos():
    gauss, x = Gauss(), data(20)
    em, elbo = inference.VariationalEM(gauss), inference.ELBO(gauss)
    params = {name: param for name, param in gauss.named_parameters()}
    for moving in (("alpha", "tau"), ("w", "both")):
        torch.manual_seed(1)
        expected = torch.autograd.grad(elbo(x), list(params.values()))
        torch.manual_seed(1)
        loss = em(x)
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        for name, theirs, ours in zip(params, expected, grads, strict=True):
            assert torch.allclose(ours, theirs) if name in moving else ours is None
        torch.manual_seed(1)
        assert torch.allclose(loss, elbo(x))


def test_evaluation_is_the_plain_bound_and_is_not_counted():
    gauss, x = Gauss(), data(20)
    em, elbo = inference.VariationalEM(gauss).eval(), inference.ELBO(gauss)
    for objective in (em, elbo):
        objective.prepare(x)
    torch.manual_seed(1)
    expected = elbo(x)
    torch.manual_seed(1)
    loss = em(x)
    assert torch.equal(loss, expected) and em.steps == 0
    loss.backward()
    assert all(param.grad is not None for param in gauss.parameters())


def test_it_reaches_the_maximum_likelihood_and_the_posterior():
    """Of N(both, 1 + w²), by steps of the guide and steps of the model."""
    gauss, x = Gauss(shared=True), data()
    objective = inference.VariationalEM(gauss, num_particles=4, e_steps=2)
    inference.fit(objective, x, epochs=150, batch_size=100, lr=0.03, schedule="cosine", progress=False)
    w = math.sqrt(x.var(correction=0) - 1)
    assert gauss.w.abs().item() == pytest.approx(w, abs=0.06)
    assert gauss.both.item() == pytest.approx(x.mean().item(), abs=0.06)
    assert gauss.alpha.abs().item() == pytest.approx(w / (1 + w**2), abs=0.03)
    assert gauss.tau.exp().item() == pytest.approx((1 + w**2) ** -0.5, abs=0.03)


class Bits(nn.Module):
    """A discrete site: steps of the guide go by the score."""

    def __init__(self):
        super().__init__()
        self.w, self.d = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.1))

    def model(self, x):
        pyro.module("bits", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("bits", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.d * x))


class FailsAt:
    """A logger that raises at the end of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def log_metrics(self, metrics, step):
        if step == self.epoch:
            raise KeyboardInterrupt


OBJECTIVES = {
    "variational EM": lambda: inference.VariationalEM(Bits(), e_steps=2),
    "baseline": lambda: inference.ELBO(Bits(), gradient="baseline"),
    "score function": lambda: inference.ELBO(Bits(), gradient="score-function"),
    "leave one out": lambda: inference.ELBO(Bits(), gradient="leave-one-out", num_particles=2),
    "enumerated": lambda: inference.ELBO(Bits(), gradient="enumerated"),
    "doubly reparameterised": lambda: inference.ImportanceWeighted(
        Gauss(), num_particles=3, gradient="doubly-reparameterized"
    ),
    "wake-sleep": lambda: inference.ReweightedWakeSleep(Bits(), num_particles=3, insomnia=0.5),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_interrupted_and_resumed_in_the_same_bits(tmp_path, name):
    def train(objective, **settings):
        history = inference.fit(
            objective,
            data(20),
            valid=data(10),
            epochs=3,
            batch_size=8,  # three steps an epoch, so that none ends with a whole cycle of EM
            lr=0.1,
            checkpoint_seconds=0.0,
            progress=False,
            **settings,
        ).history
        return history, objective.state_dict()

    whole, state = train(OBJECTIVES[name]())
    for epoch in (1, 2):
        train(OBJECTIVES[name](), checkpoint=tmp_path / f"{epoch}.pt", logger=FailsAt(epoch + 1))
        history, resumed = train(OBJECTIVES[name](), checkpoint=tmp_path / f"{epoch}.pt")
        assert history == whole
        assert state.keys() == resumed.keys() and all(torch.equal(state[key], resumed[key]) for key in state)
    buffers = {"variational EM": {"steps"}, "baseline": {"baseline", "baseline_steps"}}
    assert {key for key in state if "." not in key} == buffers.get(name, set())


def test_checkpoint_of_another_gradient_is_refused(tmp_path):
    settings = {"epochs": 1, "checkpoint": tmp_path / "c.pt", "progress": False}
    inference.fit(inference.ELBO(Bits(), gradient="score-function"), data(20), **settings)
    with pytest.raises(ValueError, match="another objective: expected ELBO.*gradient=enumerated"):
        inference.fit(inference.ELBO(Bits(), gradient="enumerated"), data(20), **settings)


def test_what_it_cannot_do_is_refused():
    gauss = Gauss()

    def fixed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 1.0))

    with pytest.raises(ValueError, match="parameters in model and guide, got none in the guide"):
        inference.VariationalEM(gauss.model, fixed)(data(10))
    with pytest.raises(ValueError, match="e_steps must be an integer of at least 1, got 0"):
        inference.VariationalEM(gauss, e_steps=0)
    with pytest.raises(ValueError, match="compile=True expects an objective"):
        inference.fit(inference.VariationalEM(gauss), data(10), epochs=1, compile=True, progress=False)
