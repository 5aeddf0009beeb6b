"""Undirected models: p(x) ∝ Σ_h exp(-E(x, h)), whose sum over everything has no closed form."""

from zoo.undirected.annealing import Annealing
from zoo.undirected.boltzmann import Block, BoltzmannMachine
from zoo.undirected.dbm import DBM
from zoo.undirected.rbm import RBM

__all__ = ["DBM", "RBM", "Annealing", "Block", "BoltzmannMachine"]
