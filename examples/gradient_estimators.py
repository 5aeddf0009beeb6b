"""The gradients of one bound, made visible: same mean, and variances far apart. Takes a minute."""

import sys

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import inference

repeats = max(10, int(sys.argv[1])) if len(sys.argv) > 1 else 2000
torch.manual_seed(0)
x = torch.tensor([-3.0, -1.0, 0.5, 2.0, 4.0])


class Gaussian(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1), and a guide that is not quite the posterior N(x / 2, 1 / 2)."""

    def __init__(self):
        super().__init__()
        self.slope, self.log_scale = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(-0.2))

    def model(self, x):
        pyro.module("gaussian", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("gaussian", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, self.log_scale.exp()))

    def negative_elbo(self, x):
        """In closed form, but for a constant: its gradient is the exact one."""
        loc, variance = self.slope * x, (2 * self.log_scale).exp()
        return (0.5 * (loc**2 + (x - loc) ** 2) + variance - self.log_scale).mean()


class Mixture(nn.Module):
    """A bit above a Gaussian: nothing to reparameterise, and all of it can be enumerated."""

    def __init__(self):
        super().__init__()
        self.gap, self.slope = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))

    def model(self, x):
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(self.gap * z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.slope * x))


def estimators(program, *names):
    return {name: inference.ELBO(program, num_particles=10, gradient=name) for name in names}


by_score = ("score-function", "baseline", "leave-one-out")
gaussian = Gaussian()
objectives = estimators(gaussian, *by_score, "reparameterized")
found = inference.gradient_variance(objectives, x, exact=gaussian.negative_elbo, repeats=repeats)
print(f"a Gaussian site:\n{found}\n")

mixture = Mixture()
objectives = estimators(mixture, *by_score, "enumerated")
exact = objectives["enumerated"]
objectives["wake-sleep"] = inference.ReweightedWakeSleep(mixture)
print(f"a bit:\n{inference.gradient_variance(objectives, x, exact=exact, repeats=repeats)}\n")

found.draw().savefig("gradient_estimators.png", dpi=120)
print("wrote gradient_estimators.png: the draws of one entry of the gradient, and the variances")
