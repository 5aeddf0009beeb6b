"""Latent-variable models: p(x) = ∫ p(x | z) p(z) dz."""

from zoo.latent.bernoulli_mixture import BernoulliMixture
from zoo.latent.gaussian_mixture import GaussianMixture
from zoo.latent.ppca import PPCA
from zoo.latent.supervised_vae import SupervisedVAE
from zoo.latent.vae import VAE

__all__ = ["PPCA", "VAE", "BernoulliMixture", "GaussianMixture", "SupervisedVAE"]
