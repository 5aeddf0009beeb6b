"""Two layers of code: what each tells, by which guide, and what a warm-up is for. Takes about 2 minutes."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
data = zoo.load("digits")


def train(posterior: str, warm_up: int) -> zoo.HierarchicalVAE:
    """A VAE with z_2 → z_1 → x, and what its two layers tell of a test digit."""
    torch.manual_seed(0)
    vae = zoo.HierarchicalVAE(
        data.event_shape, latent_dims=(12, 6), posterior=posterior, hidden=((500,), (200,))
    )
    # The divergences between guide and model count in full after so many steps; 26 are an epoch.
    elbo = inference.ELBO(vae, warm_up=warm_up)
    options = {"epochs": epochs, "batch_size": 50, "schedule": "cosine"}
    inference.fit(elbo, data.train, valid=data.valid, **options)
    told = vae.divergences(data.test.x, num_draws=100).mean(0)
    estimate = inference.log_likelihood(vae, data.test, particles=1000, progress=False)
    print(
        f"{posterior}, {f'warm-up of {warm_up} steps' if warm_up else 'no warm-up'}: z_1 tells {told[0]:.2f} "
        f"nats, z_2 {told[1]:.2f}; test -log p(x) ≤ {estimate.nats_per_item:.2f} nats"
    )
    return vae


train("bottom-up", warm_up=0)
train("bottom-up", warm_up=2600)
vae = train("ladder", warm_up=2600)

# What the top layer decides, and what it leaves open: a row for each z_2, and z_1 drawn anew for each digit.
torch.manual_seed(0)
with torch.no_grad():
    z_2 = vae.prior().sample((10, 1)).expand(-1, 16, -1)
    z_1 = vae.conditional(1, z_2).sample()
    tiles = vae.emission(z_1).mean
picture = tiles.permute(0, 2, 1, 3).reshape(10 * 8, 16 * 8)
plt.imsave("hierarchical_vae.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote hierarchical_vae.png: a row for each top code, its digits differ in what lies below")
