"""NADE: a hidden layer for each binary variable over those before it, with shared weights.

    h_i = σ(W_{<i} x_{<i} + c),    p(x_i = 1 | x_<i) = σ(V_i h_i + b_i),

in O(n d) for all i, by a_{i+1} = a_i + x_i W_i.

References:
    | The neural autoregressive distribution estimator (Larochelle & Murray, 2011), equations 9 and 10
    | Neural autoregressive distribution estimation (Uria et al., 2016), section 2.1
    | https://arxiv.org/abs/1605.02226
"""

from collections.abc import Sequence

from zoo.autoregressive.recursion import NeuralAutoregressive


class NADE(NeuralAutoregressive):
    """Neural autoregression over binary variables.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        hidden: d, the width of the hidden layer, at least 1.
        order: The scan order, a permutation of 0 … n - 1; None is row by row.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> nade = NADE((8, 8), hidden=50)
        >>> nade.sample(3).shape
        torch.Size([3, 8, 8])
        >>> nade.conditionals(nade.sample(5)).probs.shape
        torch.Size([5, 8, 8])
    """

    recipes = {
        "digits": {
            "model": {"hidden": 200},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 100, "batch_size": 50, "lr": 5e-3, "schedule": "cosine"},
        },
        # The width of the paper's.
        "mnist": {
            "model": {"hidden": 500},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 100, "batch_size": 100, "lr": 1e-2, "schedule": "cosine"},
        },
    }

    def __init__(
        self, event_shape: tuple[int, ...], hidden: int = 200, *, order: Sequence[int] | None = None
    ) -> None:
        super().__init__(event_shape, order, 2, hidden=hidden, num_inputs=1, num_outputs=1)
