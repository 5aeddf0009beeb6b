"""The full joint table: a probability for every configuration, nothing assumed.

    p(x) = softmax(θ)_x,    x ∈ {0, 1}ⁿ:    2ⁿ - 1 parameters.

The truth that other models and methods are held against where n is small, and the extreme of overfitting
where there are fewer items than cells: maximum likelihood then is the memory of the training items,
1 / their number for each, and 0 for all others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.autoregressive.autoregressive import Autoregressive

MOST_VARIABLES = 20
"""A table of a million cells."""


class FullJoint(Autoregressive):
    """A table of all configurations of a few binary variables.

    Args:
        event_shape: Shape of one item, of at most 20 entries.
        order: The scan order, a permutation of 0 … n - 1; None is row by row. The same table has another
            meaning under another order.

    Raises:
        ValueError: If there are more than 20 entries, or ``order`` is no permutation.

    Example:
        >>> table = FullJoint((4,))
        >>> sum(param.numel() for param in table.parameters())  # 2^4 - 1
        15
        >>> every = torch.cartesian_prod(*[torch.tensor([0., 1.])] * 4)
        >>> print(f"{table.log_prob(every).exp().sum().item():.4f}")
        1.0000
    """

    recipes = {
        "digits-4x4": {
            "model": {},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 300, "batch_size": 50, "lr": 3e-2},
        }
    }

    def __init__(self, event_shape: tuple[int, ...], *, order: Sequence[int] | None = None) -> None:
        super().__init__(event_shape, order)
        if self.num_variables > MOST_VARIABLES:
            raise ValueError(
                f"event_shape must have at most {MOST_VARIABLES} entries for a table of all configurations, "
                f"got {self.num_variables}"
            )
        self.logits = nn.Parameter(torch.zeros(2**self.num_variables - 1))

    def table(self) -> Tensor:
        """Unnormalised log-probability of every configuration, the first variable of the scan slowest."""
        return torch.cat([self.logits.new_zeros(1), self.logits])

    def params(self, x: Tensor) -> Tensor:
        """Log-odds, log p(x_<i, 1) - log p(x_<i, 0), by summing out what comes after i."""
        margins = [self.table()]
        for _ in range(self.num_variables - 1):
            margins.insert(0, margins[0].unflatten(0, (-1, 2)).logsumexp(-1))
        logits, prefix = [], torch.zeros_like(x[..., 0], dtype=torch.int64)
        for step, margin in enumerate(margins):
            zero, one = margin.unflatten(0, (-1, 2)).unbind(-1)
            logits.append((one - zero)[prefix])
            prefix = 2 * prefix + x[..., step].long()
        return torch.stack(logits, dim=-1)

    def initial_state(self) -> Tensor:
        """The part of the table that the values so far allow, shape ``(..., 2^(n - step))``."""
        return self.table()

    def params_at(self, step: int, state: Tensor) -> Tensor:
        """Log-odds of the two halves of what is left."""
        zero, one = state.unflatten(-1, (2, -1)).logsumexp(-1).unbind(-1)
        return one - zero

    def advance(self, step: int, state: Tensor, value: Tensor) -> Tensor:
        """The half that the value chooses."""
        zero, one = state.unflatten(-1, (2, -1)).unbind(-2)
        return torch.where(value.unsqueeze(-1) > 0, one, zero)
