"""NADE over levels: a softmax for each variable.

    h_i = σ(Σ_{j<i} W_j φ(x_j) + c),    p(x_i | x_<i) = softmax(V_i h_i + b_i).

φ says which levels a value reaches, φ_k(x) = [x ≥ k] for k = 1 … K - 1, where levels have an order, as grey
levels have: neighbours then enter alike. Where they have none, φ_k(x) = [x = k].

References:
    | The neural autoregressive distribution estimator (Larochelle & Murray, 2011)
    | Neural autoregressive distribution estimation (Uria et al., 2016), section 2
    | https://arxiv.org/abs/1605.02226
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.autoregressive.recursion import NeuralAutoregressive


class CategoricalNADE(NeuralAutoregressive):
    """Neural autoregression over variables of a few levels each, such as grey levels.

    Args:
        event_shape: Shape of one item, for instance ``(8, 8)``.
        num_levels: K, at least 3; the entries are integers 0 … K - 1, int64. Two levels are `NADE`'s.
        hidden: d, the width of the hidden layer, at least 1.
        ordered: Whether neighbouring levels are alike, as φ above.
        order: The scan order, a permutation of 0 … n - 1; None is row by row.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> nade = CategoricalNADE((8, 8), num_levels=17, hidden=50)
        >>> nade.sample(3).shape
        torch.Size([3, 8, 8])
        >>> nade.conditionals(nade.sample(5)).probs.shape
        torch.Size([5, 8, 8, 17])
    """

    recipes = {
        "digits-levels": {
            "model": {"num_levels": 17, "hidden": 200},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 60, "batch_size": 50, "lr": 2e-2, "schedule": "cosine", "weight_decay": 1.0},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_levels: int,
        hidden: int = 200,
        *,
        ordered: bool = True,
        order: Sequence[int] | None = None,
    ) -> None:
        if num_levels < 3:
            raise ValueError(f"num_levels must be at least 3 (NADE has two levels), got {num_levels}")
        super().__init__(
            event_shape,
            order,
            num_levels,
            hidden=hidden,
            num_inputs=num_levels - ordered,
            num_outputs=num_levels,
        )
        self.ordered = ordered

    def inputs(self, x: Tensor) -> Tensor:
        """φ(x), shape ``(..., K - 1)`` where levels are ordered, else ``(..., K)``."""
        levels = torch.arange(self.num_levels, device=x.device)
        reached = x.unsqueeze(-1) >= levels[1:] if self.ordered else x.unsqueeze(-1) == levels
        return reached.to(self.c.dtype)
