"""RealNVP on images of 17 levels: two scales; ways from digit to digit through z. Takes a minute."""

import sys

import torch
from matplotlib import pyplot as plt
from torch.nn.functional import pad

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
data = zoo.load("digits-levels")  # integers 0 to 16

torch.manual_seed(0)
realnvp = zoo.RealNVP(
    data.event_shape, layers=3, hidden=(32, 32), scales=2, dropout=0.1, num_levels=17, offset=0.01
)
inference.fit(
    inference.ELBO(realnvp),
    data.train,
    valid=data.valid,
    epochs=epochs,
    batch_size=50,
    lr=3e-3,
    schedule="cosine",
    weight_decay=1.0,
    clip_norm=50.0,
)
realnvp.eval()  # from here on without dropout
print(inference.log_likelihood(realnvp, data.test, bound="elbo", particles=10))

# z is the image itself in other coordinates: nothing is lost on the way there and back.
x = data.test.x[:100]
there_and_back = realnvp.decode(realnvp.encode(x))
print(f"{(there_and_back == x).double().mean():.1%} of the levels come back as they were")

# From the digits 0, 2, 4, 6 to 1, 3, 5, 7, by an arc in z; then 10 draws in each of 4 rows.
of_label = [data.test.x[data.test.y == label][0] for label in range(8)]
ways = realnvp.interpolate(torch.stack(of_label[::2]), torch.stack(of_label[1::2]), steps=10)
drawn = realnvp.sample(40, seed=0).unflatten(0, (4, 10))
tiles = pad(torch.cat([ways, torch.full((4, 1, 8, 8), 8), drawn], dim=1), (1, 1, 1, 1))
picture = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
plt.imsave("realnvp.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote realnvp.png: left, from one test digit to another through z; right, new digits")
