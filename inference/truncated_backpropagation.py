"""Truncated backpropagation through time: each window goes on from the state that the one before it left."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from typing_extensions import override

from inference.objectives import Objective
from inference.program import Batch, Structure, arguments


class TruncatedBackpropagation(Objective):
    """Mean negative log-likelihood of windows, each read on from the state that the one before it left.

        -1/n Σ log p(x_i | s_i),    s_i the state after the window before, held constant,

    in nats per window. `inference.fit` gives the windows in streams: row b of every batch goes on where row b
    of the batch before ended, and the order is the same in every epoch. A state lasts for one pass over the
    items: training and validation, one epoch and the next, share none.

    The gradient stops at the beginning of a window, and so is not that of the whole sequence's likelihood,
    though the loss is.

    Args:
        model: A model with ``log_prob_from(x, state)``, which returns the log-probability of each window and
            the state after it (tensors with the windows' dimension in front, in tuples or lists), and with
            ``initial_state()``, the same without that dimension.

    Raises:
        ValueError: If the model has no such methods.

    References:
        | An efficient gradient-based algorithm for on-line training of recurrent network trajectories
          (Williams & Peng, 1990)

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("shakespeare")
        >>> rnn = zoo.CharRNN(data.event_shape, len(data.alphabet), hidden=16)
        >>> objective = TruncatedBackpropagation(rnn)
        >>> result = inference.fit(objective, data.valid, epochs=2, batch_size=16, lr=0.01, progress=False)
        >>> result.history[1]["train"] < 400  # nats per window of 100 characters
        True
    """

    bias = "its gradient stops at the beginning of each window"
    in_streams = True
    compilable = False  # a graph would hold the state that it was traced with

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if not (hasattr(model, "log_prob_from") and hasattr(model, "initial_state")):
            raise ValueError(
                f"TruncatedBackpropagation expects a model with log_prob_from and initial_state, which "
                f"{type(model).__name__} has not; MaximumLikelihood trains it window by window"
            )
        self.takes_labels = False
        self.state: Any = None

    def order(self, num: int, batch_size: int) -> Tensor:
        """The items of a pass in the order of its batches, so that each row of them is a stream.

        Where the items do not fill the last batch, it goes on with its first rows alone.
        """
        rows = min(num, batch_size)
        length, longer = divmod(num, rows)
        row = torch.arange(rows)
        steps = torch.arange(length + 1).unsqueeze(1)
        return (row * length + row.clamp(max=longer) + steps).flatten()[:num]

    def forget(self) -> None:
        """Forgets the state: the next batch is the first of a pass."""
        self.state = None

    @override
    def prepare(self, batch: Batch) -> Structure:
        return super().prepare(arguments(batch)[0])

    @override
    def check(self, batch: Batch) -> None:
        super().check(arguments(batch)[0])

    @override
    def check_training(self, batch: Batch) -> None:
        super().check_training(arguments(batch)[0])

    @override
    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch.

        Args:
            batch: The windows, shape ``(rows, length)``, and which of them are the first of their sequence,
                bool, shape ``(rows,)``; windows alone all go on.

        Raises:
            ValueError: If there are more rows than the state has.
        """
        x, *rest = arguments(batch)
        model = self.program.source[0]
        starts = rest[0] if rest else torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def entering(carried: Tensor, first: Tensor) -> Tensor:
            if len(carried) < len(x):
                raise ValueError(f"expected at most {len(carried)} rows, as the batch before, got {len(x)}")
            return torch.where(starts.view(-1, *[1] * first.dim()), first, carried[: len(x)])

        first = model.initial_state()
        state = first if self.state is None else tree_map(entering, self.state, first)
        log_prob, state = model.log_prob_from(x, state)
        self.state = tree_map(Tensor.detach, state)
        return -log_prob.mean()
