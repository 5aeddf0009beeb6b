"""The zoo's transforms in a plain Pyro program: a flow as a guide for a bent posterior. Takes half a minute.

z_1, z_2 ~ N(0, 1), y ~ N(z_1 + z_2², 0.2): many pairs explain y = 1, and they lie on a parabola. A guide that
is Gaussian in each of z cannot follow it; the same guide sent through couplings can.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from zoo.flows import MLP, AffineCoupling, Composed

steps = 40 * int(sys.argv[1]) if len(sys.argv) > 1 else 1000
y = torch.tensor(1.0)


def model():
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(z[..., 0] + z[..., 1] ** 2, 0.2), obs=y)


# Six couplings; each lets one entry pass, and a network of it scales and shifts the other.
pyro.set_rng_seed(0)
first = torch.tensor([True, False])
masks = [first, ~first] * 3
transform = Composed([AffineCoupling(mask, MLP(1, (32, 32), 2)) for mask in masks])


def flow_guide():
    pyro.module("transform", transform)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    pyro.sample("z", dist.TransformedDistribution(base, [transform]))


guides = {"independent Gaussians": AutoNormal(model), "flow": flow_guide}
bounds, draws = {}, {}
for name, guide in guides.items():
    pyro.clear_param_store()
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.1 ** (1 / steps)}), elbo)
    for _ in range(steps):
        svi.step()
    with torch.no_grad(), pyro.plate("draws", 5000):
        trace = pyro.poutine.trace(guide).get_trace()
        joint = pyro.poutine.trace(pyro.poutine.replay(model, trace=trace)).get_trace()
    trace.compute_log_prob()
    joint.compute_log_prob()
    z = draws[name] = trace.nodes["z"]["value"]
    weights = sum(joint.nodes[site]["log_prob"] for site in ("z", "y")) - trace.nodes["z"]["log_prob"]
    bounds[name] = weights.mean().item()
    print(f"log p(y) ≥ {bounds[name]:.3f} nats with {name}")

# Two numbers: the plane can be summed over.
side = torch.linspace(-4, 4, 800)
grid = torch.cartesian_prod(side, side)
log_joint = dist.Normal(0.0, 1.0).log_prob(grid).sum(-1)
log_joint = log_joint + dist.Normal(grid[:, 0] + grid[:, 1] ** 2, 0.2).log_prob(y)
evidence = log_joint.logsumexp(0) + 2 * (side[1] - side[0]).log()
print(f"log p(y) = {evidence:.3f} nats, by a sum over the plane")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True, layout="constrained")
exact = (log_joint - evidence).exp().reshape(800, 800).T
levels = exact.max() * torch.tensor([0.03, 0.2, 0.4, 0.6, 0.8])
for axis, (name, z) in zip(axes, draws.items(), strict=True):
    axis.scatter(*z[:1500].T, s=3, color="tab:orange")
    axis.contour(side, side, exact, levels=levels, colors="black", linewidths=0.7)
    axis.set(title=f"{name}: {evidence - bounds[name]:.2f} nats below log p(y)", xlabel="$z_1$")
    axis.set(ylabel="$z_2$", xlim=(-3, 2.5), ylim=(-2.5, 2.5))
figure.savefig("transforms_in_pyro.png", dpi=110)
print("wrote transforms_in_pyro.png: draws of both guides over the contours of the posterior")
