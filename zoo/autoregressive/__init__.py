"""Autoregressive models: p(x) = ∏_i p(x_i | x_<i), a site for each variable, and one pass for all of them."""

from zoo.autoregressive.categorical_nade import CategoricalNADE
from zoo.autoregressive.char_rnn import CharRNN
from zoo.autoregressive.full_joint import FullJoint
from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.independent import Independent
from zoo.autoregressive.markov_chain import MarkovChain
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.pixel_cnn import PixelCNN
from zoo.autoregressive.pixel_rnn import PixelRNN
from zoo.autoregressive.rnade import RNADE
from zoo.autoregressive.wavenet import WaveNet

__all__ = [
    "FVSBN",
    "NADE",
    "RNADE",
    "CategoricalNADE",
    "CharRNN",
    "FullJoint",
    "Independent",
    "MarkovChain",
    "PixelCNN",
    "PixelRNN",
    "WaveNet",
]
