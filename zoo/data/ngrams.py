"""What a character costs after the few before it, by counts: long contexts interpolated with short ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

DISCOUNTS = np.linspace(0.05, 0.95, 19)
"""Those that a context length may have."""


class NGrams:
    """Probabilities of a symbol after the 0, 1, …, order - 1 symbols before it, each backed by the shorter.

        p_k(x | c) = (max(n(c, x) - d_k, 0) + d_k m(c) p_{k-1}(x | c')) / n(c),

    where the context c of k - 1 symbols was followed n(c) times by any of m(c) symbols, n(c, x) times by x,
    and c' lacks its first symbol; p_0 is uniform. Where c was never seen, or a sequence has only begun, p_k
    is p_{k-1}. The discounts d_k are those of a grid under which the validation part is likeliest, one after
    the other from the shortest context on.

    Args:
        train: The sequences to count in, integers 0 … num_symbols - 1, each of shape ``(any length,)``.
        valid: The sequences to choose the discounts by.
        num_symbols: How many symbols there are.
        order: The longest context and the symbol together, at least 1: 1 for unigrams, 5 for 5-grams.

    Attributes:
        discounts: d_1 … d_order.

    Raises:
        ValueError: If ``order`` is below 1, or contexts are too many for 64 bits.

    References:
        | On structuring probabilistic dependences in stochastic language modelling (Ney, Essen & Kneser,
          1994), absolute discounting
        | An empirical study of smoothing techniques for language modeling (Chen & Goodman, 1999), section 2.7

    Example:
        >>> text = torch.tensor([0, 1, 2] * 20)
        >>> ngrams = NGrams([text], [text], num_symbols=3, order=2)
        >>> [round(nats, 2) for nats in ngrams.nats_per_symbol([text])]
        [1.1, 0.02]
    """

    def __init__(
        self, train: Sequence[Tensor], valid: Sequence[Tensor], num_symbols: int, order: int
    ) -> None:
        if order < 1 or num_symbols**order >= 2**63:
            raise ValueError(
                f"order must be at least 1, and {num_symbols} symbols to its power below 2**63, got {order}"
            )
        self.num_symbols, self.order = num_symbols, order
        self.counts = [self._count(train, length) for length in range(1, order + 1)]
        self.discounts: list[float] = []
        below = [np.full(len(sequence), 1 / num_symbols) for sequence in valid]
        for length in range(1, order + 1):
            found = [self._looked_up(sequence, length) for sequence in valid]
            options = [
                [
                    _interpolated(*parts, below=p, discount=discount)
                    for parts, p in zip(found, below, strict=True)
                ]
                for discount in DISCOUNTS
            ]
            best = max(range(len(options)), key=lambda i: sum(np.log(p).sum() for p in options[i]))
            self.discounts.append(float(DISCOUNTS[best]))
            below = options[best]

    def log_prob_of(self, sequence: Tensor) -> Tensor:
        """Log-probability of each symbol of a sequence in nats, float64: a row for each context length.

        Args:
            sequence: Integers 0 … num_symbols - 1, shape ``(length,)``.

        Returns:
            Shape ``(order, length)``: by unigrams first, by the longest contexts last.
        """
        p, rows = np.full(len(sequence), 1 / self.num_symbols), []
        for length, discount in enumerate(self.discounts, start=1):
            p = _interpolated(*self._looked_up(sequence, length), below=p, discount=discount)
            rows.append(np.log(p))
        return torch.from_numpy(np.stack(rows))

    def nats_per_symbol(self, sequences: Sequence[Tensor]) -> list[float]:
        """Mean negative log-probability over all symbols in nats: by unigrams first."""
        return (-torch.cat([self.log_prob_of(sequence) for sequence in sequences], -1).mean(-1)).tolist()

    def _codes(self, sequence: Tensor, length: int) -> np.ndarray:
        """A number for each run of so many symbols, of which the last changes it least."""
        symbols = sequence.numpy()
        codes = np.zeros(max(len(symbols) - length + 1, 0), dtype=np.int64)
        for place in range(length):
            codes = codes * self.num_symbols + symbols[place : place + len(codes)]
        return codes

    def _count(self, sequences: Sequence[Tensor], length: int) -> tuple[np.ndarray, ...]:
        """The runs, how often each occurs; the contexts, how often one is followed, by how many others."""
        codes = np.concatenate([self._codes(sequence, length) for sequence in sequences])
        runs, times = np.unique(codes, return_counts=True)
        contexts, first, different = np.unique(
            runs // self.num_symbols, return_index=True, return_counts=True
        )
        followed = np.add.reduceat(times, first) if len(first) else times
        return runs, times, contexts, followed, different

    def _looked_up(self, sequence: Tensor, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each symbol: n(c, x), n(c) and m(c); zeros where its context is not whole."""
        runs, times, contexts, followed, different = self.counts[length - 1]
        codes = self._codes(sequence, length)
        found = np.zeros((3, len(sequence)))
        for row, (keys, values, sought) in enumerate(
            (
                (runs, times, codes),
                (contexts, followed, codes // self.num_symbols),
                (contexts, different, codes // self.num_symbols),
            )
        ):
            if not len(keys):
                continue
            place = np.searchsorted(keys, sought).clip(max=len(keys) - 1)
            found[row, length - 1 :] = np.where(keys[place] == sought, values[place], 0)
        return found[0], found[1], found[2]


def _interpolated(
    times: np.ndarray, followed: np.ndarray, different: np.ndarray, *, below: np.ndarray, discount: float
) -> np.ndarray:
    seen = followed > 0
    total = np.where(seen, followed, 1)
    return np.where(seen, (np.maximum(times - discount, 0) + discount * different * below) / total, below)
