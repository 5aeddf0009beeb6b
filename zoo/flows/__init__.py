"""Flows: p(x) = p(f(x)) |det f'(x)|. The transforms are Pyro's kind, for any `TransformedDistribution`."""

from zoo.flows.coupling import AdditiveCoupling, AffineCoupling
from zoo.flows.fixed_point import ConvergenceError, Inversion
from zoo.flows.flow import Flow
from zoo.flows.linear import DiagonalScaling, LULinear
from zoo.flows.linear_flow import LinearFlow
from zoo.flows.logit import Logit
from zoo.flows.masked_convolution import MaskedConvolution
from zoo.flows.mintnet import MintNet
from zoo.flows.networks import MLP, ResidualNetwork
from zoo.flows.nice import NICE
from zoo.flows.realnvp import RealNVP
from zoo.flows.squeeze import MultiScale, Squeeze
from zoo.flows.transform import Composed, FlowDistribution, FlowTransform, Inverse

__all__ = [
    "MLP",
    "NICE",
    "AdditiveCoupling",
    "AffineCoupling",
    "Composed",
    "ConvergenceError",
    "DiagonalScaling",
    "Flow",
    "FlowDistribution",
    "FlowTransform",
    "Inverse",
    "Inversion",
    "LULinear",
    "LinearFlow",
    "Logit",
    "MaskedConvolution",
    "MintNet",
    "MultiScale",
    "RealNVP",
    "ResidualNetwork",
    "Squeeze",
]
