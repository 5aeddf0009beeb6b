"""What a data set is: three parts, each a tensor of items and perhaps labels."""

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.distributions.constraints import Constraint


class Split:
    """One part of a data set.

    Args:
        x: The items, shape ``(n, *event_shape)``.
        y: Their labels, shape ``(n,)``, or None.

    Raises:
        ValueError: If there is not one label for each item.

    Example:
        >>> split = Split(torch.zeros(5, 8, 8))
        >>> split
        Split(5 items of shape (8, 8))
        >>> split.batch(torch.tensor([0, 3])).shape
        torch.Size([2, 8, 8])
    """

    dynamic: bool = False
    """Whether `batch` draws afresh at each call."""

    intensities: Tensor | None = None
    """The grey levels, uint8, 0 to 255, that ``x`` is a binarisation of; None where it is not one."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x = x
        self.y = _one_label_each(x, y)

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one item."""
        return self.x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} items of shape {tuple(self.event_shape)})"

    def with_labels(self, num: int, *, seed: int = 0) -> Self:
        """Returns the same items with ``num`` labels left, spread evenly over the classes; the others are -1.

        Args:
            num: How many labels to keep, 1 to ``len(self)``.
            seed: Seed of the choice.

        Raises:
            ValueError: If there are no labels, or not so many.
        """
        if self.y is None or not 1 <= num <= len(self):
            there = 0 if self.y is None else len(self)
            raise ValueError(f"expected to keep 1 to {there} labels, got {num}")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        rank = torch.empty_like(order)  # of each item among those of its class
        for label in self.y.unique():
            members = order[self.y[order] == label]
            rank[members] = torch.arange(len(members))
        kept = order[rank[order].argsort(stable=True)][:num]
        part = copy(self)
        part.y = torch.full_like(self.y, -1)
        part.y[kept] = self.y[kept]
        return part

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the items as training should see them, shape ``(len(index), *event_shape)``.

        Args:
            index: Which items, int64, shape ``(len(index),)``.
            generator: What a dynamic split draws with; torch's own generator where it is None.
        """
        return self.x[index]


class BinarizedSplit(Split):
    """Grey-level images made binary: each pixel is 1 with probability (its level) / 255, exactly.

    ``x`` is one binarisation, fixed by the seed, float32, made when it is first asked for; until then the
    levels are all that is kept. It comes from numpy, so that its bits do not depend on torch's version.

    Args:
        intensities: The grey levels, uint8, shape ``(n, *event_shape)``.
        y: Labels, shape ``(n,)``, or None.
        seed: Seed of the fixed binarisation.
        dynamic: Whether `batch` draws a fresh binarisation at each call, or returns items of ``x``.

    Raises:
        ValueError: If the levels are not uint8, or there is not one label for each item.

    References:
        | On the quantitative analysis of deep belief networks (Salakhutdinov & Murray, 2008)
        | Importance weighted autoencoders (Burda et al., 2016), which binarises afresh at each use

    Example:
        >>> grey = torch.tensor([[0, 128, 255]], dtype=torch.uint8)
        >>> split = BinarizedSplit(grey.expand(1000, 3), seed=0, dynamic=True)
        >>> batch = split.batch(torch.arange(1000), torch.Generator().manual_seed(0))
        >>> batch.amin(0), batch.amax(0)
        (tensor([0., 0., 1.]), tensor([0., 1., 1.]))
    """

    intensities: Tensor

    def __init__(
        self, intensities: Tensor, y: Tensor | None = None, *, seed: int, dynamic: bool = False
    ) -> None:
        if intensities.dtype != torch.uint8:
            raise ValueError(f"intensities must be torch.uint8, got {intensities.dtype}")
        self.intensities = intensities
        self.y = _one_label_each(intensities, y)
        self.seed = seed
        self.dynamic = dynamic

    @cached_property
    def x(self) -> Tensor:
        """The fixed binarisation, float32, shape ``(n, *event_shape)``."""
        noise = np.random.default_rng(self.seed).integers(0, 255, self.intensities.shape, dtype=np.uint8)
        return (torch.from_numpy(noise) < self.intensities).float()

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one item."""
        return self.intensities.shape[1:]

    def __len__(self) -> int:
        return len(self.intensities)

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the items, float32, freshly binarised where the split is dynamic.

        Args:
            index: Which items, int64, shape ``(len(index),)``.
            generator: What the binarisation is drawn with; torch's own generator where it is None.
        """
        if not self.dynamic:
            return self.x[index]
        grey = self.intensities[index]
        # Uniform on 0 … 254, so that level 255 is always 1 and level g is 1 in g cases of 255.
        noise = torch.randint(255, grey.shape, dtype=torch.uint8, generator=generator)
        return (noise < grey).float()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set and its parts, as `zoo.data.load` returns it.

    Args:
        name: The name it was loaded by.
        event_shape: Shape of one item.
        support: What the entries may be.
        train: The part to learn from.
        valid: The part to stop by and to choose by.
        test: The part to report on.
        num_classes: How many classes the labels name, or None where they name none.
        fold: Which fold is the test part, or None where there are no folds.
        num_folds: How many folds there are, 1 where the split is fixed.
        description: One line on what the data are.
        alphabet: The characters that entries 0, 1, … stand for, or None where they stand for none.
        rate: Entries for each second, where items are sounds in µ-law levels, or None where they are none.

    Example:
        >>> from zoo.data import load
        >>> data = load("digits")
        >>> data.support, data.num_classes
        (Boolean(), 10)
        >>> data.train
        Split(1297 items of shape (8, 8))
    """

    name: str
    event_shape: torch.Size
    support: Constraint
    train: Split
    valid: Split
    test: Split
    num_classes: int | None = None
    fold: int | None = None
    num_folds: int = 1
    description: str = ""
    alphabet: str | None = None
    rate: int | None = None

    def with_labels(self, num: int, *, seed: int = 0) -> Self:
        """Returns the data set with ``num`` training labels left, as `Split.with_labels` chooses them."""
        return replace(self, train=self.train.with_labels(num, seed=seed))

    def encode(self, text: str) -> Tensor:
        """Characters as entries, int64, shape ``(len(text),)``.

        Raises:
            ValueError: If the data are no text, or a character is not in the alphabet.

        Example:
            >>> from zoo.data import load
            >>> data = load("names")
            >>> data.encode("Ada"), data.decode(data.encode("Ada"))
            (tensor([ 2, 31, 28]), 'Ada')
        """
        alphabet = self._alphabet()
        strange = sorted(set(text) - set(alphabet))
        if strange:
            more = f" (nor {''.join(strange[1:])!r})" if strange[1:] else ""
            raise ValueError(
                f"the character {strange[0]!r}{more} was never seen in training: leave it out, or take those "
                f"of {self.name!r}, {alphabet!r}"
            )
        place = {character: entry for entry, character in enumerate(alphabet)}
        return torch.tensor([place[character] for character in text], dtype=torch.int64)

    def decode(self, entries: Tensor) -> str:
        """Entries as characters, the inverse of `encode`.

        Args:
            entries: Integers 0 … ``len(alphabet) - 1``, shape ``(length,)``.

        Raises:
            ValueError: If the data are no text, or an entry stands for no character.
        """
        alphabet = self._alphabet()
        numbers = entries.tolist()
        if not all(0 <= number < len(alphabet) for number in numbers):
            raise ValueError(
                f"expected entries 0 ... {len(alphabet) - 1}, got {min(numbers)} ... {max(numbers)}"
            )
        return "".join(alphabet[number] for number in numbers)

    def _alphabet(self) -> str:
        if self.alphabet is None:
            raise ValueError(f"data set {self.name!r} has no alphabet: its items are no texts")
        return self.alphabet


def _one_label_each(items: Tensor, y: Tensor | None) -> Tensor | None:
    if y is not None and y.shape != items.shape[:1]:
        raise ValueError(f"y must have shape ({len(items)},), one label for each item, got {tuple(y.shape)}")
    return y
