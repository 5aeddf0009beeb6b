"""The models by the names that the command line gives them."""

import difflib
from importlib import import_module

MODELS = {
    "aae": "zoo.latent.aae:AAE",
    "bernoulli-mixture": "zoo.latent.bernoulli_mixture:BernoulliMixture",
    "categorical-nade": "zoo.autoregressive.categorical_nade:CategoricalNADE",
    "char-rnn": "zoo.autoregressive.char_rnn:CharRNN",
    "dbm": "zoo.undirected.dbm:DBM",
    "fvsbn": "zoo.autoregressive.fvsbn:FVSBN",
    "full-joint": "zoo.autoregressive.full_joint:FullJoint",
    "gan": "zoo.implicit.gan:GAN",
    "gaussian-mixture": "zoo.latent.gaussian_mixture:GaussianMixture",
    "hierarchical-vae": "zoo.latent.hierarchical_vae:HierarchicalVAE",
    "independent": "zoo.autoregressive.independent:Independent",
    "linear-flow": "zoo.flows.linear_flow:LinearFlow",
    "markov-chain": "zoo.autoregressive.markov_chain:MarkovChain",
    "mintnet": "zoo.flows.mintnet:MintNet",
    "nade": "zoo.autoregressive.nade:NADE",
    "nice": "zoo.flows.nice:NICE",
    "pixel-cnn": "zoo.autoregressive.pixel_cnn:PixelCNN",
    "pixel-rnn": "zoo.autoregressive.pixel_rnn:PixelRNN",
    "ppca": "zoo.latent.ppca:PPCA",
    "rbm": "zoo.undirected.rbm:RBM",
    "realnvp": "zoo.flows.realnvp:RealNVP",
    "rnade": "zoo.autoregressive.rnade:RNADE",
    "supervised-vae": "zoo.latent.supervised_vae:SupervisedVAE",
    "vae": "zoo.latent.vae:VAE",
    "wae": "zoo.latent.wae:WAE",
    "wavenet": "zoo.autoregressive.wavenet:WaveNet",
}
"""Name on the command line, and where the class is: ``module:Class``."""


def model_class(name: str) -> type:
    """Imports the model class that is called ``name`` on the command line.

    Args:
        name: One of `MODELS`.

    Raises:
        ValueError: If no model has this name.

    Example:
        >>> model_class("vae").__name__
        'VAE'
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown model {name!r}{hint}; the models are {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(import_module(module), attribute)


def model_name(cls: type) -> str:
    """The command-line name of a model class, the inverse of `model_class`.

    Raises:
        ValueError: If it is no model of the zoo.
    """
    target = f"{cls.__module__}:{cls.__qualname__}"
    names = [name for name, place in MODELS.items() if place == target]
    if not names:
        raise ValueError(f"{cls.__qualname__} is no model of the zoo; the models are {', '.join(MODELS)}")
    return names[0]
