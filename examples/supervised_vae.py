"""A supervised VAE that learns from 100 labels, and draws digits by label. Takes about a minute."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# Hide the labels of all but 100 training digits; the others count as -1.
data = zoo.load("digits").with_labels(100)
labelled = data.train.y >= 0


def accuracy(model: zoo.SupervisedVAE) -> float:
    """Share of the test digits whose label q(y | x) gets right."""
    model.eval()
    with torch.no_grad():
        return (model.classify(data.test.x).argmax(-1) == data.test.y).double().mean().item()


# Where a label is missing, the ELBO sums over the ten that it could be.
torch.manual_seed(0)
vae = zoo.SupervisedVAE(data.event_shape, num_classes=10, latent_dim=10, hidden=(300, 300), dropout=0.4)
options = {"epochs": epochs, "batch_size": 50, "schedule": "cosine"}
inference.fit(inference.SupervisedELBO(vae), data.train, valid=data.valid, **options)
print(f"q(y | x), 100 labels and 1,197 digits without: {accuracy(vae):.1%} of test digits right")

# The same encoder with the 100 labelled digits alone, for comparison.
torch.manual_seed(0)
alone = zoo.SupervisedVAE(data.event_shape, num_classes=10, latent_dim=10, hidden=(300, 300), dropout=0.4)
pairs = (data.train.x[labelled], data.train.y[labelled])
inference.fit(
    inference.CrossEntropy(alone.classify),
    pairs,
    valid=(data.valid.x, data.valid.y),
    progress=False,
    **options,
)
print(f"q(y | x), 100 labels alone: {accuracy(alone):.1%}")

# Draw by label: a row for each digit.
rows = torch.arange(10).repeat_interleave(16)
tiles = vae.sample(160, y=rows, seed=0).unflatten(0, (10, 16))
picture = tiles.permute(0, 2, 1, 3).reshape(10 * 8, 16 * 8)
plt.imsave("supervised_vae.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote supervised_vae.png: a row for each label")
