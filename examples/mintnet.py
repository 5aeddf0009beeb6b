"""MintNet: scoring is one pass, drawing inverts it by a fixed-point iteration. Takes a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
data = zoo.load("digits-levels")  # integers 0 to 16

torch.manual_seed(0)
mintnet = zoo.MintNet(data.event_shape, layers=6, hidden=16, num_levels=17, offset=0.01)
inference.fit(
    inference.ELBO(mintnet),
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=1e-2,
    schedule="cosine",
    clip_norm=50.0,
)
print(inference.log_likelihood(mintnet, data.test, bound="elbo", particles=10))

# Undo the six layers, last to first, for 100 draws of z; each iteration leaves less of |f(x) - y|.
z = mintnet.prior().sample((100,))
reports = mintnet.invert(z, tolerance=1e-5)
worst = max(report.residual.max().item() for report in reports)
most = max(report.iterations.max().item() for report in reports)
print(f"largest residual {worst:.1e} after at most {most} iterations for a layer (an image has 64 pixels)")

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(1, 2), layout="constrained")
for number, report in enumerate(reports):
    left.semilogy(report.history.amax(1), label=f"layer {len(reports) - number}", marker=".")
left.set(xlabel="iterations", ylabel="largest |f(x) - y| of 100 images", title="inversion")
left.legend()
drawn = mintnet.sample(64, seed=0).unflatten(0, (8, 8))
real = data.test.x[:64].unflatten(0, (8, 8))
tiles = pad(torch.cat([real, torch.full((8, 1, 8, 8), 8), drawn], dim=1), (1, 1, 1, 1))
right.imshow(tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap="gray_r")
right.set_title("test digits, and digits drawn")
right.axis("off")
figure.savefig("mintnet.png", dpi=110)
print("wrote mintnet.png: the error of the inverse by iteration, digits drawn")
