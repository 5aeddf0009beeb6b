"""PPCA: EM, the eigen-decomposition and gradients find the same, and the posterior is the formula."""

import math

import pytest
import torch
from pyro.distributions import MultivariateNormal
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

import inference
import zoo


def items(num=300, n=5):
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(num, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(num, n, generator=generator, dtype=torch.float64)
    return z @ torch.randn(2, n, generator=generator, dtype=torch.float64) + 0.5 * noise + torch.arange(n)


def covariance(ppca):
    return ppca.V @ ppca.V.T + (2 * ppca.log_scale).exp() * torch.eye(len(ppca.V)).double()


def fitted_in_closed_form(x):
    ppca = zoo.PPCA((x.shape[1],), latent_dim=2).double()
    ppca.closed_form(x)
    return ppca


def test_density_is_that_of_one_gaussian():
    ppca, x = zoo.PPCA((5,), latent_dim=2).double(), items()
    expected = MultivariateNormal(ppca.loc, covariance(ppca)).log_prob(x)
    assert torch.allclose(ppca.log_prob(x), expected, atol=1e-9)


def test_e_step_tells_the_likelihood():
    ppca, x = zoo.PPCA((5,), latent_dim=2).double(), items()
    assert torch.allclose(ppca.e_step(x)[1], ppca.log_prob(x), atol=1e-9)


def test_posterior_is_that_of_the_joint_gaussian():
    """By conditioning the Gaussian of (z, x), block by block."""
    ppca, x = fitted_in_closed_form(items()), items()
    gain = torch.linalg.solve(covariance(ppca), ppca.V).T
    posterior = ppca.posterior(x)
    assert torch.allclose(posterior.mean, (x - ppca.loc) @ gain.T, atol=1e-9)
    left = torch.eye(2).double() - gain @ ppca.V
    assert torch.allclose(posterior.covariance_matrix, left.expand(len(x), 2, 2), atol=1e-9)


def test_closed_form_is_a_maximum():
    ppca, x = fitted_in_closed_form(items()), items()
    for grad in torch.autograd.grad(ppca.log_prob(x).mean(), list(ppca.parameters())):
        assert grad.abs().max() < 1e-9
    best = ppca.log_prob(x).mean()
    with torch.no_grad():
        for param in ppca.parameters():
            param += 0.05 * torch.randn_like(param)
    assert ppca.log_prob(x).mean() < best - 1e-4


def test_em_finds_what_the_eigenvectors_give():
    x, ppca = items(), zoo.PPCA((5,), latent_dim=2).double()
    result = inference.fit_em(ppca, x, epochs=5000, tolerance=1e-13, progress=False)
    exact = fitted_in_closed_form(x)
    assert result.converged
    assert ppca.log_prob(x).mean().item() == pytest.approx(exact.log_prob(x).mean().item(), abs=1e-8)
    assert torch.allclose(covariance(ppca), covariance(exact), atol=1e-4)
    # V is found up to a rotation; what the posterior says of the items is not affected by it.
    ours, theirs = (model.posterior(x).mean @ model.V.T for model in (ppca, exact))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_plain_svi_finds_it_too():
    x, ppca = items(), zoo.PPCA((5,), latent_dim=2).double()
    svi = SVI(ppca.model, ppca.guide, Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(400):
        svi.step(x)
    best = fitted_in_closed_form(x).log_prob(x).mean().item()
    assert ppca.log_prob(x).mean().item() == pytest.approx(best, abs=0.01)
    # With the posterior itself as its guide, the loss has no noise: it is -log p(x).
    assert svi.evaluate_loss(x) == pytest.approx(-ppca.log_prob(x).sum().item(), rel=1e-9)


def test_items_without_noise_are_refused():
    flat = torch.randn(50, 2).double() @ torch.randn(2, 5).double()
    ppca = zoo.PPCA((5,), latent_dim=2).double()
    with pytest.raises(ValueError, match="expected items of more than 2 directions, got .* of a variance of"):
        ppca.closed_form(flat)
    with pytest.raises(ValueError, match="expected items of more than 2 directions, got .* of a variance of"):
        inference.fit_em(ppca, flat, epochs=1000, tolerance=0, progress=False)


def test_items_that_do_not_vary_are_refused():
    x = items()
    x[:, 3] = 1.0
    with pytest.raises(ValueError, match="entry 3"):
        inference.fit_em(zoo.PPCA((5,)).double(), x, epochs=2, progress=False)


def test_features_and_assign():
    ppca, other = fitted_in_closed_form(items()), zoo.PPCA((5,), latent_dim=2).double()
    other.assign(**ppca.theta())
    assert torch.equal(other.features(items()), ppca.features(items()))
    assert math.isclose(other.log_scale.item(), ppca.log_scale.item())
