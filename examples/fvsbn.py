"""A fully visible sigmoid belief network: a logistic regression of each pixel on those before it.

Takes some 10 seconds.
"""

import sys

from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")

# The density is exact: maximum likelihood needs no guide and no bound.
model = zoo.FVSBN(data.event_shape)
result = inference.fit(
    inference.MaximumLikelihood(model),
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=5e-3,
    schedule="cosine",
)
print(inference.log_likelihood(model, data.test))

# Which pixels each looks back at: the weights into the pixels of the fifth row, one tile for each.
tiles = model.weight.detach().triu(1)[:, 32:40].T.unflatten(-1, (8, 8))
limit = tiles.abs().max()
draws = model.sample(16, seed=0)
figure, axes = plt.subplots(3, 8, figsize=(8, 3.3), layout="constrained")
for axis, tile in zip(axes[0], tiles, strict=True):
    axis.imshow(tile, cmap="RdBu_r", vmin=-limit, vmax=limit)
for axis, tile in zip(axes[1:].flat, draws, strict=True):
    axis.imshow(tile, cmap="gray_r")
for axis in axes.flat:
    axis.set_axis_off()
figure.suptitle("weights into the eight pixels of row 5 (red: ink makes ink likelier); draws", fontsize=9)
figure.savefig("fvsbn.png", dpi=120)
print("wrote fvsbn.png: weights, and sixteen draws")
