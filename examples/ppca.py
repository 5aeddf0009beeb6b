"""Probabilistic PCA on real measurements: two ways to one maximum, and the posterior of z. Takes seconds."""

import sys

from matplotlib.figure import Figure

import inference
import zoo

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
data = zoo.load("red-wine")

# p(z) = N(0, I), p(x | z) = N(V z + μ, σ² I). All is Gaussian, and so a formula: the maximum of the
# likelihood by the eigenvectors of the covariance, and the posterior of z for any parameters.
exact = zoo.PPCA(data.event_shape, latent_dim=2)
exact.closed_form(data.train.x)

# EM gets there without an eigen-decomposition, from a random start.
em = zoo.PPCA(data.event_shape, latent_dim=2)
result = inference.fit_em(em, data.train, epochs=epochs, tolerance=1e-9)
print(f"EM: {len(result.history)} epochs in {result.seconds:.1f} s, converged: {result.converged}")

for name, model in (("closed form", exact), ("EM", em)):
    train, test = (-model.log_prob(part.x).mean().item() for part in (data.train, data.test))
    print(f"{name:>11}: training {train:.6f}, test {test:.4f} nats per wine")

# How many directions are worth it is for held-out wines to say.
for latent_dim in range(1, 11):
    model = zoo.PPCA(data.event_shape, latent_dim)
    model.closed_form(data.train.x)
    valid = inference.log_likelihood(model, data.valid, progress=False)
    print(f"{latent_dim:2} directions: {valid.mean:.3f} nats per validation wine")

# The plane of codes: each wine at the mean of its posterior, whose width is the same for all of them.
posterior = exact.posterior(data.train.x)
mean, width = posterior.mean.detach(), posterior.stddev[0].detach()
figure = Figure(figsize=(5, 4), layout="constrained")
axes = figure.add_subplot()
dots = axes.scatter(mean[:, 0], mean[:, 1], c=data.train.x[:, 10], s=4, cmap="viridis")
axes.errorbar(3.0, -2.5, xerr=width[0], yerr=width[1], color="black", capsize=3, label="one sd of p(z | x)")
figure.colorbar(dots, label="alcohol, standardised")
axes.set(xlabel="z_1", ylabel="z_2", title="red wines by the mean of p(z | x)")
axes.legend()
figure.savefig("ppca.png", dpi=120)
print("wrote ppca.png: the codes of the training wines")
