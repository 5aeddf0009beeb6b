"""The VAE against what is known in closed form: a linear-Gaussian decoder, the KL divergence, quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

import inference
import zoo
from zoo.latent.autoencoder import MIN_SCALE


def inverse_softplus(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expm1().log()


class LinearDecoder(nn.Module):
    """x | z ~ N(W z + b, s² I), as raw parameters of `Autoencoder.likelihood`."""

    def __init__(self, W: Tensor, b: Tensor, s: float) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(W), nn.Parameter(b)
        self.raw = inverse_softplus(s - MIN_SCALE)

    def forward(self, z: Tensor) -> Tensor:
        loc = z @ self.W.T + self.b
        return torch.stack([loc, self.raw.expand_as(loc)])


class LinearEncoder(nn.Module):
    """z | x ~ N(A (x - b), diag(scale²)), as raw parameters of `Autoencoder.posterior`."""

    def __init__(self, A: Tensor, b: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.A, self.b, self.raw = (
            nn.Parameter(A),
            nn.Parameter(b.clone()),
            nn.Parameter(inverse_softplus(scale)),
        )

    def forward(self, x: Tensor) -> Tensor:
        loc = (x - self.b) @ self.A.T
        return torch.cat([loc, self.raw.expand_as(loc)], dim=-1)


@pytest.fixture
def linear() -> tuple[zoo.VAE, Tensor, Tensor]:
    """A linear-Gaussian VAE whose guide is the posterior, items, and their log-likelihood.

    The columns of W are orthogonal, so that the posterior N(Λ⁻¹ Wᵀ (x - b) / s², Λ⁻¹), Λ = I + Wᵀ W / s², has
    a diagonal covariance, as the guide has.
    """
    W = torch.tensor([[1.0, 2.0], [2.0, -1.0], [-1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    b = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    s = 0.7
    assert (W.T @ W)[0, 1] == 0
    variance = 1 / (1 + (W * W).sum(0) / s**2)
    vae = zoo.VAE((4,), latent_dim=2, likelihood="gaussian").double()
    vae.decoder = LinearDecoder(W, b, s)
    vae.encoder = LinearEncoder(variance[:, None] * W.T / s**2, b, variance.sqrt())
    x = torch.randn(5, 4, dtype=torch.float64) * 2
    marginal = dist.MultivariateNormal(b, W @ W.T + s**2 * torch.eye(4, dtype=torch.float64))
    return vae, x, marginal.log_prob(x)


def test_one_particle_of_the_posterior_gives_the_likelihood_exactly(linear):
    vae, x, log_likelihood = linear
    weights = inference.log_weights(vae, x, num_particles=1)
    assert torch.allclose(weights[0], log_likelihood, rtol=0, atol=1e-12)
    estimate = inference.log_likelihood(vae, x, particles=1, progress=False)
    assert torch.allclose(estimate.per_item, log_likelihood, rtol=0, atol=1e-12)


def test_the_bound_is_tight_at_the_posterior(linear):
    vae, x, log_likelihood = linear
    loss = inference.ELBO(vae, num_particles=100_000)(x)
    assert -loss.item() == pytest.approx(log_likelihood.mean().item(), abs=0.01)
    assert inference.ImportanceWeighted(vae, num_particles=3)(x).item() == pytest.approx(
        -log_likelihood.mean().item(), abs=1e-12
    )


def test_away_from_the_posterior_the_gap_is_the_divergence(linear):
    vae, x, log_likelihood = linear
    exact = vae.encode(x)
    with torch.no_grad():
        vae.encoder.b += 0.1
        vae.encoder.raw += 0.5
    gap = torch.distributions.kl_divergence(vae.encode(x), exact).mean().item()
    assert gap > 0.1
    loss = inference.ELBO(vae, num_particles=100_000)(x).item()
    assert loss == pytest.approx(gap - log_likelihood.mean().item(), abs=0.02)


def test_draws_have_the_mean_and_covariance_of_the_marginal(linear):
    vae, _, _ = linear
    x = vae.sample(100_000, seed=0)
    W, b = vae.decoder.W.detach(), vae.decoder.b.detach()
    assert torch.allclose(x.mean(0), b, atol=0.03)
    assert torch.allclose(x.T.cov(), W @ W.T + 0.49 * torch.eye(4), atol=0.1)


class Blind(nn.Module):
    """A decoder that gives every code the same parameters."""

    def __init__(self, params: Tensor) -> None:
        super().__init__()
        self.params = nn.Parameter(params)

    def forward(self, z: Tensor) -> Tensor:
        shape = (len(self.params), *z.shape[:-1], self.params.shape[-1])
        return self.params.view(len(self.params), *[1] * (z.dim() - 1), -1).expand(shape)


def test_the_analytic_divergence_is_the_closed_form():
    vae = zoo.VAE((3,), latent_dim=2, hidden=(4,)).double()
    vae.decoder = Blind(torch.randn(1, 3, dtype=torch.float64))
    x = torch.randint(2, (5, 3)).double()
    likelihood = dist.Bernoulli(logits=vae.decoder.params[0]).log_prob(x).sum(-1)
    posterior = vae.encode(x)
    variance = posterior.variance
    divergence = (variance + posterior.mean.square() - 1 - variance.log()).sum(-1) / 2
    assert inference.ELBO(vae)(x).item() == pytest.approx((divergence - likelihood).mean().item(), abs=1e-12)


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_loss_and_gradient_are_those_of_pyro(likelihood, num_particles):
    vae = zoo.VAE((2, 3), latent_dim=2, hidden=(4,), likelihood=likelihood, activation="tanh").double()
    x = torch.randint(2, (5, 2, 3)).double()
    pyros = TraceMeanField_ELBO(num_particles=num_particles, vectorize_particles=True, max_plate_nesting=1)
    objective = inference.ELBO(vae, num_particles=num_particles)
    objective.prepare(x)
    pyro.set_rng_seed(1)
    ours = objective(x)
    pyro.set_rng_seed(1)
    theirs = pyros.differentiable_loss(vae.model, vae.guide, x) / 5
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    params = list(vae.parameters())
    for our, their in zip(
        torch.autograd.grad(ours, params), torch.autograd.grad(theirs, params), strict=True
    ):
        assert torch.allclose(our, their, rtol=0, atol=1e-12)


def test_loss_and_gradient_are_those_of_quadrature():
    vae = zoo.VAE((3,), latent_dim=1, hidden=(4,), activation="tanh").double()
    with torch.no_grad():
        for param in vae.parameters():
            param += 0.5 * torch.randn_like(param)
    x = torch.randint(2, (4, 3)).double()
    nodes, node_weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))
    posterior = vae.encode(x)
    z = posterior.mean + posterior.stddev * nodes[:, None, None]
    log_ratio = vae.decode(z).log_prob(x) + vae.prior().log_prob(z) - posterior.log_prob(z)
    exact = -(node_weights @ log_ratio).mean() / math.sqrt(2 * math.pi)
    params = list(vae.parameters())
    expected = torch.autograd.grad(exact, params)
    loss = inference.ELBO(vae, num_particles=20_000)(x)
    assert loss.item() == pytest.approx(exact.item(), abs=0.01)
    for ours, theirs in zip(torch.autograd.grad(loss, params), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=0.01)


def test_the_guide_is_the_encoder_and_the_model_the_decoder():
    vae = zoo.VAE((2, 3), latent_dim=2, hidden=(4,), likelihood="gaussian")
    x, z = torch.randn(5, 2, 3), torch.randn(5, 2)
    features = vae.encoder(x)
    posterior = vae.encode(x)
    assert torch.equal(posterior.mean, features[:, :2])
    assert torch.equal(posterior.stddev, nn.functional.softplus(features[:, 2:]))
    loc, raw = vae.decoder(z)
    assert torch.equal(vae.decode(z).mean, loc)
    assert torch.equal(vae.decode(z).stddev, nn.functional.softplus(raw) + MIN_SCALE)


def test_a_gaussian_output_never_loses_its_scale():
    vae = zoo.VAE((2,), latent_dim=2, likelihood="gaussian")
    entries = vae.likelihood(torch.full((2, 1, 2), -1e4))
    assert entries.stddev.min().item() == pytest.approx(MIN_SCALE)
    assert entries.log_prob(entries.mean).isfinite().all()


def test_features_and_reconstructions():
    vae = zoo.VAE((2, 3), latent_dim=2, hidden=(4,))
    x = vae.sample(5)
    features, means = vae.features(x), vae.reconstruct(x)
    assert torch.equal(features, vae.encode(x).mean) and not features.requires_grad
    assert torch.equal(means, vae.decode(features).mean) and not means.requires_grad
    assert means.shape == x.shape
    assert vae.encode(x[0]).mean.shape == (2,)
