"""NADE on real handwritten digits: fit, evaluate, draw, and fill in hidden halves. Takes half a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
data = zoo.load("digits")

torch.manual_seed(0)
nade = zoo.NADE(data.event_shape, hidden=200)
inference.fit(
    inference.MaximumLikelihood(nade),
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=5e-3,
    schedule="cosine",
)
print(inference.log_likelihood(nade, data.test))

# Hide the upper half. What is known comes last in the scan order: filling in pixel by pixel would not look
# at it, so particles are drawn and weighted by how well they lead to what is known.
items = data.test.x[:8]
observed = torch.zeros(8, 8, dtype=torch.bool)
observed[4:] = True
completion = inference.complete(nade, items, observed, num=6, particles=2000)
sizes = completion.effective_sample_size
print(f"completed by {completion.method}; effective sample size {sizes.min():.0f} to {sizes.max():.0f}")

hidden = items.masked_fill(~observed, 0.5)
rows = torch.cat([hidden[None], completion.draws, items[None]])  # 8 rows of 8 digits
drawn = nade.sample(64, seed=0).unflatten(0, (8, 8))
tiles = pad(torch.cat([rows, torch.full((8, 1, 8, 8), 0.25), drawn], dim=1), (1, 1, 1, 1))
picture = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("nade.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote nade.png: left, test digits half hidden, six completions, the truth; right, new digits")
