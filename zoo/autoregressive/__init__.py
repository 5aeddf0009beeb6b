"""Autoregressive models: p(x) = ∏_i p(x_i | x_<i), a Pyro site for each variable, one pass for all of them."""

from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.full_joint import FullJoint
from zoo.autoregressive.independent import Independent
from zoo.autoregressive.markov_chain import MarkovChain
from zoo.autoregressive.nade import NADE

__all__ = ["FVSBN", "NADE", "FullJoint", "Independent", "MarkovChain"]
