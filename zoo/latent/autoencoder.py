"""What the autoencoders share: a standard Gaussian code, and a neural likelihood for every entry."""

from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import softplus

from zoo.model import GenerativeModel

Likelihood = Literal["bernoulli", "gaussian"]

MIN_SCALE = 1e-3
"""Smallest standard deviation of a Gaussian output: keeps the density of training items bounded."""


class Autoencoder(GenerativeModel):
    """A model with a standard Gaussian code z; a subclass builds the networks and writes the programs.

    Args:
        event_shape: Shape of one item.
        latent_dim: Length of the code z, at least 1.
        likelihood: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones.

    Raises:
        ValueError: If an argument is none of the above.
    """

    density = "bound"

    def __init__(self, event_shape: tuple[int, ...], latent_dim: int, likelihood: Likelihood) -> None:
        super().__init__(event_shape)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be one of bernoulli, gaussian, got {likelihood!r}")
        self.support = constraints.boolean if likelihood == "bernoulli" else constraints.real
        self.latent_dim = latent_dim
        self.num_params = 1 if likelihood == "bernoulli" else 2
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    def prior(self) -> dist.Distribution:
        """p(z) = N(z | 0, I)."""
        return dist.Normal(self.prior_loc, self.prior_scale).to_event(1)

    def posterior(self, features: Tensor) -> dist.Distribution:
        """q(z | x) from an encoder's output: the first half is the location, the second gives the scale."""
        loc, scale = features.chunk(2, dim=-1)
        return dist.Normal(loc, softplus(scale)).to_event(1)

    def likelihood(self, params: Tensor) -> dist.Distribution:
        """p(x | z) from a decoder's output: a logit for each entry, or a location and a scale."""
        if self.num_params == 1:
            entries = dist.Bernoulli(logits=params.squeeze(0))
        else:
            entries = dist.Normal(params[0], softplus(params[1]) + MIN_SCALE)
        return entries.to_event(len(self.event_shape))

    def features(self, x: Tensor) -> Tensor:
        """Representation of items for a classifier, without gradient, shape ``(batch, features)``."""
        raise NotImplementedError

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x | z) at the mean of q(z | x), without gradient, shape of ``x``."""
        raise NotImplementedError
