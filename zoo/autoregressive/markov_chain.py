"""Markov chain: each variable depends on the one before it in the scan, and on no other.

p(x) = p(x_1) ∏_{i>1} p(x_i | x_{i-1}):    2n - 1 parameters for n binary variables.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.autoregressive.autoregressive import Autoregressive

_FIT = {"epochs": 200, "batch_size": 50, "lr": 1e-2, "schedule": "cosine"}


class MarkovChain(Autoregressive):
    """A first-order chain along the scan, with a transition table of its own for each step.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        num_levels: 2 for entries 0. or 1., more for integers 0 … num_levels - 1.
        order: The scan order, a permutation of 0 … n - 1; None is row by row.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> chain = MarkovChain((8, 8))
        >>> sum(param.numel() for param in chain.parameters())  # 2n - 1
        127
        >>> chain.sample(3).shape
        torch.Size([3, 8, 8])
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
        self.initial = nn.Parameter(torch.zeros(rest))
        self.transitions = nn.Parameter(torch.zeros(self.num_variables - 1, num_levels, *rest))

    def params(self, x: Tensor) -> Tensor:
        """The row of each transition table that the variable before it points at."""
        steps = torch.arange(self.num_variables - 1, device=x.device)
        after = self.transitions[steps, x[..., :-1].long()]
        first = self.initial.expand(*x.shape[:-1], 1, *self.initial.shape)
        return torch.cat([first, after], dim=x.dim() - 1)

    def params_at(self, step: int, state: Tensor | None) -> Tensor:
        """One row; the state is the value before."""
        return self.initial if state is None else self.transitions[step - 1, state.long()]

    def advance(self, step: int, state: Tensor | None, value: Tensor) -> Tensor:
        """The value is all that is remembered."""
        return value
