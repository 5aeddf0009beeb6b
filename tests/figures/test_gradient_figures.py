"""Gradient estimators side by side, and importance-weighted bounds that rise to the exact log-likelihood."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import inference

pytestmark = pytest.mark.figures

ITEMS, EVENT, LATENT = 50, 5, 2


class FactorAnalysis(nn.Module):
    """z ~ N(0, I), x | z ~ N(W z, σ² I), of known density; the guide is the posterior, made too wide."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(torch.randn(EVENT, LATENT, generator=generator, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(-0.3, dtype=torch.float64))
        precision = torch.eye(LATENT) + self.W.T @ self.W * (-2 * self.log_scale).exp()
        encoder = torch.linalg.solve(precision, self.W.T * (-2 * self.log_scale).exp())
        self.encoder = nn.Parameter(encoder.detach())
        self.width = nn.Parameter((0.5 * precision.inverse().diagonal().log() + math.log(1.7)).detach())

    def model(self, x):
        pyro.module("factors", self)
        with pyro.plate("data", len(x)):
            prior = dist.Normal(torch.zeros(LATENT, dtype=torch.float64), 1.0).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ self.W.T, self.log_scale.exp()).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("factors", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.encoder.T, self.width.exp()).to_event(1))

    def log_prob(self, x):
        covariance = self.W @ self.W.T + (2 * self.log_scale).exp() * torch.eye(EVENT, dtype=torch.float64)
        return dist.MultivariateNormal(torch.zeros(EVENT, dtype=torch.float64), covariance).log_prob(x)

    def negative_elbo(self, x):
        loc, variance = x @ self.encoder.T, (2 * self.width).exp()
        divergence = (0.5 * (loc**2 + variance - 1) - self.width).sum(-1)
        square = (x - loc @ self.W.T).square().sum(-1) + (self.W.square() * variance).sum()
        log_scale = self.log_scale
        expected = EVENT * (0.5 * math.log(2 * math.pi) + log_scale) + 0.5 * square * (-2 * log_scale).exp()
        return (divergence + expected).mean()

    @torch.no_grad()
    def draw(self, num):
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(num, LATENT, generator=generator, dtype=torch.float64)
        noise = torch.randn(num, EVENT, generator=generator, dtype=torch.float64)
        return z @ self.W.T + self.log_scale.exp() * noise


def test_variance_of_the_gradient_estimators(record_result):
    factors = FactorAnalysis()
    x = factors.draw(ITEMS)
    names = ("score-function", "baseline", "leave-one-out", "reparameterized")
    objectives = {name: inference.ELBO(factors, num_particles=10, gradient=name) for name in names}
    found = inference.gradient_variance(
        objectives, x, exact=factors.negative_elbo, repeats=3000, progress=False
    )
    record_result(
        "gradient-variance",
        {
            "items": ITEMS,
            "particles": 10,
            "repeats": 3000,
            "estimators": {
                estimate.name: {
                    "variance": estimate.variance,
                    "signal_to_noise": estimate.signal_to_noise,
                    "bias_norm": estimate.bias_norm,
                    "largest_deviation": estimate.deviation,
                    "seconds": estimate.seconds,
                }
                for estimate in found
            },
        },
    )
    variances = [found[name].variance for name in names]
    for higher, lower in zip(variances, variances[1:], strict=False):
        assert higher > 1.3 * lower, variances
    assert all(estimate.deviation < 4 and estimate.bias is None for estimate in found)


def test_importance_weighted_bounds_rise_to_the_exact_log_likelihood(record_result):
    factors = FactorAnalysis()
    x = factors.draw(ITEMS)
    with torch.no_grad():
        exact, elbo = factors.log_prob(x).mean().item(), -factors.negative_elbo(x).item()
        bounds, errors = {}, {}
        for k, repeats in ((1, 20_000), (5, 4000), (50, 1000), (500, 200)):
            objective = inference.ImportanceWeighted(factors, num_particles=k)
            objective.prepare(x)
            draws = torch.stack([-objective(x.repeat(20, 1)) for _ in range(repeats // 20)])
            bounds[k], errors[k] = draws.mean().item(), draws.std().item() / math.sqrt(len(draws))
    sampled = inference.log_likelihood(factors.model, x, guide=factors.guide, particles=5000, progress=False)
    record_result(
        "iwae-bounds",
        {
            "items": ITEMS,
            "exact": exact,
            "elbo": elbo,
            "bounds": {str(k): value for k, value in bounds.items()},
            "standard_errors": {str(k): value for k, value in errors.items()},
            "importance_sampling": {
                "particles": sampled.particles,
                "mean": sampled.mean,
                "monte_carlo_error": sampled.monte_carlo_error,
            },
        },
    )
    assert abs(bounds[1] - elbo) < 4 * errors[1]
    order = [1, 5, 50, 500]
    for fewer, more in zip(order, order[1:], strict=False):
        error = math.hypot(errors[fewer], errors[more])
        assert bounds[more] > bounds[fewer] - 4 * error
    assert bounds[5] > bounds[1] + 10 * errors[1]  # and not flat within error
    assert all(value < exact + 4 * errors[k] for k, value in bounds.items())
    # To first order the gap is Var(w / p(x)) / 2K.
    assert abs(exact - bounds[500]) < 0.02 * (exact - bounds[1])
    assert abs(sampled.mean - exact) < 4 * sampled.monte_carlo_error
    assert sampled.monte_carlo_error < 0.01
