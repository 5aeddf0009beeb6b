"""Gibbs sampling by blocks, of your own conditionals and of a machine's posterior. Takes a few seconds."""

import sys

import pyro.distributions as dist
import torch
from matplotlib import pyplot as plt
from pyro.infer import MCMC

import inference
import zoo

num_draws = 500 if len(sys.argv) < 2 else 50

# Your own model: Gaussian data of unknown mean and precision. Both conditionals are known, and the joint
# posterior has no name. Each is a function of the state, whose first dimension is the chains.
torch.manual_seed(0)
data = dist.Normal(3.0, 2.0).sample((40,))


def mean_given_precision(state):
    """p(mean | precision, data), the prior N(0, 10²)."""
    precision = 0.01 + len(data) * state["precision"]
    return dist.Normal(state["precision"] * data.sum() / precision, precision.rsqrt())


def precision_given_mean(state):
    """p(precision | mean, data), the prior Gamma(1, 1)."""
    squares = (data - state["mean"].unsqueeze(-1)).square().sum(-1)
    return dist.Gamma(1 + len(data) / 2, 1 + squares / 2)


kernel = inference.BlockGibbs({"mean": mean_given_precision, "precision": precision_given_mean})
start = {"mean": torch.zeros(8), "precision": torch.ones(8)}
draws = inference.run_chains(kernel, num_draws, initial=start, warmup=50)
print(inference.diagnose(draws))

# It is a kernel of Pyro's, too: one of Pyro's chains is then the whole batch.
mcmc = MCMC(kernel, num_samples=num_draws, warmup_steps=50, initial_params=start, disable_progbar=True)
mcmc.run()
print(f"by Pyro's MCMC: mean {mcmc.get_samples()['mean'].mean():.2f}")

# A machine brings its conditionals along: even layers and odd ones in turn. With v held, the chains draw from
# p(h | v), which can be held against the exact posterior here, of 2^7 configurations.
machine = zoo.DBM((4, 4), hidden=(5, 2))
with torch.no_grad():
    for W in machine.W:
        W.normal_(std=1.5)
image = torch.eye(4)
clamped = inference.BlockGibbs(machine, clamped={"v": image})
posterior = inference.run_chains(clamped, num_draws, num_chains=200)
gibbs = torch.cat([posterior.samples[name].mean((0, 1)) for name in ("h_1", "h_2")])
exact = machine.exact_posterior_means(image[None])
mean_field = machine.mean_field(image[None])
rows = {
    name: torch.cat([means["h_1"][0], means["h_2"][0]])
    for name, means in (("exact", exact), ("mean field", mean_field))
}
print(f"furthest from the exact means of h: Gibbs {(gibbs - rows['exact']).abs().max():.3f}, ", end="")
print(f"mean field {(rows['mean field'] - rows['exact']).abs().max():.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.scatter(draws.samples["mean"].flatten(), draws.samples["precision"].flatten(), s=2, alpha=0.4)
left.set(xlabel="mean", ylabel="precision", title="the posterior by Gibbs sampling")
for shift, (name, means) in enumerate({**rows, "Gibbs": gibbs}.items()):
    right.bar([unit + 0.25 * (shift - 1) for unit in range(7)], means.tolist(), width=0.25, label=name)
right.set(xlabel="hidden unit", ylabel="mean", title="a machine's hidden units, given an image")
right.legend(fontsize=8)
figure.savefig("gibbs_kernel.png", dpi=120)
print("wrote gibbs_kernel.png: draws of your model, and the means of a machine's hidden units")
