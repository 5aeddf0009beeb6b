"""RealNVP learns a density over the plane that can be drawn: two moons. Takes a quarter of a minute."""

import math
import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
torch.manual_seed(0)


def moons(share):
    """Points of two half circles that reach into each other, from one end, 0, to the other, 1."""
    arc = torch.stack([(math.pi * share).cos(), (math.pi * share).sin()], -1)
    return torch.cat([arc, torch.tensor([1.0, 0.5]) - arc])


points = moons(torch.rand(2500))[torch.randperm(5000)]
points = points + 0.1 * torch.randn(5000, 2)
train, valid, test = points[:3500], points[3500:4000], points[4000:]

flow = zoo.RealNVP((2,), layers=8, hidden=(64, 64))
inference.fit(
    inference.MaximumLikelihood(flow),
    train,
    valid=valid,
    epochs=epochs,
    batch_size=100,
    lr=4e-3,
    schedule="cosine",
    clip_norm=10.0,
)
print(f"RealNVP:           {inference.log_likelihood(flow, test, progress=False)}")

# What there is to be had: the true density, a mean over the points of both moons.
around = torch.distributions.Normal(moons((torch.arange(1000) + 0.5) / 1000), 0.1)
truth = around.log_prob(test[:, None]).sum(-1).logsumexp(1) - math.log(2000)
gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
print(f"the true density:  log p(x) = {truth.mean():.2f} nats per point")
print(f"one full Gaussian: log p(x) = {gaussian.log_prob(test).mean():.2f} nats per point")

# The flow has a value for every point of the plane; its draws are noise, carried there.
across, up = torch.linspace(-1.6, 2.6, 300), torch.linspace(-1.1, 1.6, 200)
with torch.no_grad():
    density = flow.log_prob(torch.cartesian_prod(across, up)).exp().reshape(300, 200)
drawn = flow.sample(2000, seed=0)
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), sharex=True, sharey=True, layout="constrained")
axes[0].scatter(*train[:2000].T, s=2, color="black")
axes[1].imshow(density.T, origin="lower", extent=(-1.6, 2.6, -1.1, 1.6), cmap="magma")
axes[2].scatter(*drawn.T, s=2, color="black")
for axis, title in zip(axes, ("data", "density learnt", "drawn"), strict=True):
    axis.set(title=title, xlim=(-1.6, 2.6), ylim=(-1.1, 1.6), aspect="equal")
figure.savefig("density_2d.png", dpi=110)
print("wrote density_2d.png: data, the density learnt, draws")
