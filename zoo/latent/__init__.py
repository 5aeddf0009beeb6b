"""Latent-variable models: p(x) = ∫ p(x | z) p(z) dz."""

from zoo.latent.aae import AAE
from zoo.latent.bernoulli_mixture import BernoulliMixture
from zoo.latent.gaussian_mixture import GaussianMixture
from zoo.latent.hierarchical_vae import HierarchicalVAE
from zoo.latent.ppca import PPCA
from zoo.latent.supervised_vae import SupervisedVAE
from zoo.latent.vae import VAE
from zoo.latent.wae import WAE

__all__ = [
    "AAE",
    "PPCA",
    "VAE",
    "WAE",
    "BernoulliMixture",
    "GaussianMixture",
    "HierarchicalVAE",
    "SupervisedVAE",
]
