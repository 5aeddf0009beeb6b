"""All samplers on one target whose answer is known: a curved valley in two dimensions. Takes half a minute.

    x_1 ~ N(0, 1),    x_2 given x_1 ~ N(x_1² - 1, 1),

so that both means are 0, and the variances are 1 and 3.
"""

import sys
import time

import pyro
import pyro.distributions as dist
from matplotlib.figure import Figure
from pyro.infer import NUTS

import inference

num_draws = int(sys.argv[1]) * 50 if len(sys.argv) > 1 else 500


def banana():
    x_1 = pyro.sample("x_1", dist.Normal(0.0, 1.0))
    pyro.sample("x_2", dist.Normal(x_1**2 - 1, 1.0))


def along(state):
    """x_2 given x_1, for the Gibbs sampler."""
    return dist.Normal(state["x_1"] ** 2 - 1, 1.0)


kernels = {
    "hill climb": inference.StochasticHillClimb(banana, step_size=0.5),
    "Langevin, ε = 0.05": inference.Langevin(banana, step_size=0.05),
    "Langevin, ε = 0.01": inference.Langevin(banana, step_size=0.01),
    "random walk": inference.RandomWalkMetropolis(banana),
    "random walk, dense": inference.RandomWalkMetropolis(banana, dense=True),
    "MALA": inference.MALA(banana),
    "HMC": inference.HMC(banana),
    "walk, then Gibbs": inference.Cycle(
        [inference.RandomWalkMetropolis(banana, sites=["x_1"]), inference.BlockGibbs({"x_2": along})]
    ),
    "NUTS, Pyro's": NUTS(banana),
}
exact = {"x_1": 1.0, "x_2": 3.0}
runs = {}
print(f"{'':20}{'R-hat':>8}{'ESS':>8}{'ESS/s':>9}{'variances (1, 3)':>22}   off by")
for name, kernel in kernels.items():
    # The batched ones run 200 chains at once, Pyro's four, one after the other.
    chains, length = (4, num_draws) if name.endswith("Pyro's") else (200, num_draws)
    began = time.monotonic()
    draws = runs[name] = inference.run_chains(kernel, length, num_chains=chains, progress=False)
    seconds = time.monotonic() - began
    rows = inference.diagnose(draws, sites=["x_1", "x_2"]).rows[-2:]
    r_hat, ess = max(row.r_hat for row in rows), min(row.ess_bulk for row in rows)
    variances = [draws.samples[site].var().item() for site in exact]
    error = max(abs(found / truth - 1) for found, truth in zip(variances, exact.values(), strict=True))
    found = ", ".join(f"{variance:.2f}" for variance in variances)
    print(f"{name:20}{r_hat:8.3f}{ess:8,.0f}{ess / seconds:9,.0f}{found:>22}   {error:.1%}")

figure = Figure(figsize=(10, 6.5), layout="constrained")
axes = figure.subplots(3, 3, sharex=True, sharey=True)
for (name, draws), ax in zip(runs.items(), axes.flat, strict=True):
    x, y = (draws.samples[site].flatten()[-4000:] for site in exact)
    ax.scatter(x, y, s=1, alpha=0.3)
    ax.plot(draws.samples["x_1"][0, :60], draws.samples["x_2"][0, :60], color="black", linewidth=0.5)
    ax.set(title=name, xlim=(-4, 4), ylim=(-5, 10))
figure.savefig("samplers.png", dpi=110)
print("wrote samplers.png: draws of each, and the way of one chain")
