"""Adversarial autoencoder: the programs of a VAE, its codes matched to the prior by a discriminator.

The model and the guide are those of `zoo.latent.vae`. What the VAE asks of the code of each item, the AAE
asks of the codes of all items together, the aggregate posterior q(z), and measures it as a game of two does:

    minimise E_q(z | x)[-log p(x | z)] + λ JS(q(z), p(z)),    q(z) = 1/n Σ_i q(z | x_i),

where a discriminator that tells codes from draws of the prior stands for the Jensen-Shannon divergence
(`inference.AdversarialAutoencoder`). No item's code need look like the prior, so that q(z | x) may be narrow
and reconstructions sharp.

That guide is a poor proposal, though: the importance-weighted bound of the likelihood holds for any, but a
narrow one leaves out the codes beside its own, so that the figure says less and less of p(x). Models of this
kind are compared by their draws, and by their likelihood only as far as its bound goes.

References:
    | Adversarial Autoencoders (Makhzani, Shlens, Jaitly, Goodfellow & Frey, 2016), section 2
    | https://arxiv.org/abs/1511.05644
"""

from zoo.latent.vae import VAE


class AAE(VAE):
    """The VAE under another objective: `inference.AdversarialAutoencoder`.

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
        >>> aae = AAE((8, 8), latent_dim=10)
        >>> aae.encode(aae.sample(5)).mean.shape
        torch.Size([5, 10])
    """

    recipes = {
        "digits": {
            "model": VAE.recipes["digits"]["model"],
            "objective": "adversarial-autoencoder",
            "objective_arguments": {"weight": 10.0, "gradient_penalty": 0.1},
            "fit": {"epochs": 200, "batch_size": 100, "lr": 2e-3, "schedule": "cosine"},
        },
    }
