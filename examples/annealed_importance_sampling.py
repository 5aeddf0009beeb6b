"""How far a log Z can be trusted: annealing from both sides, against the exact one. Takes half a minute."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
ladders = (1, 3, 10, 30, 100, 300, 1000, 3000) if epochs > 10 else (1, 10, 100)

# A machine that has learnt something, and is small enough: 2^16 configurations of its hidden units can be
# gone through one by one, the visible ones summed out.
data = zoo.load("digits")
torch.manual_seed(0)
rbm = zoo.RBM(data.event_shape, hidden=16)
contrast = inference.PersistentContrastiveDivergence(rbm, sweeps=5)
inference.fit(contrast, data.train, epochs=epochs, lr=0.1, momentum=0.9, schedule="cosine")
exact = rbm.log_partition().item()
print(f"exact: log Z = {exact:.4f} nats")

# Forward, the mean weight is unbiased for Z, so that its log is low on average. In reverse, from exact draws,
# it is unbiased for 1/Z, and high. The truth lies between; where the two meet, both are right.
exact_draws = rbm.exact_sample(100, seed=0)
forward = [inference.ais(rbm, chains=100, betas=steps) for steps in ladders]
reverse = [inference.reverse_ais(rbm, exact_draws, betas=steps) for steps in ladders]
for below, above in zip(forward, reverse, strict=True):
    ends = f"{below.log_z - exact:+9.4f} forward, {above.log_z - exact:+9.4f} in reverse"
    print(f"{below.betas:>5,} steps: {ends}")
print(forward[-1])

figure, (near, far) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axes in (near, far):
    for estimates, label in ((forward, "forward"), (reverse, "in reverse, from exact draws")):
        ends = torch.stack([torch.stack([e.log_z, *e.interval()]) for e in estimates]) - exact
        axes.plot(ladders, ends[:, 0], marker="o", markersize=3, label=f"{label}, and 95 %")
        axes.fill_between(ladders, ends[:, 1].clamp(min=-99), ends[:, 2].clamp(max=99), alpha=0.25)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("steps from independent units to the machine")
near.set_ylim(1.2 * (forward[0].log_z - exact).item(), 1.2 * (reverse[0].log_z - exact).item())
near.set_ylabel("log Z less the exact one, nats")
near.set_title("100 chains from either end", fontsize=9, loc="left")
near.legend(fontsize=7)
far.set_ylim(-0.5, 0.5)
far.set_title("the same, nearer", fontsize=9, loc="left")
figure.savefig("annealed_importance_sampling.png", dpi=120)
print("wrote annealed_importance_sampling.png: the bracket, by the number of steps")
