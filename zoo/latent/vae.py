"""Variational autoencoder.

A standard Gaussian code, and a network that turns it into a distribution for every entry; a second network
maps an item back to a Gaussian over codes:

    p(z) = N(z | 0, I),    p(x | z) = ∏_i p(x_i | g(z)_i),    q(z | x) = N(z | μ(x), diag σ²(x)).

References:
    | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), section 3 and appendix C
    | https://arxiv.org/abs/1312.6114
"""

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import softplus

from zoo.latent.networks import Activation, Decoder, Encoder, Network
from zoo.model import GenerativeModel

Likelihood = Literal["bernoulli", "gaussian"]

MIN_SCALE = 1e-3
"""Smallest standard deviation of a Gaussian output: keeps the density of training items bounded."""


def output_support(likelihood: str) -> constraints.Constraint:
    """What the entries may be under a likelihood; `ValueError` for one that is unknown."""
    if likelihood not in ("bernoulli", "gaussian"):
        raise ValueError(f"likelihood must be one of bernoulli, gaussian, got {likelihood!r}")
    return constraints.boolean if likelihood == "bernoulli" else constraints.real


def output_distribution(params: Tensor, event_dim: int) -> dist.Distribution:
    """p(x | z) from the decoder's output: one parameter is a logit, two are a location and a scale."""
    if len(params) == 1:
        return dist.Bernoulli(logits=params[0]).to_event(event_dim)
    return dist.Normal(params[0], softplus(params[1]) + MIN_SCALE).to_event(event_dim)


def code_distribution(features: Tensor) -> dist.Distribution:
    """q(z | x) from the encoder's output: the first half is the location, the second the scale."""
    loc, scale = features.chunk(2, dim=-1)
    return dist.Normal(loc, softplus(scale)).to_event(1)


class VAE(GenerativeModel):
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

    density = "bound"
    recipes = {}

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
        super().__init__(event_shape)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.support = output_support(likelihood)
        self.latent_dim = latent_dim
        shape = {"network": network, "hidden": tuple(hidden), "activation": activation}
        num_params = 1 if likelihood == "bernoulli" else 2
        self.encoder = Encoder(event_shape, 2 * latent_dim, **shape)
        self.decoder = Decoder(latent_dim, event_shape, num_params=num_params, **shape)
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)

    def prior(self) -> dist.Distribution:
        """p(z)."""
        return dist.Normal(self.prior_loc, torch.ones_like(self.prior_loc)).to_event(1)

    def encode(self, x: Tensor) -> dist.Distribution:
        """q(z | x), for items of shape ``(..., *event_shape)``."""
        return code_distribution(self.encoder(x))

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z), for codes of shape ``(..., latent_dim)``."""
        return output_distribution(self.decoder(z), len(self.event_shape))

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
