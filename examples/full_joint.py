"""Overfitting, and its extreme: a table of all 65,536 images of 4×4 pixels learns its digits by heart.

Held against models with fewer parameters on the same images. Takes half a minute.
"""

import sys

from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# 16 binary pixels: few enough for a probability for every image.
data = zoo.load("digits-4x4")
_, counts = data.train.x.unique(dim=0, return_counts=True)
shares = counts / counts.sum()
by_heart = -(shares * shares.log()).sum()
print(f"{len(data.train):,} training images, {len(counts)} of them different")

curves = {}
for model, lr in (
    (zoo.Independent(data.event_shape), 1e-2),
    (zoo.FVSBN(data.event_shape), 1e-2),
    (zoo.NADE(data.event_shape, hidden=100), 1e-2),
    (zoo.FullJoint(data.event_shape), 1e-1),
):
    objective = inference.MaximumLikelihood(model)
    options = {"epochs": epochs, "batch_size": 50, "lr": lr, "progress": False}
    rows = inference.fit(objective, data.train, valid=data.valid, **options).history
    parameters, best = sum(param.numel() for param in model.parameters()), min(row["valid"] for row in rows)
    print(
        f"{type(model).__name__:12}{parameters:7,} parameters, after {epochs} epochs: "
        f"{rows[-1]['train']:.2f} nats for a training image, {rows[-1]['valid']:.2f} for others "
        f"({best:.2f} had it stopped in time)"
    )
    curves[type(model).__name__] = rows
print(
    f"to know the training images by heart, and nothing else: {by_heart:.2f}, and infinitely many for others"
)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for number, (name, rows) in enumerate(curves.items()):
    axes.plot([row["valid"] for row in rows], color=f"C{number}", label=name)
    axes.plot([row["train"] for row in rows], color=f"C{number}", linestyle=":")
axes.axhline(by_heart, color="black", linewidth=0.8, label="by heart")
axes.set(xlabel="epoch", ylabel="nats per image (dotted: training images)", ylim=(4, 8))
axes.legend()
figure.savefig("full_joint.png", dpi=120)
print("wrote full_joint.png: training images and others against the epoch")
