"""RNADE on measurements of red wine: a density over eleven real variables. Takes some 10 seconds."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
data = zoo.load("red-wine", fold=0)  # standardised by the training part

torch.manual_seed(0)
rnade = zoo.RNADE(data.event_shape, hidden=200, components=20)
inference.fit(
    inference.MaximumLikelihood(rnade),
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=2e-2,
    schedule="cosine",
    weight_decay=3.0,
)
print(inference.log_likelihood(rnade, data.test))

# The best single Gaussian, for comparison.
learn = torch.cat([data.train.x, data.valid.x])
gaussian = torch.distributions.MultivariateNormal(learn.mean(0), learn.T.cov())
print(f"one full Gaussian: log p(x) = {gaussian.log_prob(data.test.x).mean():.2f} nats per wine")

# Two of the margins against each other: fixed acidity and pH.
drawn = rnade.sample(1000, seed=0)
figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for axis, wines, title in zip(axes, (data.train.x, drawn), ("real wines", "drawn"), strict=True):
    axis.scatter(wines[:1000, 0], wines[:1000, 8], s=4)
    axis.set(title=title, xlabel="fixed acidity, standardised", ylabel="pH, standardised")
figure.savefig("rnade.png", dpi=120)
print("wrote rnade.png: fixed acidity against pH, real and drawn")
