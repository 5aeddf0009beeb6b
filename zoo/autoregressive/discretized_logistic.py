"""A mixture of logistics on K levels: neighbouring levels are alike, and no level needs a weight of its own.

    P(k) = Σ_m π_m [σ((u_k - μ_m)/s_m) - σ((l_k - μ_m)/s_m)],    levels spread evenly over [-1, 1],

where l_k and u_k lie half-way to the neighbours of level k; -∞ below the lowest, +∞ above the highest.

References:
    | PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other modifications
      (Salimans et al., 2017), equation 2
    | https://arxiv.org/abs/1701.05517
"""

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

LEAST_LOG_SCALE, MOST_LOG_SCALE = -7.0, 7.0
"""Of s: below, a component would give everything to one of 256 levels; above, all of it to the ends."""


class DiscretizedLogisticMixture(dist.TorchDistribution):
    """Levels 0 … K - 1, by a mixture of logistic distributions that is cut into cells.

    Args:
        params: Logits of the weights, locations and log-scales of M components, one after another in the last
            dimension: shape ``(..., 3 M)``.
        num_levels: K, at least 2.

    Raises:
        ValueError: If there are fewer levels, or not three parameters for each component.

    Example:
        >>> mixture = DiscretizedLogisticMixture(torch.zeros(5, 6), num_levels=4)
        >>> mixture.log_prob(torch.arange(4).unsqueeze(1)).exp().sum(0)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    arg_constraints = {"params": constraints.independent(constraints.real, 1)}
    has_enumerate_support = True

    def __init__(self, params: Tensor, num_levels: int, validate_args: bool | None = None) -> None:
        if num_levels < 2 or params.shape[-1] < 3 or params.shape[-1] % 3:
            raise ValueError(
                "expected at least 2 levels, and three parameters for each component, at least one, got "
                f"{num_levels} and {params.shape[-1]}"
            )
        self.params, self.num_levels = params, num_levels
        self.logits, self.loc, log_scale = params.unflatten(-1, (3, -1)).unbind(-2)
        self.log_scale = log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        super().__init__(params.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "DiscretizedLogisticMixture":
        """The same for a larger batch."""
        params = self.params.expand(*batch_shape, self.params.shape[-1])
        return DiscretizedLogisticMixture(params, self.num_levels, validate_args=self._validate_args)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draws levels: a component, a number from its logistic, the level of its cell."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            component = dist.Categorical(logits=self.logits).expand(shape).sample().unsqueeze(-1)
            loc, log_scale = (
                each.expand(*shape, -1).gather(-1, component).squeeze(-1)
                for each in (self.loc, self.log_scale)
            )
            uniform = torch.rand(shape, dtype=loc.dtype, device=loc.device)
            number = loc + log_scale.exp() * torch.logit(uniform, eps=torch.finfo(loc.dtype).eps)
            level = (number + 1) * (self.num_levels - 1) / 2
            return level.round().clamp(0, self.num_levels - 1).long()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of levels, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        step = 2 / (self.num_levels - 1)
        number = (value.to(self.loc.dtype) * step - 1).unsqueeze(-1)
        scale = self.log_scale.exp()
        above, below = (number + step / 2 - self.loc) / scale, (number - step / 2 - self.loc) / scale
        # σ(u) - σ(l) = σ(u) σ(-l) (1 - exp(l - u)), each factor without cancellation.
        up, down = logsigmoid(above), logsigmoid(-below)
        lowest, highest = (value == 0).unsqueeze(-1), (value == self.num_levels - 1).unsqueeze(-1)
        between = up + down + torch.log(-torch.expm1(-step / scale))
        cell = torch.where(lowest, up, torch.where(highest, down, between))
        return (self.logits.log_softmax(-1) + cell).logsumexp(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All levels, in a new dimension on the left."""
        levels = torch.arange(self.num_levels, device=self.params.device)
        levels = levels.view(-1, *[1] * len(self.batch_shape))
        return levels.expand(-1, *self.batch_shape) if expand else levels
