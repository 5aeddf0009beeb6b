"""A VAE on real handwritten digits: load, build, fit, evaluate, draw a picture. Takes some 20 seconds."""

import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 400

# 1,797 real digits, 8×8, binary; they come with scikit-learn.
data = zoo.load("digits")

# p(z) = N(0, I), p(x | z) Bernoulli, q(z | x) Gaussian. `vae.model` and `vae.guide` are plain Pyro programs.
torch.manual_seed(0)
vae = zoo.VAE(data.event_shape, latent_dim=10, hidden=(500,))

# Maximise the evidence lower bound; keep the weights of the epoch that does best on the validation digits.
result = inference.fit(
    inference.ELBO(vae), data.train, valid=data.valid, epochs=epochs, batch_size=50, schedule="cosine"
)
print(f"{len(result.history)} epochs in {result.seconds:.0f} s; best was epoch {result.best_epoch}")

# The likelihood of digits that it has never seen, by importance sampling with the guide.
print(inference.log_likelihood(vae, data.test, particles=1000))

# Draw new digits, and see the code at work: the mean image on the way from one test digit to another.
start, end = vae.features(data.test.x[:2])
path = torch.stack([torch.lerp(start, end, step) for step in torch.linspace(0, 1, 16)])
means = vae.decode(path).mean.detach()
tiles = torch.cat([vae.sample(64, seed=0), means]).unflatten(0, (5, 16))  # 5 rows of 16 digits of 8×8
picture = tiles.permute(0, 2, 1, 3).reshape(5 * 8, 16 * 8)
plt.imsave("vae.png", picture.repeat_interleave(6, 0).repeat_interleave(6, 1), cmap="gray_r")
print("wrote vae.png: four rows of new digits, and a row from one test digit to another")
