"""NADE over grey levels: 17 levels for each pixel, a softmax over them. Takes half a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
data = zoo.load("digits-levels")  # integers 0 to 16
options = {"epochs": epochs, "batch_size": 50, "schedule": "cosine"}

torch.manual_seed(0)
nade = zoo.CategoricalNADE(data.event_shape, num_levels=17, hidden=200)
inference.fit(
    inference.MaximumLikelihood(nade), data.train, valid=data.valid, lr=2e-2, weight_decay=1.0, **options
)
print("CategoricalNADE:   ", inference.log_likelihood(nade, data.test, progress=False))

# The same without any dependence between pixels, for comparison.
margins = zoo.Independent(data.event_shape, num_levels=17)
inference.fit(inference.MaximumLikelihood(margins), data.train, valid=data.valid, lr=1e-2, **options)
print("independent levels:", inference.log_likelihood(margins, data.test, progress=False))

rows = [data.test.x[:16], nade.sample(16, seed=0), margins.sample(16, seed=0)]
picture = pad(torch.stack(rows), (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("categorical_nade.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote categorical_nade.png: real digits, draws, draws of independent pixels")
