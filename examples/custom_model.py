"""Your own Pyro program, no part of the zoo, trained and compared by `inference`. Takes a few seconds.

Factor analysis: z ~ N(0, I), x | z ~ N(W z + b, diag s²). Its likelihood is known in closed form, so that the
importance-sampling estimate can be held against the truth.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import nn

import inference

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
torch.manual_seed(0)


def model(x):
    """z ~ N(0, I), x | z ~ N(W z + b, diag s²); every site inside one plate over the items."""
    W = pyro.param("W", lambda: 0.1 * torch.randn(2, 5))
    b = pyro.param("b", lambda: torch.zeros(5))
    s = pyro.param("s", lambda: torch.ones(5), constraint=constraints.positive)
    with pyro.plate("items", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W + b, s).to_event(1), obs=x)


encoder = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 4))


def guide(x):
    """q(z | x): a network that belongs to no model class is registered the usual way."""
    pyro.module("encoder", encoder)
    with pyro.plate("items", len(x)):
        loc, log_scale = encoder(x).chunk(2, dim=-1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


# Data from a factor model whose parameters we know.
true_W, true_s = torch.randn(2, 5), 0.5
items = torch.randn(2000, 2) @ true_W + true_s * torch.randn(2000, 5)
train, valid, test = items[:1200], items[1200:1600], items[1600:]

# `fit` trains what the programs own: the pyro.param statements and the registered network. Pyro's global
# parameter store stays as it was.
objective = inference.ELBO(model, guide)
result = inference.fit(objective, train, valid=valid, epochs=epochs, lr=1e-2, schedule="cosine")
print(f"{len(result.history)} epochs in {result.seconds:.0f} s, ELBO {-result.history[-1]['valid']:.3f} nats")

estimate = inference.log_likelihood(objective.program, test, particles=1000, progress=False)
print("importance sampling:", estimate)

learnt = objective.program.parameter_values()
covariance = learnt["W"].T @ learnt["W"] + learnt["s"].square().diag()
exact = dist.MultivariateNormal(learnt["b"], covariance).log_prob(test).mean().item()
print(f"closed form:         log p(x) = {exact:.2f}")
true_covariance = true_W.T @ true_W + true_s**2 * torch.eye(5)
best = dist.MultivariateNormal(torch.zeros(5), true_covariance).log_prob(test).mean().item()
print(f"true parameters:     log p(x) = {best:.2f}")
