"""A zoo of deep generative models, each a Pyro model plus guide.

Names are imported when they are first used, so that ``import zoo`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.autoregressive import (
        FVSBN,
        NADE,
        RNADE,
        CategoricalNADE,
        CharRNN,
        FullJoint,
        Independent,
        MarkovChain,
        PixelCNN,
        PixelRNN,
        WaveNet,
    )
    from zoo.data import Dataset, Split, load
    from zoo.flows import NICE, LinearFlow, MintNet, RealNVP
    from zoo.implicit import GAN
    from zoo.latent import (
        AAE,
        PPCA,
        VAE,
        WAE,
        BernoulliMixture,
        GaussianMixture,
        HierarchicalVAE,
        SupervisedVAE,
    )
    from zoo.model import GenerativeModel
    from zoo.undirected import DBM, RBM

_EXPORTS = {
    "AAE": "zoo.latent",
    "BernoulliMixture": "zoo.latent",
    "CategoricalNADE": "zoo.autoregressive",
    "CharRNN": "zoo.autoregressive",
    "DBM": "zoo.undirected",
    "Dataset": "zoo.data",
    "FVSBN": "zoo.autoregressive",
    "FullJoint": "zoo.autoregressive",
    "GAN": "zoo.implicit",
    "GaussianMixture": "zoo.latent",
    "GenerativeModel": "zoo.model",
    "HierarchicalVAE": "zoo.latent",
    "Independent": "zoo.autoregressive",
    "LinearFlow": "zoo.flows",
    "MarkovChain": "zoo.autoregressive",
    "MintNet": "zoo.flows",
    "NADE": "zoo.autoregressive",
    "NICE": "zoo.flows",
    "PPCA": "zoo.latent",
    "PixelCNN": "zoo.autoregressive",
    "PixelRNN": "zoo.autoregressive",
    "RBM": "zoo.undirected",
    "RNADE": "zoo.autoregressive",
    "RealNVP": "zoo.flows",
    "Split": "zoo.data",
    "SupervisedVAE": "zoo.latent",
    "VAE": "zoo.latent",
    "WAE": "zoo.latent",
    "WaveNet": "zoo.autoregressive",
    "load": "zoo.data",
}

__all__ = [
    "AAE",
    "DBM",
    "FVSBN",
    "GAN",
    "NADE",
    "NICE",
    "PPCA",
    "RBM",
    "RNADE",
    "VAE",
    "WAE",
    "BernoulliMixture",
    "CategoricalNADE",
    "CharRNN",
    "Dataset",
    "FullJoint",
    "GaussianMixture",
    "GenerativeModel",
    "HierarchicalVAE",
    "Independent",
    "LinearFlow",
    "MarkovChain",
    "MintNet",
    "PixelCNN",
    "PixelRNN",
    "RealNVP",
    "Split",
    "SupervisedVAE",
    "WaveNet",
    "load",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
