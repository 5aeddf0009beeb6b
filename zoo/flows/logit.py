"""From an interval to the real line."""

import math

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from zoo.flows.transform import FlowTransform


class Logit(FlowTransform):
    """y = logit(α + (1 - 2α) (x - a) / (b - a)), which maps [a, b] into the real line, of each entry.

    With an offset α above 0 the ends a and b have finite images; the inverse then reaches beyond them, by
    α (b - a) / (1 - 2α).

    Args:
        low: a.
        high: b.
        offset: α, at least 0 and below ½.

    Raises:
        ValueError: If ``low`` is not below ``high``, or the offset is outside its range.

    References:
        | Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017), section 4.1

    Example:
        >>> Logit(0.0, 256.0, offset=0.05)(torch.tensor([0.0, 128.0, 256.0]))
        tensor([-2.9444,  0.0000,  2.9444])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, *, offset: float = 0.0) -> None:
        super().__init__(0)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"low must be below high, and both finite, got {low} and {high}")
        if not 0 <= offset < 0.5:
            raise ValueError(f"offset must be at least 0 and below 0.5, got {offset}")
        self.scale = (1 - 2 * offset) / (high - low)
        self.shift = offset - self.scale * low
        reach = offset / self.scale
        self.domain = constraints.interval(low - reach, high + reach)
        self.codomain = constraints.real

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit, and the logarithm of its slope."""
        p = self.scale * x + self.shift
        y = torch.logit(p)
        return y, math.log(self.scale) - p.log() - (-p).log1p()

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled logistic function, and the logarithm of its slope."""
        x = (torch.sigmoid(y) - self.shift) / self.scale
        return x, logsigmoid(y) - softplus(y) - math.log(self.scale)
