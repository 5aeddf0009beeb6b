"""Independent variables: the product of its margins, which every other model should beat.

p(x) = ∏_i p(x_i):    n parameters for n binary variables.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.autoregressive.autoregressive import Autoregressive

_FIT = {"epochs": 200, "batch_size": 50, "lr": 1e-2, "schedule": "cosine"}


class Independent(Autoregressive):
    """A coin, or a die, for each variable.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        num_levels: 2 for entries 0. or 1., more for integers 0 … num_levels - 1.
        order: The scan order, a permutation of 0 … n - 1; None is row by row. It changes the order of the
            sites and nothing else.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> model = Independent((8, 8))
        >>> model.sample(3).shape
        torch.Size([3, 8, 8])
        >>> print(f"{model.log_prob(model.sample(1)).item():.3f}")  # 64 fair coins: -64 log 2
        -44.361
    """

    recipes = {
        "digits": {"model": {}, "objective": "maximum-likelihood", "fit": _FIT},
        "digits-4x4": {"model": {}, "objective": "maximum-likelihood", "fit": _FIT},
        "digits-levels": {"model": {"num_levels": 17}, "objective": "maximum-likelihood", "fit": _FIT},
        "mnist": {
            "model": {},
            "objective": "maximum-likelihood",
            "fit": {**_FIT, "epochs": 20, "batch_size": 100},
        },
    }

    def __init__(
        self, event_shape: tuple[int, ...], *, num_levels: int = 2, order: Sequence[int] | None = None
    ) -> None:
        super().__init__(event_shape, order, num_levels)
        rest = () if num_levels == 2 else (num_levels,)
        self.logits = nn.Parameter(torch.zeros(self.num_variables, *rest))

    def params(self, x: Tensor) -> Tensor:
        """The logits, for every item alike."""
        return self.logits.expand(*x.shape, *self.logits.shape[1:])

    def params_at(self, step: int, state: None) -> Tensor:
        """The logits of one variable."""
        return self.logits[step]

    def advance(self, step: int, state: None, value: Tensor) -> None:
        """Nothing is remembered."""
