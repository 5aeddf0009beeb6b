"""A kernel of your own: stochastic gradient Langevin dynamics (Welling & Teh, 2011), from the outside.

A kernel is a class with one method: from the values of all chains to their next ones. `run_chains` runs it,
and so does Pyro's MCMC. This one needs no more than the gradient of a few items at a time,

    x' = x + ε (∇ log p(x) + N/n Σ_batch ∇ log p(item | x)) + √(2ε) z,    z ~ N(0, I),

and never looks at all data at once. It is judged by MALA, which does. Takes some ten seconds.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import inference

num_draws = int(sys.argv[1]) * 50 if len(sys.argv) > 1 else 1000

# Your model, as you would write it: logistic regression on a thousand items.
torch.manual_seed(0)
covariates = torch.randn(1000, 3)
labels = dist.Bernoulli(logits=covariates @ torch.tensor([1.0, -2.0, 0.5])).sample()


def model(covariates, labels, size=1000):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    with pyro.plate("data", len(labels)), pyro.poutine.scale(scale=size / len(labels)):
        pyro.sample("labels", dist.Bernoulli(logits=(covariates * weights).sum(-1)), obs=labels)


class SGLD(inference.Kernel):
    """Langevin dynamics on the gradient of a batch drawn anew in each transition."""

    def __init__(self, model, *data, batch_size, step_size):
        self.model, self.data = model, data
        self.batch_size, self.step_size = batch_size, step_size

    def sample(self, params):  # a dict of tensors, whose first dimension is the chains
        chosen = torch.randint(len(self.data[0]), (self.batch_size,))
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            given = {name: value.unsqueeze(1) for name, value in leaves.items()}  # to the left of the plate
            trace = pyro.poutine.trace(pyro.condition(self.model, given)).get_trace(
                *(d[chosen] for d in self.data)
            )
            gradients = torch.autograd.grad(trace.log_prob_sum(), list(leaves.values()))
        noise = (2 * self.step_size) ** 0.5
        return {
            name: value + self.step_size * gradient + noise * torch.randn_like(value)
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }


start = {"weights": torch.zeros(50, 3)}
sgld = {
    size: inference.run_chains(
        SGLD(model, covariates, labels, batch_size=size, step_size=1e-4), num_draws, initial=start, thin=2
    )
    for size in (20, 1000)
}
mala = inference.run_chains(inference.MALA(model), num_draws, covariates, labels, initial=start)
print(inference.diagnose(mala, sites=["weights"]))

spread = {"MALA": mala} | {f"SGLD, {size} items": draws for size, draws in sgld.items()}
for name, draws in spread.items():
    weight = draws.samples["weights"][..., 1]
    print(f"{name:16} second weight {weight.mean():.3f}, standard deviation {weight.std():.3f}")

figure = Figure(figsize=(6, 3.4), layout="constrained")
axes = figure.add_subplot()
for name, draws in spread.items():
    values = draws.samples["weights"][..., 1].flatten()
    axes.hist(values.numpy(), bins=80, density=True, histtype="step", label=name)
axes.set(
    xlabel="second weight",
    ylabel="posterior density",
    title="few items at a time: noise that is not the posterior's",
)
axes.legend()
figure.savefig("custom_kernel.png", dpi=120)
print("wrote custom_kernel.png: a posterior by your kernel, and by one that is exact")
