"""Variational autoencoder.

A standard Gaussian code, and a network that turns it into a distribution for every entry; a second network
maps an item back to a Gaussian over codes:

    p(z) = N(z | 0, I),    p(x | z) = ∏_i p(x_i | g(z)_i),    q(z | x) = N(z | μ(x), diag σ²(x)).

References:
    | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), section 3 and appendix C
    | https://arxiv.org/abs/1312.6114
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.latent.autoencoder import Autoencoder, Likelihood
from zoo.latent.networks import Activation, Decoder, Encoder, Network

_WINE = {
    "model": {"latent_dim": 8, "hidden": (100,), "likelihood": "gaussian"},
    "objective": "elbo",
    "fit": {"epochs": 300, "batch_size": 50, "lr": 1e-3, "schedule": "cosine"},
}


class VAE(Autoencoder):
    """Gaussian code, neural likelihood, amortised Gaussian posterior.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        latent_dim: Length of the code z, at least 1.
        hidden: Widths of the encoder's hidden layers (channels for ``"conv"``); the decoder mirrors them.
        likelihood: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones (the decoder gives each
            entry its location and its standard deviation).
        network: ``"mlp"`` or ``"conv"``, for encoder and decoder alike.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> vae = VAE((8, 8), latent_dim=10)
        >>> vae.sample(3).shape
        torch.Size([3, 8, 8])
        >>> vae.encode(vae.sample(5)).mean.shape
        torch.Size([5, 10])
    """

    recipes = {
        "digits": {
            "model": {"latent_dim": 10, "hidden": (500,)},
            "objective": "elbo",
            "fit": {"epochs": 400, "batch_size": 50, "lr": 1e-3, "schedule": "cosine"},
        },
        # The network of the IWAE paper, one stochastic layer.
        "mnist": {
            "model": {"latent_dim": 50, "hidden": (200, 200), "activation": "tanh"},
            "objective": "elbo",
            "fit": {"epochs": 1000, "batch_size": 100, "lr": 1e-3, "schedule": "cosine"},
            "particles": 5000,
        },
        "red-wine": _WINE,
        "white-wine": _WINE,
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 10,
        *,
        hidden: tuple[int, ...] = (200,),
        likelihood: Likelihood = "bernoulli",
        network: Network = "mlp",
        activation: Activation = "relu",
    ) -> None:
        super().__init__(event_shape, latent_dim, likelihood)
        shape = {"network": network, "hidden": tuple(hidden), "activation": activation}
        self.encoder = Encoder(event_shape, 2 * latent_dim, **shape)
        self.decoder = Decoder(latent_dim, event_shape, num_params=self.num_params, **shape)

    def encode(self, x: Tensor) -> dist.Distribution:
        """q(z | x), for items of shape ``(..., *event_shape)``."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z), for codes of shape ``(..., latent_dim)``."""
        return self.likelihood(self.decoder(z))

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """p(z) p(x | z), for the items of ``x``, or for ``num`` new ones where ``x`` is None."""
        pyro.module(self.name, self)
        with pyro.plate("data", num if x is None else len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))

    def _sample(self, num: int) -> Tensor:
        return self.decode(self.prior().sample((num,))).sample()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Mean of q(z | x), shape ``(batch, latent_dim)``."""
        return self.encode(x).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x | z) at the mean of q(z | x)."""
        return self.decode(self.encode(x).mean).mean
