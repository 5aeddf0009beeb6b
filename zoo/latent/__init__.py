"""Latent-variable models: p(x) = ∫ p(x | z) p(z) dz."""

from zoo.latent.supervised_vae import SupervisedVAE
from zoo.latent.vae import VAE

__all__ = ["VAE", "SupervisedVAE"]
