"""Every estimator of a gradient against the exact one, on tiny discrete and Gaussian programs."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import inference

X = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
COPIES = 100
"""Of each item: a mean over as many independent draws, and the same exact gradient."""


class Tiny(nn.Module):
    """Named scalar parameters, float64."""

    def __init__(self, **values):
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    @property
    def zero(self):
        return torch.zeros((), dtype=torch.float64)


class Bits(Tiny):
    """Two dependent bits above a Gaussian; the guide draws the lower from the upper."""

    def __init__(self):
        super().__init__(a=0.3, b=-0.4, c=0.8, v=0.9, w=1.2, d=0.2, e=0.5, f=-0.3, g=0.4, h=0.6)

    def model(self, x):
        pyro.module("bits", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Bernoulli(logits=self.a))
            z_1 = pyro.sample("z_1", dist.Bernoulli(logits=self.b + self.c * z_2))
            pyro.sample("x", dist.Normal(self.w * z_1 + self.v * z_2, 1.0), obs=x)

    def guide(self, x):
        pyro.module("bits", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Bernoulli(logits=self.d + self.e * x))
            pyro.sample("z_1", dist.Bernoulli(logits=self.f + self.g * x + self.h * z_2))

    def enumerated(self, x):
        """log p(x, z) and log q(z | x), both of shape (4, batch)."""
        z_2, z_1 = (bit.unsqueeze(-1) for bit in torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]).double())
        log_p = dist.Bernoulli(logits=self.a).log_prob(z_2)
        log_p = log_p + dist.Bernoulli(logits=self.b + self.c * z_2).log_prob(z_1)
        log_p = log_p + dist.Normal(self.w * z_1 + self.v * z_2, 1.0).log_prob(x)
        log_q = dist.Bernoulli(logits=self.d + self.e * x).log_prob(z_2)
        return log_p, log_q + dist.Bernoulli(logits=self.f + self.g * x + self.h * z_2).log_prob(z_1)

    def negative_elbo(self, x):
        log_p, log_q = self.enumerated(x)
        return -(log_q.exp() * (log_p - log_q)).sum(0).mean()


class Gauss(Tiny):
    """One Gaussian above another, with a linear guide."""

    def __init__(self):
        super().__init__(w=1.1, b=0.2, s=-0.2, alpha=0.2, beta=0.1, tau=-0.1)

    def model(self, x):
        pyro.module("gauss", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            pyro.sample("x", dist.Normal(self.w * z + self.b, self.s.exp()), obs=x)

    def guide(self, x):
        pyro.module("gauss", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.alpha * x + self.beta, self.tau.exp()))

    def negative_elbo(self, x):
        loc, variance = self.alpha * x + self.beta, (2 * self.tau).exp()
        divergence = 0.5 * (loc**2 + variance - 1) - self.tau
        square = (x - self.w * loc - self.b) ** 2 + self.w**2 * variance
        return (divergence + 0.5 * math.log(2 * math.pi) + self.s + 0.5 * square * (-2 * self.s).exp()).mean()

    def log_weight(self, x, noise):
        """log p(x, z) - log q(z | x) at z made of standard noise, the last dimension."""
        q = dist.Normal(self.alpha * x + self.beta, self.tau.exp())
        z = q.loc + q.scale * noise[0]
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(self.w * z + self.b, self.s.exp()).log_prob(x)
        return log_p - q.log_prob(z)


class SharedGauss(Gauss):
    """The guide uses the model's own weight."""

    def guide(self, x):
        pyro.module("gauss", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * self.w * x + self.beta, (self.tau + 0.2 * self.s).exp()))

    def log_weight(self, x, noise):
        q = dist.Normal(0.3 * self.w * x + self.beta, (self.tau + 0.2 * self.s).exp())
        z = q.loc + q.scale * noise[0]
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(self.w * z + self.b, self.s.exp()).log_prob(x)
        return log_p - q.log_prob(z)


class Chain(Tiny):
    """Two Gaussians in a chain; the guide draws the lower from the upper."""

    def __init__(self):
        super().__init__(m=0.1, c=0.8, w=1.1, alpha=0.4, upper=-0.1, beta=0.5, gamma=0.3, lower=-0.3)

    def model(self, x):
        pyro.module("chain", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(self.m, 1.0))
            z_1 = pyro.sample("z_1", dist.Normal(self.c * z_2, 1.0))
            pyro.sample("x", dist.Normal(self.w * z_1, 1.0), obs=x)

    def guide(self, x):
        pyro.module("chain", self)
        with pyro.plate("data", len(x)):
            z_2 = pyro.sample("z_2", dist.Normal(self.alpha * x, self.upper.exp()))
            pyro.sample("z_1", dist.Normal(self.beta * x + self.gamma * z_2, self.lower.exp()))

    def log_weight(self, x, noise):
        q_2 = dist.Normal(self.alpha * x, self.upper.exp())
        z_2 = q_2.loc + q_2.scale * noise[0]
        q_1 = dist.Normal(self.beta * x + self.gamma * z_2, self.lower.exp())
        z_1 = q_1.loc + q_1.scale * noise[1]
        log_p = dist.Normal(self.m, 1.0).log_prob(z_2) + dist.Normal(self.c * z_2, 1.0).log_prob(z_1)
        log_p = log_p + dist.Normal(self.w * z_1, 1.0).log_prob(x)
        return log_p - q_2.log_prob(z_2) - q_1.log_prob(z_1)


def quadrature(program, x, *, latents, particles, nodes=16):
    """The negative importance-weighted bound of 1 or 2 particles, by Gauss-Hermite quadrature."""
    points, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(nodes))
    weights = weights / weights.sum()
    noise = torch.cartesian_prod(*[points] * latents).reshape(-1, latents).T.unsqueeze(-1)
    shares = torch.cartesian_prod(*[weights] * latents).reshape(-1, latents).prod(-1)
    log_w = program.log_weight(x, noise)
    if particles == 1:
        return -(shares.unsqueeze(-1) * log_w).sum(0).mean()
    bound = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    return -(shares.outer(shares).unsqueeze(-1) * bound).sum((0, 1)).mean()


def distinct(loss):
    """A closed form needs each of the copies once."""
    return lambda batch: loss(batch[: len(X)])


def compare(objectives, exact, *, repeats=60, copies=COPIES):
    return inference.gradient_variance(
        objectives, X.repeat(copies), exact=distinct(exact), repeats=repeats, progress=False
    )


def assert_unbiased(found):
    for estimate in found:
        assert estimate.bias is None
        assert estimate.deviation < 4, estimate.name
        # The gradient is told from none at all, and from one of half the size.
        assert estimate.exact.abs().max() > 20 * estimate.standard_error.max(), estimate.name


SCORES = {
    "score-function": 1,
    "baseline": 1,
    "leave-one-out": 2,
}


def test_discrete_estimators_have_the_exact_mean():
    bits = Bits()
    objectives = {
        name: inference.ELBO(bits, gradient=name, num_particles=k) for name, k in SCORES.items()
    } | {
        "four": inference.ELBO(bits, gradient="leave-one-out", num_particles=4),
        "default": inference.ELBO(bits),
    }
    assert_unbiased(compare(objectives, bits.negative_elbo, copies=400))
    for k in (1, 3):
        enumerated = inference.ELBO(bits, gradient="enumerated", num_particles=k)
        found = compare({"enumerated": enumerated}, bits.negative_elbo, repeats=2, copies=1)[0]
        assert found.variance == 0 and found.signal_to_noise == math.inf and found.deviation < 0.1
        assert enumerated(X).item() == pytest.approx(bits.negative_elbo(X).item(), abs=1e-9)


def test_sites_that_are_marked_to_be_enumerated_are_drawn_by_the_score():
    bits = Bits()
    marked = poutine.infer_config(bits.guide, lambda site: {"enumerate": "parallel"})
    objective = inference.ELBO(bits.model, marked, gradient="leave-one-out", num_particles=2)
    torch.manual_seed(0)
    ours = objective(X)
    torch.manual_seed(0)
    assert torch.equal(ours, inference.ELBO(bits, gradient="leave-one-out", num_particles=2)(X))
    assert_unbiased(compare({"marked": objective}, bits.negative_elbo, copies=400))


def test_gaussian_estimators_have_the_exact_mean():
    gauss = Gauss()
    objectives = {name: inference.ELBO(gauss, gradient=name, num_particles=k) for name, k in SCORES.items()}
    objectives["reparameterized"] = inference.ELBO(gauss, gradient="reparameterized")
    found = compare(objectives, gauss.negative_elbo)
    assert_unbiased(found)
    torch.manual_seed(0)
    for objective in objectives.values():
        assert objective(X.repeat(4000)).item() == pytest.approx(gauss.negative_elbo(X).item(), abs=0.06)


def test_variances_fall_in_their_order():
    """With as many particles each; an item's own particles tell more of it than a mean over unlike items."""
    gauss, x = Gauss(), torch.tensor([-4.0, 0.5, 4.0], dtype=torch.float64)
    with torch.no_grad():  # near the posterior, where f differs between items more than between particles
        gauss.alpha.fill_(0.5)
        gauss.tau.fill_(-0.4)
    names = ("score-function", "baseline", "leave-one-out", "reparameterized")
    objectives = {name: inference.ELBO(gauss, gradient=name, num_particles=6) for name in names}
    found = inference.gradient_variance(
        objectives, x, repeats=300, progress=False, params=["alpha", "beta", "tau"]
    )
    variances = [found[name].variance for name in names]
    for higher, lower in zip(variances, variances[1:], strict=False):
        assert higher > 1.3 * lower, variances
    assert found["score-function"].signal_to_noise < found["reparameterized"].signal_to_noise


def test_dependent_gaussian_sites_have_the_exact_mean():
    chain = Chain()
    objectives = {name: inference.ELBO(chain, gradient=name, num_particles=k) for name, k in SCORES.items()}
    objectives["reparameterized"] = inference.ELBO(chain, gradient="reparameterized")
    assert_unbiased(compare(objectives, lambda x: quadrature(chain, x, latents=2, particles=1), copies=1000))


@pytest.mark.parametrize("kind", [Gauss, SharedGauss, Chain])
def test_importance_weighted_gradients_have_the_exact_mean(kind):
    program = kind()
    latents = 2 if kind is Chain else 1
    objectives = {
        name: inference.ImportanceWeighted(program, num_particles=2, gradient=name)
        for name in ("reparameterized", "doubly-reparameterized")
    }
    nodes = 16 if kind is Chain else 40
    found = compare(
        objectives, lambda x: quadrature(program, x, latents=latents, particles=2, nodes=nodes), copies=200
    )
    assert_unbiased(found)
    losses = []
    for objective in objectives.values():
        torch.manual_seed(3)
        losses.append(objective(X))
    assert torch.allclose(*losses)


def test_doubly_reparameterized_guide_gradient_keeps_its_signal_as_particles_are_added():
    gauss = Gauss()
    ratios = []
    for k in (2, 50):
        objectives = {
            name: inference.ImportanceWeighted(gauss, num_particles=k, gradient=name)
            for name in ("reparameterized", "doubly-reparameterized")
        }
        found = inference.gradient_variance(
            objectives, X, repeats=150, params=["alpha", "beta", "tau"], progress=False
        )
        ratios.append(found["reparameterized"].variance / found["doubly-reparameterized"].variance)
    assert ratios[0] > 1.2 and ratios[1] > 4 * ratios[0], ratios


class Posterior(Tiny):
    """The guide is the exact posterior, of the model's own weight."""

    def __init__(self):
        super().__init__(w=1.3)

    def model(self, x):
        pyro.module("posterior", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x):
        variance = 1 / (1 + self.w**2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.w * variance * x, variance.sqrt()))

    def evidence(self, x):
        return -dist.Normal(0.0, (1 + self.w**2).sqrt()).log_prob(x).mean()


def test_exact_posterior_that_shares_the_models_parameters():
    program = Posterior()
    objectives = {
        "reparameterized": inference.ELBO(program, gradient="reparameterized"),
        "leave-one-out": inference.ELBO(program, gradient="leave-one-out", num_particles=2),
        "doubly": inference.ImportanceWeighted(program, num_particles=3, gradient="doubly-reparameterized"),
    }
    found = compare(objectives, program.evidence)
    assert all(estimate.deviation < 4 for estimate in found)
    # All weights are p(x): nothing remains of the draws where neither guide nor model scores them.
    assert found["doubly"].exact.abs().min() > 0.05


class Flow(Tiny):
    """A guide whose transform remembers its last call."""

    def __init__(self):
        super().__init__(shift=0.3)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("flow", self)
        move = dist.transforms.AffineTransform(self.shift, 0.8, cache_size=1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(0.3 * x, 0.9), [move]))

    def negative_elbo(self, x):
        loc, scale = self.shift + 0.24 * x, 0.72
        return (0.5 * loc**2 + 0.5 * (x - loc) ** 2 + scale**2).mean()


def test_transform_with_a_cache_is_scored_at_a_value_that_is_held():
    flow = Flow()
    objectives = {
        "score": inference.ELBO(flow, gradient="leave-one-out", num_particles=2),
        "doubly": inference.ImportanceWeighted(flow, num_particles=1, gradient="doubly-reparameterized"),
    }
    assert_unbiased(compare(objectives, flow.negative_elbo))


def test_an_items_score_meets_its_own_figure_alone():
    """Another item in the batch adds no variance to the gradient of this one's own parameter."""

    class PerItem(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    program = PerItem()
    objective = inference.ELBO(program, gradient="score-function")
    variances = [
        inference.gradient_variance(
            {"": objective}, torch.tensor([0.5, far]).double(), repeats=300, progress=False
        )[0].coordinate_variance
        for far in (0.5, 100.0)
    ]
    assert variances[1][0] == pytest.approx(variances[0][0].item())
    assert variances[1][1] > 1000 * variances[0][1]


def test_baseline_is_that_of_the_steps_before():
    """A mean that the draw itself has a part in would bias the gradient, by less than a large batch shows."""
    gauss = Gauss()
    objective = inference.ELBO(gauss, gradient="baseline")
    past = []
    for step in range(12):
        torch.manual_seed(step)
        grads = torch.autograd.grad(objective(X), [gauss.alpha, gauss.tau])
        torch.manual_seed(step)
        noise = torch.randn(1, 3, dtype=torch.float64)
        z = (gauss.alpha * X + gauss.beta + gauss.tau.exp() * noise).detach()
        log_q = dist.Normal(gauss.alpha * X + gauss.beta, gauss.tau.exp()).log_prob(z)
        f = gauss.log_weight(X, noise).detach()
        mean = torch.zeros(())
        for number, value in enumerate(past):
            mean = mean + max(0.1, 1 / (number + 1)) * (value - mean)
        surrogate = -((f - mean) * log_q - log_q).mean()
        expected = torch.autograd.grad(surrogate, [gauss.alpha, gauss.tau])
        assert torch.allclose(torch.stack(grads), torch.stack(expected), atol=1e-5)
        past.append(f.mean().float())
    kept = objective.baseline.clone()
    objective.eval()(X)
    assert torch.equal(objective.baseline, kept) and objective.baseline_steps == 12


def test_nested_plates_and_scale_keep_the_exact_mean():
    class Nested(Tiny):
        def __init__(self):
            super().__init__(loc=0.2, slope=0.3)

        def model(self, x):
            with poutine.scale(scale=0.5), pyro.plate("data", len(x), dim=-2):
                u = pyro.sample("u", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0))
                with pyro.plate("columns", 2, dim=-1):
                    z = pyro.sample("z", dist.Normal(u, 1.0))
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x.unsqueeze(-1).expand(-1, 2))

        def guide(self, x):
            pyro.module("nested", self)
            with poutine.scale(scale=0.5), pyro.plate("data", len(x), dim=-2):
                u = pyro.sample("u", dist.Normal(self.loc + 0.3 * x.unsqueeze(-1), 0.7))
                with pyro.plate("columns", 2, dim=-1):
                    pyro.sample("z", dist.Normal(self.slope * x.unsqueeze(-1) + 0.1 * u, 0.8))

        def negative_elbo(self, x):
            """Up to a constant: half of E[u² + 2 (z - u)² + 2 (x - z)²] / 2."""
            loc = self.loc + 0.3 * x
            below = self.slope * x + 0.1 * loc
            squares = loc**2 + 2 * (below - loc) ** 2 + 2 * (x - below) ** 2
            return 0.25 * squares.mean()

    nested = Nested()
    objectives = {name: inference.ELBO(nested, gradient=name, num_particles=k) for name, k in SCORES.items()}
    assert_unbiased(compare(objectives, nested.negative_elbo, copies=200))


def loose_model(x):
    pyro.sample("g", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def loose_guide(x):
    pyro.sample("g", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def test_programs_that_cannot_take_a_gradient_are_told_what_they_can():
    bits, gauss = Bits(), Gauss()
    by_score = '"score-function", "baseline", "leave-one-out"'
    cases = [
        (bits, None, "reparameterized", f'and z_2 cannot; these programs can take {by_score}, "enumerated"$'),
        (gauss, None, "enumerated", f'and z cannot; these programs can take "reparameterized", {by_score}$'),
        (loose_model, loose_guide, "baseline", 'outside it: g; these programs can take "reparameterized"$'),
    ]
    for model, guide, gradient, message in cases:
        objective = inference.ELBO(model, guide, gradient=gradient)
        for use in (objective, objective.prepare):
            with pytest.raises(ValueError, match=message):
                use(X)
    with pytest.raises(ValueError, match='at least 2 for gradient="leave-one-out", got 1'):
        inference.ELBO(gauss, gradient="leave-one-out")
    for kind in (inference.ELBO, inference.ImportanceWeighted):
        with pytest.raises(ValueError, match="gradient must be None or one of reparameterized, .* got 'stl'"):
            kind(gauss, gradient="stl")


def test_measuring_leaves_everything_as_it_was():
    gauss = Gauss()
    objective = inference.ELBO(gauss, gradient="baseline").eval()
    objective(X).backward()
    before = {name: param.grad.clone() for name, param in gauss.named_parameters()}
    state, rng = {k: v.clone() for k, v in objective.state_dict().items()}, torch.get_rng_state()
    found = [
        inference.gradient_variance({"": objective}, X, repeats=5, seed=seed, progress=False)[0].draws
        for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), rng) and not objective.training
    assert all(torch.equal(param.grad, before[name]) for name, param in gauss.named_parameters())
    assert all(torch.equal(value, state[name]) for name, value in objective.state_dict().items())


def test_mean_and_variance_by_hand():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, batch):
            return (self.a * torch.randn(2) * torch.tensor([1.0, 3.0])).sum() + batch.mean() * self.a[0]

    noisy = Noisy()
    found = inference.gradient_variance(
        {"noisy": noisy},
        5 * torch.ones(2),
        exact=lambda x: 5 * noisy.a[0],
        repeats=400,
        seed=3,
        progress=False,
    )
    torch.manual_seed(3)
    draws = torch.stack([torch.randn(2) for _ in range(410)])[10:].double() * torch.tensor([1.0, 3.0])
    draws[:, 0] += 5
    (estimate,) = found
    assert torch.allclose(estimate.mean, draws.mean(0), atol=1e-5)
    assert torch.allclose(estimate.coordinate_variance, draws.var(0), rtol=1e-5)
    assert estimate.variance == pytest.approx(draws.var(0).sum().item(), rel=1e-5)
    difference = draws.mean(0) - torch.tensor([5.0, 0.0])
    assert estimate.bias_norm == pytest.approx(difference.norm().item(), rel=1e-4)
    assert estimate.deviation == pytest.approx((difference.abs() / draws.std(0) * 20).max().item(), rel=1e-3)
    assert estimate.entry == (0, "a[0]") and torch.allclose(estimate.draws, draws[:, 0], atol=1e-5)
    assert found["noisy"] is estimate and len(found) == 1
    biased = inference.gradient_variance(
        {"noisy": noisy}, 5 * torch.ones(2), exact=lambda x: 4.5 * noisy.a[0], repeats=400, progress=False
    )
    assert biased[0].deviation > 6


def test_table_and_picture(tmp_path):
    bits = Bits()
    found = inference.gradient_variance(
        {
            "score function": inference.ELBO(bits, gradient="score-function"),
            "enumerated": inference.ELBO(bits, gradient="enumerated"),
            "wake-sleep": inference.ReweightedWakeSleep(bits, num_particles=2),
        },
        X,
        exact=inference.ELBO(bits, gradient="enumerated"),
        repeats=20,
        progress=False,
    )
    lines = str(found).splitlines()
    assert len(lines) == 4 and "nats²" in lines[0]
    assert lines[2].startswith("enumerated") and " 0 " in lines[2]
    assert "biased: self-normalised weights" in lines[3] and "biased" not in lines[1] + lines[2]
    figure = found.draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "score function",
        "enumerated",
        "wake-sleep",
    ]
    assert figure.axes[1].get_xscale() == "log"
    figure.savefig(tmp_path / "picture.png")


def test_what_cannot_be_compared_is_refused():
    gauss, other = Gauss(), Gauss()
    with torch.no_grad():
        other.w += 1
    elbo = inference.ELBO(gauss)
    measure = inference.gradient_variance
    with pytest.raises(ValueError, match="over the same parameters, and a and b differ"):
        measure({"a": elbo, "b": inference.ELBO(other)}, X, progress=False)
    with pytest.raises(ValueError, match="params must be some of w, b, .*, got gain"):
        measure({"a": elbo}, X, params=["gain"], progress=False)
    with pytest.raises(ValueError, match="steps move all parameters, got VariationalEM"):
        measure({"a": inference.VariationalEM(gauss)}, X, progress=False)
    with pytest.raises(ValueError, match="at least 2 repeats, got 0 and 5"):
        measure({}, X, repeats=5)
    with pytest.raises(ValueError, match="repeats must be an integer of at least 1, got 0"):
        measure({"a": elbo}, X, repeats=0)


def free_model(x):
    w = pyro.param("w", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(w * z, 1.0), obs=x)


def free_guide(x):
    scale = pyro.param("scale", torch.tensor(0.9), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x, scale))


def test_parameters_of_plain_functions_are_matched_by_name():
    objectives = {
        name: inference.ELBO(free_model, free_guide, gradient=name)
        for name in ("reparameterized", "score-function")
    }
    found = inference.gradient_variance(objectives, X.float(), repeats=200, params=["scale"], progress=False)
    assert found[0].mean.shape == (1,) and found[0].entry == (0, "scale")
    assert found[0].variance < found[1].variance
    error = (found[0].standard_error.square() + found[1].standard_error.square()).sqrt()
    assert (found[0].mean - found[1].mean).abs() < 4 * error
