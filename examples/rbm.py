"""An RBM on real handwritten digits: fit, evaluate, with log Z estimated, draw, complete. Half a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
data = zoo.load("digits")

# p(v, h) ∝ exp(v·W h + b·v + c·h): given one layer, the units of the other are independent.
torch.manual_seed(0)
rbm = zoo.RBM(data.event_shape, hidden=200)

# The gradient is a contrast: what the data make likely against what chains of the machine do. The chains go
# on from step to step, and plain gradient descent with momentum lets them follow.
contrast = inference.PersistentContrastiveDivergence(rbm, sweeps=5)
result = inference.fit(
    contrast, data.train, valid=data.valid, epochs=epochs, lr=2e-2, momentum=0.9, schedule="cosine"
)
print(f"{len(result.history)} epochs in {result.seconds:.0f} s; best was epoch {result.best_epoch}")

# log p(v) = -F(v) - log Z, the free energy F in closed form, log Z an estimate by annealing. The interval
# says how far that may be off.
steps = 2000 if epochs > 10 else 50
log_z = inference.ais(rbm, chains=100, betas=steps)
estimate = inference.log_likelihood(rbm, data.test, log_z=log_z)
low, high = estimate.interval
print(f"log p(x) = {estimate.mean:.2f} nats, {low:.2f} … {high:.2f} by what log Z may be")

# Fill in the upper half: chains with the lower half clamped.
items = data.test.x[:8]
observed = torch.zeros(8, 8, dtype=torch.bool)
observed[4:] = True
completion = inference.complete(rbm, items, observed, num=6, sweeps=steps // 10)

hidden = items.masked_fill(~observed, 0.5)
rows = torch.cat([hidden[None], completion.draws, items[None]])  # 8 rows of 8 digits
drawn = rbm.sample(64, seed=0, sweeps=steps).unflatten(0, (8, 8))
tiles = pad(torch.cat([rows, torch.full((8, 1, 8, 8), 0.25), drawn], dim=1), (1, 1, 1, 1))
picture = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("rbm.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote rbm.png: left, test digits half hidden, six completions, the truth; right, new digits")
