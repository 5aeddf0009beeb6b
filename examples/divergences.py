"""One Gaussian, fitted to a target of two modes under four divergences: which modes does it cover?

Takes some 20 seconds. Maximum likelihood is the KL divergence from the data, the ELBO that from the model, a
GAN the Jensen–Shannon divergence, a critic of bounded slope the Wasserstein distance. Each starts narrow and
wide: the Jensen–Shannon divergence alone has a minimum near either, of which that on a single mode is lower.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import inference

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
MODES, SCALE = torch.tensor([-2.0, 2.0]), 0.5
p = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.65, 0.35])), dist.Normal(MODES, SCALE))
torch.manual_seed(0)
data = p.sample((5000, 1))


class Gaussian(nn.Module):
    """q(x) = N(x | loc, scale²), as a Pyro program that observes x, or draws it with a gradient."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.loc, self.log_scale = (
            nn.Parameter(torch.tensor([-1.0])),
            nn.Parameter(torch.tensor([scale]).log()),
        )

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        pyro.module("gaussian", self)
        with pyro.plate("data", num if x is None else len(x)):
            return pyro.sample("x", dist.Normal(self.loc, self.log_scale.exp()).to_event(1), obs=x)


def target(x: Tensor) -> None:
    """The target draws x, and the Gaussian is its guide; the data only say how many."""
    with pyro.plate("data", len(x)):
        pyro.sample("x", p.expand([1]).to_event(1))


def adversarial(q: Gaussian, **options: object) -> inference.Adversarial:
    return inference.Adversarial(q, discriminator=inference.Discriminator((1,), hidden=(64, 64)), **options)


OBJECTIVES = {
    "forward KL(p, q)": lambda q: inference.MaximumLikelihood(q.model),
    "reverse KL(q, p)": lambda q: inference.ELBO(target, lambda x: q.model(num=len(x))),
    "Jensen–Shannon": lambda q: adversarial(q, loss="minimax"),
    "Wasserstein": lambda q: adversarial(q, loss="wasserstein", gradient_penalty=10.0),
}
fits = {}
figure = Figure(figsize=(8, 4.5), layout="constrained")
line = torch.linspace(-6, 6, 400)
print("divergence        start    loc  scale  draws of it within two scales of the mode at -2, at 2")
for panel, (name, objective) in enumerate(OBJECTIVES.items(), start=1):
    axes = figure.add_subplot(2, 2, panel, title=name, ylim=(0, 0.85), yticks=[])
    axes.fill_between(line, p.log_prob(line).exp(), alpha=0.3, label="target")
    for start, scale, style in (("narrow", 0.5, "-"), ("wide", 2.0, "--")):
        torch.manual_seed(0)
        q = Gaussian(scale)
        how = {"batch_size": 250, "lr": 1e-2, "schedule": "cosine", "betas": (0.5, 0.99), "progress": False}
        inference.fit(objective(q), data, epochs=epochs, **how)
        fitted = fits[name, start] = dist.Normal(q.loc.item(), q.log_scale.exp().item())
        near = (fitted.cdf(MODES + 2 * SCALE) - fitted.cdf(MODES - 2 * SCALE)).tolist()
        print(f"{name:18}{start:6}{fitted.mean:6.2f}{fitted.stddev:7.2f}  {near[0]:4.0%}{near[1]:5.0%}")
        axes.plot(line, fitted.log_prob(line).exp(), style, label=f"from a {start} start")
axes.legend()
figure.savefig("divergences.png", dpi=120)
print("wrote divergences.png: the target and what was fitted to it")
