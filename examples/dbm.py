"""A deep Boltzmann machine on real digits: bound, interval, what mean field loses. A minute or two."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
steps = 2000 if epochs > 10 else 50
data = zoo.load("digits")

torch.manual_seed(0)
dbm = zoo.DBM(data.event_shape, hidden=(200, 100), centred=True)

# Variational stochastic maximum likelihood: mean field to convergence given the data, five Gibbs sweeps of a
# hundred chains for each step.
contrast = inference.PersistentContrastiveDivergence(dbm, sweeps=5, num_chains=100)
result = inference.fit(contrast, data.train, valid=data.valid, epochs=epochs, lr=1e-2, schedule="cosine")
print(f"{len(result.history)} epochs in {result.seconds:.0f} s; best was epoch {result.best_epoch}")

# log Z from below by annealing, and from above by annealing backwards, from chains that have run for long.
kernel = inference.BlockGibbs(dbm)
draws = inference.run_chains(kernel, steps // 10, num_chains=100, warmup=steps, sites=["h_2"])
print(below := inference.ais(dbm, chains=100, betas=steps))
print(inference.reverse_ais(dbm, draws.last, betas=steps))

# The variational bound on log p(v), with the interval that log Z leaves it; and log p(v) itself, by annealing
# from q(h | v) to p(h | v). The difference is KL(q(h | v) ‖ p(h | v)).
items = data.test.x[:100]
bound = inference.log_likelihood(dbm, items, log_z=below)
print(bound)
annealed = inference.log_likelihood(dbm, items, log_z=below, bound="importance-weighted", particles=20)
print(f"mean field loses {annealed.mean - bound.mean:.3f} nats: log p(v) is {annealed.mean:.2f}")

# The posterior of one digit: means by Gibbs, v held at the digit, beside those of mean field.
digit = data.test.x[:1]
clamped = inference.BlockGibbs(dbm, clamped={"v": digit[0]})
posterior = inference.run_chains(clamped, steps // 10, num_chains=100, sites=["h_1", "h_2"])
mean_field = dbm.mean_field(digit)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(3, 2), layout="constrained")
tiles = pad(dbm.sample(96, seed=0, sweeps=steps), (1, 1, 1, 1)).unflatten(0, (8, 12))
left.imshow(tiles.permute(0, 2, 1, 3).reshape(80, 120), cmap="gray_r")
left.set_axis_off()
left.set_title(f"new digits, after {steps:,} sweeps", fontsize=9, loc="left")
for name in ("h_1", "h_2"):
    by_gibbs = posterior.samples[name].mean((0, 1))
    right.scatter(mean_field[name][0].tolist(), by_gibbs.tolist(), s=8, label=name)
right.plot([0, 1], [0, 1], color="black", linewidth=0.5)
right.set_xlabel("mean of a hidden unit by mean field")
right.set_ylabel("the same by Gibbs sampling")
right.set_title("the posterior of one test digit", fontsize=9, loc="left")
right.legend()
figure.savefig("dbm.png", dpi=120)
print("wrote dbm.png: new digits, and the posterior by mean field and by Gibbs")
