"""Wasserstein autoencoder: the programs of a VAE, its codes matched to the prior by their kernel means.

The model and the guide are those of `zoo.latent.vae`. What the VAE asks of the code of each item, the WAE
asks of the codes of all items together, the aggregate posterior q(z):

    minimise E_q(z | x)[-log p(x | z)] + λ MMD²(q(z), p(z)),    q(z) = 1/n Σ_i q(z | x_i),

with the maximum mean discrepancy under an inverse multiquadratic kernel (`inference.WassersteinAutoencoder`).
For a decoder that pays squared distance, this is the Wasserstein distance between data and draws in a relaxed
form; -log p(x | z) is in its place here, the cost in nats. No item's code need look like the prior, so that
q(z | x) may be narrow and reconstructions sharp.

That guide is a poor proposal, though: the importance-weighted bound of the likelihood holds for any, but a
narrow one leaves out the codes beside its own, so that the figure says less and less of p(x). Models of this
kind are compared by their draws, and by their likelihood only as far as its bound goes.

References:
    | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly & Schölkopf, 2018), equation 4, algorithm 2
    | https://arxiv.org/abs/1711.01558
"""

from zoo.latent.vae import VAE


class WAE(VAE):
    """The VAE under another objective: `inference.WassersteinAutoencoder`.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        latent_dim: Length of the code z, at least 1.
        hidden: Widths of the encoder's hidden layers (channels for ``"conv"``); the decoder mirrors them.
        likelihood: ``"bernoulli"`` or ``"gaussian"``.
        network: ``"mlp"`` or ``"conv"``.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> wae = WAE((8, 8), latent_dim=10)
        >>> wae.encode(wae.sample(5)).mean.shape
        torch.Size([5, 10])
    """

    recipes = {
        "digits": {
            "model": VAE.recipes["digits"]["model"],
            "objective": "wasserstein-autoencoder",
            "objective_arguments": {"weight": 500.0},
            "fit": {"epochs": 200, "batch_size": 100, "lr": 2e-3, "schedule": "cosine"},
        },
    }
