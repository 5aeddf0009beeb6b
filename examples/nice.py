"""NICE in both forms: couplings that shift, and couplings that scale as well. Takes a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
data = zoo.load("digits-levels")  # integers 0 to 16

rows = [data.test.x[:16]]
for coupling in ("additive", "affine"):
    torch.manual_seed(0)
    nice = zoo.NICE(
        data.event_shape, layers=8, hidden=(256, 256), coupling=coupling, num_levels=17, offset=0.01
    )
    inference.fit(
        inference.ELBO(nice),
        data.train,
        valid=data.valid,
        epochs=epochs,
        batch_size=50,
        lr=1e-3,
        schedule="cosine",
        weight_decay=1.0,
        clip_norm=50.0,
    )
    bound = inference.log_likelihood(nice, data.test, bound="elbo", particles=10, progress=False)
    print(f"{coupling:8} couplings: at most {bound.bits_per_dim:.3f} bits per dimension; {bound}")
    rows.append(nice.sample(16, seed=0))

    # x = f(s ⊙ z): the entries of z with the largest scales s carry most of an image.
    scales = nice.transform.parts[0].parts[0].log_scale.exp().detach().sort(descending=True).values
    print(f"         scales s: {scales[0]:.2f} to {scales[-1]:.2f}, half of them below {scales[32]:.2f}")

picture = pad(torch.stack(rows), (1, 1, 1, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("nice.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote nice.png: real digits, draws of additive couplings, draws of affine ones")
