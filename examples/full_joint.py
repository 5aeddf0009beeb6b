"""Overfitting, and its extreme: a table of all 65,536 images of 4×4 pixels learns its digits by heart.

Held against models with fewer parameters on the same images: train against test. Takes half a minute.
"""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# 16 binary pixels: few enough for a probability for every image.
data = zoo.load("digits-4x4")
seen = (data.test.x.flatten(1)[:, None] == data.train.x.flatten(1)).all(-1).any(1)
print(f"{seen.double().mean():.0%} of the test images occur among the {len(data.train):,} training images")

curves = {}
for model in (
    zoo.Independent(data.event_shape),
    zoo.MarkovChain(data.event_shape),
    zoo.FVSBN(data.event_shape),
    zoo.NADE(data.event_shape, hidden=100),
    zoo.FullJoint(data.event_shape),
):
    # Epoch by epoch, with the test loss beside: no validation set here that would stop it in time.
    objective = inference.MaximumLikelihood(model)
    rows = []
    for _ in range(epochs):
        rows += inference.fit(objective, data.train, epochs=1, batch_size=50, lr=2e-2, progress=False).history
        rows[-1]["test"] = -model.log_prob(data.test.x).mean().item()
    train, test = -model.log_prob(data.train.x).mean().item(), rows[-1]["test"]
    parameters = sum(param.numel() for param in model.parameters())
    print(
        f"{type(model).__name__:12} {parameters:6,} parameters: {train:6.2f} nats for a training image, "
        f"{test:6.2f} for a test image (at best {min(row['test'] for row in rows):.2f})"
    )
    curves[type(model).__name__] = rows
print(f"to learn them all by heart: {torch.tensor(len(data.train)).log():.2f} nats, were they all different")

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for number, (name, rows) in enumerate(curves.items()):
    axes.plot([row["test"] for row in rows], color=f"C{number}", label=name)
    axes.plot([row["train"] for row in rows], color=f"C{number}", linestyle=":")
axes.set(xlabel="epoch", ylabel="nats per image; dotted: training images", ylim=(4, 12))
axes.legend()
figure.savefig("full_joint.png", dpi=120)
print("wrote full_joint.png: train and test against the epoch")
