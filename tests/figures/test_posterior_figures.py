"""NUTS over the parameters of a small PPCA, against importance sampling of the same posterior."""

import arviz
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model

import inference

pytestmark = pytest.mark.figures

IMPORTANCE_DRAWS = 40_000
DEGREES = 4.0


def data():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(30, 1, generator=generator)
    noise = torch.randn(30, 2, generator=generator)
    return (z @ torch.tensor([[1.2, 0.8]]) + torch.tensor([0.5, -0.3]) + 0.5 * noise).double()


def ppca(x):
    """p(x) = N(μ, V Vᵀ + σ² I), one direction of two; V is no less probable with its sign changed."""
    zero = x.new_zeros(2)
    loc = pyro.sample("loc", dist.Normal(zero, 3.0).to_event(1))
    V = pyro.sample("V", dist.Normal(zero.unsqueeze(-1), 1.0).to_event(2))
    scale = pyro.sample("scale", dist.LogNormal(zero[0], 1.0))
    noise = scale.square().unsqueeze(-1).expand(loc.shape)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.LowRankMultivariateNormal(loc, V, noise), obs=x)


def log_likelihood(theta, x):
    """log p(X | θ) for vectors ``(…, 5)`` of μ, V, log σ, by the 2×2 covariance written out."""
    loc, V, log_scale = theta[..., :2], theta[..., 2:4], theta[..., 4]
    covariance = V.unsqueeze(-1) * V.unsqueeze(-2) + (2 * log_scale).exp()[..., None, None] * torch.eye(2)
    density = dist.MultivariateNormal(loc.unsqueeze(-2), covariance.double().unsqueeze(-3))
    return density.log_prob(x).sum(-1)


def log_joint(theta, x):
    """Of μ, V and log σ: the log-normal of σ is a normal of its log."""
    prior = dist.Normal(theta.new_tensor([0.0] * 5), theta.new_tensor([3.0, 3.0, 1.0, 1.0, 1.0]))
    return log_likelihood(theta, x) + prior.log_prob(theta).sum(-1)


def laplace(x):
    """Mode and covariance in unconstrained space, of the half in which V_1 is positive."""
    theta = torch.tensor([0.0, 0.0, 1.0, 1.0, -0.5]).double().requires_grad_()
    optimizer = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -log_joint(theta, x)
        loss.backward()
        return loss

    optimizer.step(closure)
    mode = theta.detach()
    hessian = torch.autograd.functional.hessian(lambda t: -log_joint(t, x), mode)
    return mode, torch.linalg.inv(hessian)


def importance_sampling(x):
    """Draws and their weights, from a Student-t mixture about the two modes, which V's sign tells apart."""
    mode, covariance = laplace(x)
    proposal = dist.MultivariateStudentT(DEGREES, mode, torch.linalg.cholesky(covariance))
    flip = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]).double()
    theta = proposal.sample((IMPORTANCE_DRAWS,))
    theta[::2] *= flip
    log_q = torch.logaddexp(proposal.log_prob(theta), proposal.log_prob(theta * flip))
    return theta, (log_joint(theta, x) - log_q).softmax(0)


def test_nuts_agrees_with_importance_sampling(record_result):
    x = data()
    # Both have the same density in unconstrained space, up to nothing.
    _, potential, transforms, _ = initialize_model(ppca, (x,))
    theta = torch.randn(5).double()
    sites = {"loc": theta[:2], "V": theta[2:4].unsqueeze(-1), "scale": theta[4]}
    assert abs(-potential(sites).item() - log_joint(theta, x).item()) < 1e-8

    draws = inference.nuts(ppca, x, num_draws=600, num_chains=4, warmup=300, progress=False)
    parts = (draws.samples["loc"], draws.samples["V"].squeeze(-1), draws.samples["scale"].log().unsqueeze(-1))
    drawn = torch.cat(parts, -1)
    functions = {
        "log_likelihood": lambda t: log_likelihood(t, x),
        "log_scale": lambda t: t[..., 4],
        "squared_length_of_V": lambda t: t[..., 2:4].square().sum(-1),
        "mean_1": lambda t: t[..., 0],
    }
    theta, weights = importance_sampling(x)
    ess = (1 / weights.square().sum()).item()
    result = {}
    for name, function in functions.items():
        values = function(drawn)
        mcse = float(arviz.mcse(values.numpy(), method="mean"))
        expected = (weights * function(theta)).sum()
        error = (weights * (function(theta) - expected)).square().sum().sqrt()
        result[name] = {
            "nuts": values.mean().item(),
            "mcse": mcse,
            "importance_sampling": expected.item(),
            "importance_error": error.item(),
            "importance_ess": ess,
            "r_hat": float(arviz.rhat(values.numpy())),
        }
    record_result("ppca-posterior", result)
    for name, figures in result.items():
        difference = abs(figures["nuts"] - figures["importance_sampling"])
        assert difference < 3 * (figures["mcse"] ** 2 + figures["importance_error"] ** 2) ** 0.5, name
        assert figures["importance_error"] < figures["mcse"] and figures["importance_ess"] > 10_000, name
        assert figures["mcse"] < 0.1 and figures["r_hat"] < 1.01, name
    assert draws.stats["divergent"].double().mean() < 0.01
