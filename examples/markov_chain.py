"""A Markov chain over pixels, by rows and by columns: what the scan order is worth. Takes seconds."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")

# Entry 8 r + c is the pixel in row r, column c. A chain remembers one pixel: the one before it in the order.
orders = {
    "row by row": None,
    "column by column": [8 * row + column for column in range(8) for row in range(8)],
    "row by row, every other row backwards": [
        8 * row + (column if row % 2 == 0 else 7 - column) for row in range(8) for column in range(8)
    ],
}
draws = []
for name, order in orders.items():
    chain = zoo.MarkovChain(data.event_shape, order=order)
    inference.fit(
        inference.MaximumLikelihood(chain),
        data.train,
        valid=data.valid,
        epochs=epochs,
        lr=1e-2,
        progress=False,
    )
    estimate = inference.log_likelihood(chain, data.test, progress=False)
    print(f"{name}: {estimate.nats_per_item:.2f} nats per digit")
    draws.append(chain.sample(16, seed=0))

picture = pad(torch.stack(draws), (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("markov_chain.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote markov_chain.png: a row of draws for each order")
