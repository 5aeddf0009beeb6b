"""Fully visible sigmoid belief network: a logistic regression of each variable on all before it.

    p(x_i = 1 | x_<i) = σ(α_i0 + Σ_{j<i} α_ij x_j):    n (n + 1) / 2 parameters.

References:
    | Does the wake-sleep algorithm produce good density estimators? (Frey, Hinton & Dayan, 1996), section 3
    | Modeling high-dimensional discrete data with multi-layer neural networks (Bengio & Bengio, 2000)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.autoregressive.autoregressive import Autoregressive


class FVSBN(Autoregressive):
    """Logistic autoregression over binary variables.

    The weights are the strictly upper triangle of a square matrix, α_ij in row j and column i; what lies
    below it is never used.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        order: The scan order, a permutation of 0 … n - 1; None is row by row.

    Raises:
        ValueError: If ``order`` is no permutation.

    Example:
        >>> network = FVSBN((8, 8))
        >>> network.sample(3).shape
        torch.Size([3, 8, 8])
        >>> network.conditionals(network.sample(5)).probs.shape
        torch.Size([5, 8, 8])
    """

    recipes = {
        "digits": {
            "model": {},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 200, "batch_size": 50, "lr": 5e-3, "schedule": "cosine"},
        },
        "digits-4x4": {
            "model": {},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 200, "batch_size": 50, "lr": 1e-2, "schedule": "cosine"},
        },
        "mnist": {
            "model": {},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 100, "batch_size": 100, "lr": 5e-3, "schedule": "cosine"},
        },
    }

    def __init__(self, event_shape: tuple[int, ...], *, order: Sequence[int] | None = None) -> None:
        super().__init__(event_shape, order)
        self.weight = nn.Parameter(torch.zeros(self.num_variables, self.num_variables))
        self.bias = nn.Parameter(torch.zeros(self.num_variables))

    def params(self, x: Tensor) -> Tensor:
        """One product with the triangle."""
        logits = torch.addmm(self.bias, x.reshape(-1, self.num_variables), self.weight.triu(1))
        return logits.view(x.shape)

    def initial_state(self) -> Tensor:
        """The logits of the variables still to come, as far as the values so far have moved them."""
        return self.bias

    def params_at(self, step: int, state: Tensor) -> Tensor:
        """The first of those logits."""
        return state[..., 0]

    def advance(self, step: int, state: Tensor, value: Tensor) -> Tensor:
        """Each of the others moves by its weight times the value."""
        return torch.addcmul(state[..., 1:], value.unsqueeze(-1), self.weight[step, step + 1 :])
