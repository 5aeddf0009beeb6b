"""PixelRNN on real handwritten digits, both layers: fit, evaluate, draw, fill in. Takes three minutes."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
data = zoo.load("digits")

# What is known comes last in the scan order, so that the states of particles are followed from pixel to pixel
# and weighted by how well they lead to it.
items = data.test.x[:8]
observed = torch.zeros(8, 8, dtype=torch.bool)
observed[4:] = True
hidden = items.masked_fill(~observed, 0.5)

pictures = []
for layer in ("row-lstm", "diagonal-bilstm"):
    torch.manual_seed(0)
    rnn = zoo.PixelRNN(data.event_shape, layer=layer, hidden=24, layers=2, dropout=0.5)
    inference.fit(
        inference.MaximumLikelihood(rnn),
        data.train,
        valid=data.valid,
        epochs=epochs,
        batch_size=50,
        lr=5e-3,
        schedule="cosine",
        weight_decay=1e-2,
    )
    print(f"{layer}: {inference.log_likelihood(rnn, data.test)}")
    completion = inference.complete(rnn, items, observed, num=6, particles=200)
    print(f"the upper halves of {len(items)} digits: {completion}")
    rows = torch.cat([hidden[None], completion.draws, items[None]])  # 8 rows of 8 digits
    drawn = rnn.sample(64, seed=0).unflatten(0, (8, 8))
    tiles = pad(torch.cat([rows, torch.full((8, 1, 8, 8), 0.25), drawn], dim=1), (1, 1, 1, 1))
    pictures.append(tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1))

between = torch.full((10, pictures[0].shape[1]), 0.25)
picture = torch.cat([pictures[0], between, pictures[1]])
plt.imsave("pixel_rnn.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote pixel_rnn.png: above the Row LSTM, below the Diagonal BiLSTM; left, test digits half hidden,")
print("six completions, the truth; right, new digits")
