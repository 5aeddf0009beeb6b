"""PixelCNN on real handwritten digits: what a pixel sees, drawing by label, completing. Takes two minutes."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
data = zoo.load("digits")

torch.manual_seed(0)
cnn = zoo.PixelCNN(data.event_shape, hidden=32, layers=8, num_classes=10, dropout=0.3)
inference.fit(
    inference.MaximumLikelihood(cnn),  # of image and label
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=4e-3,
    schedule="cosine",
)
print(f"log p(x), labels summed out: {inference.log_likelihood(cnn, data.test)}")
right = (cnn.classify(data.test.x).argmax(-1) == data.test.y).double().mean()
print(f"p(y | x) by Bayes' rule gets {right:.1%} of the test digits right")

# Drawing goes from pixel to pixel, and computes only what is new at each: the rows above for a whole row at
# once, the row itself by its last columns.
drawn = cnn.sample(60, seed=0, y=torch.arange(10).repeat_interleave(6))

# The lower half of some threes, hidden, and drawn as a three again, and as an eight.
threes = data.test.x[data.test.y == 3][:3]
upper = torch.arange(64).view(8, 8) < 32
as_three, as_eight = (
    inference.complete(cnn.given(label), threes, upper, num=2, progress=False) for label in (3, 8)
)
hidden = threes.masked_fill(~upper, 0.5)
rows = torch.cat([hidden[None], as_three.draws, as_eight.draws, threes[None]]).transpose(0, 1)

figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), width_ratios=(1.1, 1.2, 1, 1), layout="constrained")
tiles = [pad(images, (1, 1, 1, 1), value=0.25) for images in (drawn.view(10, 6, 8, 8), rows)]
for axis, images, title in zip(axes, tiles, ("drawn by label", "a three, as 3, 3, 8, 8"), strict=False):
    axis.imshow(images.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap="gray_r")
    axis.set_title(title)

# A plain stack of masked convolutions never sees a wedge to the right above; the gated one has no such spot.
for axis, gated in zip(axes[2:], (False, True), strict=True):
    network = zoo.PixelCNN((15, 15), hidden=8, layers=6, first_kernel_size=3, gated=gated)
    seen = network.influence(network.sample(20, seed=0), 10, 5)
    axis.imshow(torch.where(seen > 0, seen.log10(), torch.nan))
    axis.plot(5, 10, "rs")
    axis.set_title(f"{'gated' if gated else 'plain'}: what the red pixel sees")
for axis in axes:
    axis.set_axis_off()
figure.savefig("pixel_cnn.png", dpi=110)
print("wrote pixel_cnn.png: digits by label, completions, and the blind spot of plain masks")
