"""Between integer levels and the real line: each level k is the floor of the numbers in its cell [k, k + 1).

With a density p over numbers v, the probability of levels x is P(x) = ∫ p(v) dv over the cell of x, and for
uniform noise, log P(x) ≥ E_u[log p(x + u)], u ~ U[0, 1).

References:
    | A note on the evaluation of generative models (Theis, van den Oord & Bethge, 2016), section 3.1
    | https://arxiv.org/abs/1511.01844
"""

import torch
from pyro.distributions import TorchDistribution, Uniform, constraints
from torch import Tensor


class Dequantized(Uniform):
    """Numbers spread evenly over the cells of levels ``x``: density 1 on [x, x + 1).

    Args:
        x: Integer levels.
        like: Whose floating-point type and device the numbers take.
    """

    def __init__(self, x: Tensor, like: Tensor) -> None:
        x = x.to(like)
        super().__init__(x, x + 1, validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Numbers in [x, x + 1), also where x + 1 is what rounding would give, and above 0, for a logit."""
        v = torch.minimum(super().rsample(sample_shape), torch.nextafter(self.high, self.low))
        return v.clamp(min=torch.finfo(v.dtype).eps / 4)  # half of the least step of what was drawn

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Uniform:
        """The same for a larger batch."""
        return super().expand(batch_shape, self._get_checked_instance(Dequantized, _instance))


class Quantized(TorchDistribution):
    """The level in whose cell a number lies: P(x | v) is 1 for x = ⌊v⌋, else 0.

    The cells of the first and the last level have no outer end, so that every number has a level.

    Args:
        v: Numbers.
        num_levels: K; the levels are 0 … K - 1.
    """

    arg_constraints = {"v": constraints.real}

    def __init__(self, v: Tensor, num_levels: int) -> None:
        self.v, self.num_levels = v, num_levels
        super().__init__(v.shape, validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Quantized":
        """The same for a larger batch."""
        return Quantized(self.v.expand(batch_shape), self.num_levels)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """The levels of the numbers."""
        levels = self.v.floor().clamp(0, self.num_levels - 1).long()
        return levels.expand(*sample_shape, *levels.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 where a number lies in the cell of the level, else -∞."""
        above = (self.v >= value) | (value == 0)
        below = (self.v < value + 1) | (value == self.num_levels - 1)
        return torch.where(above & below, 0.0, -torch.inf).to(self.v.dtype)
