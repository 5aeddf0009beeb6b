"""Reweighted wake-sleep against its losses enumerated over every tuple of particles, and in training."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import inference

X = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


class Bit(nn.Module):
    """A bit above a Gaussian."""

    def __init__(self):
        super().__init__()
        for name, value in {"a": 0.3, "w": 1.5, "d": -0.2, "e": 0.4}.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def model(self, x):
        pyro.module("bit", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=self.a))
            pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("bit", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.d + self.e * x))

    def enumerated(self, x):
        z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        log_p = dist.Bernoulli(logits=self.a).log_prob(z) + dist.Normal(self.w * z, 1.0).log_prob(x)
        return log_p, dist.Bernoulli(logits=self.d + self.e * x).log_prob(z)

    def wake(self, x, particles, insomnia=1.0):
        """The expected gradient, over all tuples of particles, as that of a loss."""
        log_p, log_q = self.enumerated(x)
        loss = torch.zeros((), dtype=torch.float64)
        for chosen in itertools.product((0, 1), repeat=particles):
            chosen = list(chosen)
            chance = log_q[chosen].sum(0).exp().detach()
            shares = (log_p - log_q)[chosen].detach().softmax(0)
            learnt = (shares * (log_p[chosen] + insomnia * log_q[chosen])).sum(0)
            loss = loss - (chance * learnt).mean()
        return loss

    def sleep(self, nodes=4001):
        """-E log q(z | x) over the model's own (z, x), on a grid."""
        x = torch.linspace(-10, 12, nodes, dtype=torch.float64)
        log_p, log_q = self.enumerated(x)
        return -(log_p.detach().exp() * log_q).sum() * (x[1] - x[0])


def measured(bit, exact, *, particles, insomnia=1.0, copies=300):
    objective = inference.ReweightedWakeSleep(bit, num_particles=particles, insomnia=insomnia)
    found = inference.gradient_variance(
        {"": objective}, X.repeat(copies), exact=lambda x: exact(x[: len(X)]), repeats=60, progress=False
    )[0]
    assert found.exact.abs().max() > 20 * found.standard_error.max()
    return found


@pytest.mark.parametrize("particles", [2, 5])
def test_wake_gradients_have_the_enumerated_mean(particles):
    bit = Bit()
    found = measured(bit, lambda x: bit.wake(x, particles), particles=particles)
    assert found.deviation < 4
    assert found.bias.startswith("self-normalised weights")


def test_sleep_gradient_has_the_mean_over_the_models_own_draws():
    bit = Bit()
    for insomnia in (0.0, 0.4):
        found = measured(
            bit,
            lambda x, insomnia=insomnia: bit.wake(x, 2, insomnia) + (1 - insomnia) * bit.sleep(),
            particles=2,
            insomnia=insomnia,
        )
        assert found.deviation < 4
    assert inference.ReweightedWakeSleep(bit, insomnia=0.0).bias.startswith("the guide learns on what")


def test_model_gradient_is_the_bounds_and_the_guides_is_not():
    bit = Bit()

    def bound(x):
        log_p, log_q = bit.enumerated(x)
        pairs = torch.logaddexp(*[(log_p - log_q).unsqueeze(place) for place in (0, 1)]) - math.log(2)
        chance = log_q.unsqueeze(0) + log_q.unsqueeze(1)
        return -(chance.exp() * pairs).sum((0, 1)).mean()

    found = measured(bit, bound, particles=2)
    deviation = (found.mean - found.exact).abs() / found.standard_error
    names = list(inference.gradients.named_parameters(inference.ReweightedWakeSleep(bit)))
    assert names == ["a", "w", "d", "e"]
    assert deviation[:2].max() < 4 < deviation[2:].max()
    objective = inference.ReweightedWakeSleep(bit, num_particles=2)
    assert objective(X.repeat(3000)).item() == pytest.approx(bound(X).item(), abs=0.03)
    with torch.no_grad():
        assert objective(X.repeat(3000)).item() == pytest.approx(bound(X).item(), abs=0.03)


def test_draws_of_a_gaussian_are_held():
    loc = nn.Parameter(torch.tensor(0.3))

    class Gauss(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = loc

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc * x, 0.9))

    x = X.float()
    objective = inference.ReweightedWakeSleep(Gauss(), num_particles=4)
    objective.prepare(x)
    torch.manual_seed(0)
    (ours,) = torch.autograd.grad(objective(x), [loc])
    torch.manual_seed(0)
    q = dist.Normal(loc * x, 0.9)
    z = q.expand([4, 3]).sample()
    log_w = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q.log_prob(z)
    (expected,) = torch.autograd.grad(-(log_w.detach().softmax(0) * q.log_prob(z)).sum(0).mean(), [loc])
    assert torch.allclose(ours, expected)


def test_fit_learns_the_model_and_its_posterior():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(300) + 4.0, torch.randn(100)]).double()
    bit = Bit()
    objective = inference.ReweightedWakeSleep(bit, num_particles=5, insomnia=0.5)
    result = inference.fit(objective, x, valid=x, epochs=30, batch_size=50, lr=0.05, progress=False)
    assert bit.w.item() == pytest.approx(4.0, abs=0.3)
    assert bit.a.sigmoid().item() == pytest.approx(0.75, abs=0.06)
    log_p, log_q = bit.enumerated(x)
    posterior = log_p.softmax(0)
    assert (posterior * (posterior.log() - log_q)).sum(0).mean() < 0.02
    exact = -log_p.logsumexp(0).mean().item()
    assert exact - 0.01 < result.history[-1]["valid"] < exact + 0.05


def factor_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=2 * x)


def auxiliary_guide(x):
    logit = pyro.param("logit", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Bernoulli(logits=logit + u))


def plain_guide(x):
    logit = pyro.param("logit", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=logit + x))


def test_what_it_cannot_do_is_refused():
    objective = inference.ReweightedWakeSleep(factor_model, plain_guide, insomnia=0.5)
    with pytest.raises(ValueError, match="observes its arguments as they stand, .* otherwise: x"):
        objective.prepare(X)
    inference.ReweightedWakeSleep(factor_model, plain_guide)(X)
    with pytest.raises(ValueError, match="every site of the guide in the model; not there: u"):
        inference.ReweightedWakeSleep(Bit().model, auxiliary_guide, insomnia=0.0)(X)
    with pytest.raises(ValueError, match="missing there: z"):
        inference.ReweightedWakeSleep(factor_model)(X)
    with pytest.raises(ValueError, match="insomnia must lie between 0 and 1, got 1.5"):
        inference.ReweightedWakeSleep(Bit(), insomnia=1.5)
    with pytest.raises(ValueError, match="num_particles must be an integer of at least 1, got 0"):
        inference.ReweightedWakeSleep(Bit(), num_particles=0)
