"""NADE over levels: a softmax for each variable.

    h_i = σ(Σ_{j<i} W_{j,x_j} + c),    p(x_i | x_<i) = softmax(V_i h_i + b_i).

References:
    | The neural autoregressive distribution estimator (Larochelle & Murray, 2011), section 3
    | A neural autoregressive topic model (Larochelle & Lauly, 2012), for values that enter by a column each
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import one_hot

from zoo.autoregressive.recursion import NeuralAutoregressive


class CategoricalNADE(NeuralAutoregressive):
    """Neural autoregression over variables of a few levels each, such as grey levels.

    Args:
        event_shape: Shape of one item, for instance ``(8, 8)``.
        num_levels: K, at least 2; the entries are integers 0 … K - 1, int64.
        hidden: d, the width of the hidden layer, at least 1.
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
            "fit": {"epochs": 60, "batch_size": 50, "lr": 1e-3, "schedule": "cosine"},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_levels: int,
        hidden: int = 200,
        *,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            event_shape,
            order,
            num_levels,
            hidden=hidden,
            num_inputs=num_levels,
            num_outputs=num_levels,
        )

    def inputs(self, x: Tensor) -> Tensor:
        """A level as the one of ``num_levels`` numbers that is 1."""
        return one_hot(x, self.num_levels).to(self.c.dtype)
