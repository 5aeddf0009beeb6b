"""A GAN on a ring of eight Gaussians: a program without a likelihood learns them all. Takes some 10 s."""

import math
import sys

import torch
from matplotlib import pyplot as plt

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 15

# Eight narrow Gaussians on the unit circle: a generator that collapses draws from one of them.
angles = torch.arange(8) * math.pi / 4
modes, scale = torch.stack([angles.cos(), angles.sin()], dim=1), 0.01
torch.manual_seed(0)
x = modes[torch.randint(8, (10_000,))] + scale * torch.randn(10_000, 2)

# z ~ N(0, I), x = g(z): `gan.model` is a Pyro program of a site z, and x a deterministic function of it.
gan = zoo.GAN((2,), latent_dim=2, hidden=(128, 128), output="real")

# The discriminator belongs to the objective. Its slope at the items is penalised, so that it comes to rest.
objective = inference.Adversarial(gan, gradient_penalty=0.1)
result = inference.fit(objective, x, epochs=epochs, lr=2e-3, betas=(0.5, 0.9), schedule="cosine")
print("; ".join(result.notes) or "nothing went wrong on the way")

# There is no likelihood. What there is: which modes the draws cover, how far off the discriminator says they
# are, and the discrepancy under a kernel.
draws, held_out = gan.sample(2500, seed=0), modes[torch.randint(8, (2500,))] + scale * torch.randn(2500, 2)
coverage = inference.modes_covered(draws, modes, scale, least_share=0.1 / 8)
print(f"{coverage.covered} of 8 modes covered, {coverage.share_of_good_draws:.0%} of the draws near one")
print(f"Jensen-Shannon divergence, as the discriminator sees it: {objective.divergence(held_out):.3f} nats")
print(inference.maximum_mean_discrepancy(draws, held_out))

losses = [(row["train"], row["discriminator"]) for row in result.history]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
left.plot(range(1, len(losses) + 1), losses, label=["generator", "discriminator"])
left.axhline(2 * math.log(2), color="black", linewidth=0.6, label="a discriminator that guesses")
left.set(xlabel="epoch", ylabel="loss, nats")
left.legend()
right.scatter(*held_out.T, s=4, label="items")
right.scatter(*draws.T, s=1, label="draws")
right.set_aspect("equal")
right.legend()
figure.savefig("gan.png", dpi=120)
print("wrote gan.png: the losses of both players, and draws among items")
