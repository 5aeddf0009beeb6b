"""Independent pixels on handwritten digits: the figure that every other model should beat. Takes seconds."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")

# One coin for each pixel; maximum likelihood makes it the share of training digits that have ink there.
model = zoo.Independent(data.event_shape)
inference.fit(inference.MaximumLikelihood(model), data.train, valid=data.valid, epochs=epochs, lr=1e-2)
print(inference.log_likelihood(model, data.test))

shares = data.train.x.mean(0)
learnt = model.conditionals(data.test.x[:1]).probs[0].detach()
print(f"largest difference from the shares that were counted: {(learnt - shares).abs().max():.3f}")

# The probabilities look like a mean digit; the draws look like none, since no pixel knows its neighbours.
tiles = torch.cat([learnt[None], model.sample(15, seed=0)])
picture = pad(tiles, (1, 1, 1, 1)).permute(1, 0, 2).flatten(1)  # a margin around each
plt.imsave("independent.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote independent.png: the probability of ink, and fifteen draws")
