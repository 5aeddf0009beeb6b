"""The two recurrent layers of a PixelRNN, each over whole maps and from pixel to pixel.

Maps are ``(channels, height, width, batch)``, as `lstm_recursion` has them, so that a convolution of 1×1 is a
matrix on their left. From pixel to pixel, features are ``(..., channels)``; what the row above adds to the
gates comes for a whole row at once, when it is complete.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from zoo.autoregressive.lstm_recursion import diagonals, lstm_recursion, rows
from zoo.autoregressive.masked_convolution import Columns, MaskedConv2d, affine, joined, row_of, windows


class LayerCache(NamedTuple):
    """What a layer knows along a row.

    Attributes:
        weights: Of its convolutions, as matrices; they never change.
        biases: Of the gates, one for each direction, with what a label adds.
        above: What the row above adds to the gates in every column, with the bias.
        cells: Of the row above, in every column; none above the first row.
        right: Of a BiLSTM, the hidden states of its right-to-left half in the row above, alike.
        along: What each pixel of the row so far has: what came in, the hidden state, the cell.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    above: Columns
    cells: Columns
    right: Columns
    along: tuple[tuple[Tensor, Tensor, Tensor], ...]


class LSTMLayer(nn.Module):
    """u ← u + U · h, of an LSTM over the map u; a subclass says which.

    Args:
        hidden: Feature maps of h; u has twice as many.
        colours: That they belong to.
        directions: That the LSTM goes in.
        taps: States that a place sees of those before.
        kernel_size: Columns of the input-to-state convolution, odd.
        num_classes: Labels, each with a bias of its own on the gates; 0 for none.
        dropout: Share of h that is dropped.
    """

    def __init__(
        self,
        hidden: int,
        colours: int,
        *,
        directions: int,
        taps: int,
        kernel_size: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.directions, self.dropout = directions, dropout
        gates = 4 * directions
        self.into = MaskedConv2d(
            2 * hidden, gates * hidden, (1, kernel_size), "B", colours=colours, parts=gates
        )
        self.between = nn.ModuleList(
            nn.Linear(taps * hidden, 4 * hidden, bias=False) for _ in range(directions)
        )
        self.out_of = MaskedConv2d(hidden, 2 * hidden, colours=colours)
        self.of_label = nn.Embedding(num_classes, gates * hidden) if num_classes else None
        if self.of_label is not None:
            nn.init.zeros_(self.of_label.weight)

    def forward(self, u: Tensor, y: Tensor | None) -> Tensor:
        """Maps ``(2 h, height, width, batch)`` from such maps, given labels ``(batch,)``."""
        h = self.states(u, None if self.of_label is None else self.of_label(y))
        return u + one_by_one(self.out_of, dropout(h, self.dropout, self.training))

    def states(self, u: Tensor, of_label: Tensor | None) -> Tensor:
        """States of every place, ``(h, height, width, batch)``."""
        raise NotImplementedError

    def biases(self, y: Tensor | None) -> tuple[Tensor, ...]:
        """Of the gates, for each direction, with what labels of any shape add."""
        bias = self.into.bias if self.of_label is None else self.into.bias + self.of_label(y)
        return bias.chunk(self.directions, -1)

    def _recursion(self, u: Tensor, W: Tensor, of_label: Tensor | None, *along: object) -> Tensor:
        """States of each direction, ``(directions, h, height, width, batch)``, from what it sees, ``u``."""
        gates = torch.baddbmm(self.into.bias.view(self.directions, -1, 1), W, u.flatten(2))
        gates = gates.unflatten(2, (-1, u.shape[-1]))
        if of_label is not None:
            gates = gates + of_label.T.reshape(*gates.shape[:2], 1, -1)
        h = lstm_recursion(gates, torch.stack([linear.weight for linear in self.between]), *along)
        return h.unflatten(2, u.shape[2:4])


class RowLSTM(LSTMLayer):
    """An LSTM from row to row: a pixel sees k states of the row above, and k // 2 pixels on its left.

    Args:
        hidden: Feature maps of h.
        colours: That they belong to.
        kernel_size: k, odd.
        num_classes: Labels, 0 for none.
        dropout: Share of h that is dropped.
    """

    def __init__(
        self, hidden: int, colours: int, *, kernel_size: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__(
            hidden,
            colours,
            **{"directions": 1, "taps": kernel_size, "kernel_size": kernel_size},
            **{"num_classes": num_classes, "dropout": dropout},
        )
        self.reach = kernel_size // 2

    def states(self, u: Tensor, of_label: Tensor | None) -> Tensor:
        """All rows, one after another."""
        width = u.shape[2]
        # From the left; what lies further than the row is long is nothing.
        left = [pad(u, (0, 0, by, 0))[:, :, :width] for by in range(self.reach, 0, -1)]
        W = self.into.masked_weight[:, :, 0, : self.reach + 1].transpose(1, 2).flatten(1)
        offsets = tuple(range(-self.reach, self.reach + 1))
        seen = torch.cat([*left, u]).unsqueeze(0)
        return self._recursion(seen, W.unsqueeze(0), of_label, rows(*u.shape[1:3]), offsets)[0]

    def begin(self, width: int, y: Tensor | None) -> LayerCache:
        """The cache before the first pixel of images of this width."""
        _, W, _ = self.into.weights()
        weights = (W, self.between[0].weight.T, *self.out_of.weights()[1:])
        biases = self.biases(y)
        return LayerCache(weights, biases, biases * width, (), (), ())

    def look(self, column: int, cache: LayerCache, u: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What goes out at a pixel, ``(..., 2 h)``, and what it has for `keep`."""
        W, _, U, b = cache.weights
        left = [before for before, _, _ in cache.along[max(0, column - self.reach) :]]
        gates = affine(joined((*left, u)), W, cache.above[column])
        h, c = lstm_cell(gates, cache.cells[column] if cache.cells else None)
        return u + affine(h, U, b), (u, h, c)

    def keep(self, column: int, cache: LayerCache, features: tuple[Tensor, ...]) -> LayerCache:
        """The cache one pixel further; at the end of a row, what it adds to the next."""
        along = (*cache.along, features)
        if column + 1 < len(cache.above):
            return cache._replace(along=along)
        _, hidden, cells = zip(*along, strict=True)
        seen = windows((row_of(hidden),), 2 * self.reach + 1)
        above = affine(seen, cache.weights[1], cache.biases[0].unsqueeze(-2)).unbind(-2)
        return cache._replace(above=above, cells=cells, along=())


class DiagonalBiLSTM(LSTMLayer):
    """Two LSTMs from diagonal to diagonal: a pixel sees the state on its left and the one above.

    The other one goes from right to left; its states, a row further down, are added to those of the first:
    in its own row, it would see what lies to the right of a pixel.

    Args:
        hidden: Feature maps of h.
        colours: That they belong to.
        num_classes: Labels, 0 for none.
        dropout: Share of h that is dropped.
    """

    def __init__(self, hidden: int, colours: int, *, num_classes: int, dropout: float) -> None:
        super().__init__(
            hidden,
            colours,
            **{"directions": 2, "taps": 2, "kernel_size": 1},
            **{"num_classes": num_classes, "dropout": dropout},
        )

    def states(self, u: Tensor, of_label: Tensor | None) -> Tensor:
        """Both halves in one recursion, the second on the mirrored map."""
        W = self.into.masked_weight.flatten(1).unflatten(0, (2, -1))
        seen = torch.stack([u, u.flip(2)])
        left, right = self._recursion(seen, W, of_label, diagonals(*u.shape[1:3]), (0, -1))
        return left + self.a_row_down(right.flip(2))

    @staticmethod
    def a_row_down(h: Tensor) -> Tensor:
        """States that those of the row above were; above the first row there are none."""
        return pad(h[:, :-1], (0, 0, 0, 0, 1, 0))

    def begin(self, width: int, y: Tensor | None) -> LayerCache:
        """The cache before the first pixel of images of this width."""
        _, into, _ = self.into.weights()
        weights = []
        for W, linear in zip(into.chunk(2, -1), self.between, strict=True):
            along, above = linear.weight.T.chunk(2)
            weights += [torch.cat([along, W]), above]
        biases = self.biases(y)
        weights = (*weights, *self.out_of.weights()[1:])
        return LayerCache(weights, biases, biases[:1] * width, (), (), ())

    def look(self, column: int, cache: LayerCache, u: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What goes out at a pixel, ``(..., 2 h)``, and what it has for `keep`."""
        W, _, _, _, U, b = cache.weights
        h, c = self._beside(cache.along[-1][1:] if cache.along else (), u, W, cache.above[column])
        both = h + cache.right[column] if cache.right else h
        return u + affine(both, U, b), (u, h, c)

    def keep(self, column: int, cache: LayerCache, features: tuple[Tensor, ...]) -> LayerCache:
        """The cache one pixel further; at the end of a row its right-to-left half, for the next."""
        along = (*cache.along, features)
        width = len(cache.above)
        if column + 1 < width:
            return cache._replace(along=along)
        _, from_above, W_right, right_from_above, _, _ = cache.weights
        bias, bias_right = (bias.unsqueeze(-2) for bias in cache.biases)
        inputs, hidden, _ = zip(*along, strict=True)
        above = affine(row_of(hidden), from_above, bias).unbind(-2)
        above_right = (cache.biases[1],) * width
        if cache.right:
            above_right = affine(row_of(cache.right), right_from_above, bias_right).unbind(-2)
        before, right = (), []
        for u, of_above in zip(reversed(inputs), reversed(above_right), strict=True):
            before = self._beside(before, u, W_right, of_above)
            right.insert(0, before[0])
        return cache._replace(above=above, right=tuple(right), along=())

    @staticmethod
    def _beside(before: tuple[Tensor, ...], u: Tensor, W: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        """State and cell of a pixel from those of the one before it in its row, which may be none."""
        return lstm_cell(affine(joined((*before[:1], u)), W, above), before[1] if before else None)


def lstm_cell(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """State and cell from the gates o, f, i and g, ``(..., 4 h)``, and the cell before; None is 0."""
    hidden = gates.shape[-1] // 4
    o, f, i = gates[..., : 3 * hidden].sigmoid().chunk(3, -1)
    new = i * gates[..., 3 * hidden :].tanh()
    c = new if c is None else f * c + new
    return o * c.tanh(), c


def one_by_one(convolution: MaskedConv2d, maps: Tensor) -> Tensor:
    """A convolution of 1×1 of maps ``(channels, height, width, batch)``."""
    weight = convolution.masked_weight.flatten(1)
    return torch.addmm(convolution.bias.unsqueeze(1), weight, maps.flatten(1)).unflatten(1, maps.shape[1:])
