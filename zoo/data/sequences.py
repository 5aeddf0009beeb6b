"""Data that are long sequences, as texts and sounds are: kept whole, and cut into windows to learn from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.data.dataset import Split


class SequenceSplit(Split):
    """Whole sequences, and the windows that they are cut into, one after the other and without overlap.

    A remainder at the end of a sequence that is shorter than a window is in no window; `sequences` has it.

    Args:
        sequences: The whole texts or clips, each of shape ``(any length,)``.
        length: Entries of a window, at least 1.

    Attributes:
        sequences: As given.
        x: The windows, in the order of the sequences, shape ``(num, length)``.
        starts: Which windows are the first of their sequence, bool, shape ``(num,)``.

    Raises:
        ValueError: If there is no sequence, one has more than one dimension, ``length`` is below 1, or no
            sequence is as long as a window.

    Example:
        >>> split = SequenceSplit([torch.arange(7), torch.arange(4)], length=3)
        >>> split
        SequenceSplit(3 windows of 3, from 2 sequences)
        >>> split.x[2], split.starts
        (tensor([0, 1, 2]), tensor([ True, False,  True]))
    """

    def __init__(self, sequences: Sequence[Tensor], length: int) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        if not sequences or any(sequence.dim() != 1 for sequence in sequences):
            shapes = ", ".join(str(tuple(sequence.shape)) for sequence in sequences) or "none"
            raise ValueError(f"expected sequences of one dimension, at least one, got {shapes}")
        self.sequences = list(sequences)
        cut = [whole[: len(whole) // length * length].view(-1, length) for whole in self.sequences]
        super().__init__(torch.cat(cut))
        if not len(self.x):
            longest = max(map(len, self.sequences))
            raise ValueError(
                f"expected a sequence as long as a window of {length}, the longest has {longest}"
            )
        self.starts = torch.cat([torch.arange(len(windows)) == 0 for windows in cut])

    def __repr__(self) -> str:
        windows = f"{len(self)} windows of {self.x.shape[1]}"
        return f"{type(self).__name__}({windows}, from {len(self.sequences)} sequences)"
