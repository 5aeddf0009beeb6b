"""The two stacks of layers that a PixelCNN may have, each over whole images and from pixel to pixel.

From pixel to pixel a stack computes every feature once. What the rows above add to a row comes for all its
columns at once, when they are complete; what the row adds itself, column by column.
"""

from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from zoo.autoregressive.masked_convolution import (
    Columns,
    MaskedConv2d,
    UntiedBias,
    Weights,
    affine,
    at_pixel,
    every,
    product,
    row_of,
    windows,
)


class StackCache(NamedTuple):
    """What a stack knows along a row.

    Attributes:
        weights: Of all its convolutions, taken apart.
        bias: Of its masked convolutions, with what a label adds.
        rows: For each of those, the last rows above of what it sees, ``(..., width, maps)``.
        above: What these add, with the bias, in every column.
        along: What each sees of the row so far.
    """

    weights: tuple[Weights, ...]
    bias: tuple[Tensor, ...]
    rows: tuple[Columns, ...]
    above: tuple[Columns, ...]
    along: tuple[Columns, ...]


class ResidualStack(nn.Module):
    """A masked convolution of the pixels, and residual blocks: h ← h + W_3 · relu(W_2 * relu(W_1 · relu(h))).

    Args:
        size: Height and width of an image, where each pixel has a bias of its own after the first
            convolution; None where they share one.
        colours: That a pixel has.
        hidden: Feature maps in the middle of a block; between the blocks there are twice as many.
        layers: Blocks.
        kernel_size: Of W_2.
        dilations: Of W_2, in turn.
        first_kernel_size: Of the first convolution.
        num_classes: Labels, 0 for none.
        dropout: Share of the features before W_3 that are dropped.
    """

    def __init__(
        self,
        size: tuple[int, int] | None,
        colours: int,
        hidden: int,
        layers: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        first_kernel_size: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        sizes = (first_kernel_size,) * 2, (kernel_size,) * 2
        first = MaskedConv2d(colours, 2 * hidden, sizes[0], "A", colours=colours)
        inner = [
            MaskedConv2d(hidden, hidden, sizes[1], "B", colours=colours, dilation=d)
            for d in islice(cycle(dilations), layers)
        ]
        self.masked = nn.ModuleList([first, *inner])
        self.untied = None if size is None else UntiedBias(size, 2 * hidden)
        self.into = nn.ModuleList(MaskedConv2d(2 * hidden, hidden, colours=colours) for _ in range(layers))
        self.out_of = nn.ModuleList(MaskedConv2d(hidden, 2 * hidden, colours=colours) for _ in range(layers))
        self.of_label = _label_biases(num_classes, [2 * hidden, *[hidden] * layers])

    def forward(self, maps: Tensor, y: Tensor | None) -> Tensor:
        """Maps ``(batch, 2 · hidden, height, width)`` from those of pixels, given labels ``(batch,)``."""
        first, *inner = self.masked
        of_label = _as_maps(self.of_label, y, len(self.masked))
        h = first(maps) + of_label[0]
        h = h if self.untied is None else self.untied(h)
        for into, masked, out_of, label in zip(self.into, inner, self.out_of, of_label[1:], strict=True):
            seen = masked(into(h.relu()).relu()) + label
            h = h + out_of(dropout(seen.relu(), self.dropout, self.training))
        return h

    def begin(self, width: int, y: Tensor | None) -> StackCache:
        """The cache before the first pixel of images of this width."""
        weights = Weights(self.masked), Weights(self.into), Weights(self.out_of)
        bias = _with_labels(weights[0], self.of_label, y)
        nothing: tuple[Columns, ...] = ((),) * len(bias)
        return StackCache(weights, bias, nothing, tuple((b,) * width for b in bias), nothing)

    def look(self, row: int, column: int, cache: StackCache, pixel: Tensor) -> tuple[Tensor, Columns]:
        """The last features at a pixel, ``(..., 2 · hidden)``, and what the blocks' masked ones see of it."""
        masked, into, out_of = cache.weights
        h = at_pixel(cache.along[0], pixel, masked[0][1], cache.above[0][column])
        h = h if self.untied is None else h + self.untied.at(row, column)
        features, of = [], product(h, into[0][2])
        for layer, ((_, W_1, b_1), (_, W_3, b_3)) in enumerate(zip(into, out_of, strict=True), start=1):
            inner = of(b_1, h.relu(), W_1).relu_()
            features.append(inner)
            above, d = cache.above[layer][column], self.masked[layer].dilation
            seen = at_pixel(cache.along[layer], inner, masked[layer][1], above, d)
            h = h + of(b_3, seen.relu_(), W_3)
        return h, tuple(features)

    def keep(self, column: int, cache: StackCache, pixel: Tensor, features: Columns) -> StackCache:
        """The cache one pixel further."""
        along = _further(cache.along, (pixel, *features))
        if column + 1 < len(cache.above[0]):
            return cache._replace(along=along)
        rows, above = [], []
        for masked, (W, _, _), bias, before, row in zip(
            self.masked, cache.weights[0], cache.bias, cache.rows, along, strict=True
        ):
            last = (*before, row_of(row))[-masked.reach_above :] if masked.reach_above else ()
            rows.append(last)
            seen = every(masked.dilation, last)
            if seen:
                wide = windows(seen, masked.width, masked.dilation)
                added = affine(wide, W, bias.unsqueeze(-2)).unbind(-2)
            else:
                added = (bias,) * len(row)
            above.append(added)
        return cache._replace(rows=tuple(rows), above=tuple(above), along=((),) * len(rows))


class GatedStack(nn.Module):
    """A vertical stack over the rows above, and a horizontal one along the row, which sees the vertical one.

    v_l = W_v * v_{l-1},    h_l = W_h * h_{l-1} + U · v_l,    both through tanh(a) ⊙ σ(b),

    and h ← h + R · h_l from the second layer on.

    Args:
        size: Height and width of an image, where each pixel has a bias of its own in the first horizontal
            layer; None where they share one.
        colours: That a pixel has.
        hidden: Feature maps of each stack.
        layers: Of each.
        kernel_size: Of W_v and W_h.
        dilations: Of W_v and W_h, in turn.
        first_kernel_size: Of those in the first layer.
        num_classes: Labels, 0 for none.
        dropout: Share of the gated features that are dropped.
    """

    def __init__(
        self,
        size: tuple[int, int] | None,
        colours: int,
        hidden: int,
        layers: int,
        kernel_size: int,
        dilations: tuple[int, ...],
        first_kernel_size: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        k, first = kernel_size, first_kernel_size
        gates = 2 * hidden
        steps = list(islice(cycle(dilations), layers - 1))
        self.vertical = nn.ModuleList(
            [MaskedConv2d(colours, gates, (first, first), "above")]
            + [MaskedConv2d(hidden, gates, (k, k), "row", dilation=d) for d in steps]
        )
        self.horizontal = nn.ModuleList(
            [MaskedConv2d(colours, gates, (1, first), "A", colours=colours, parts=2)]
            + [MaskedConv2d(hidden, gates, (1, k), "B", colours=colours, parts=2, dilation=d) for d in steps]
        )
        self.across = nn.ModuleList(MaskedConv2d(gates, gates, bias=False) for _ in range(layers))
        self.untied = None if size is None else UntiedBias(size, gates)
        self.residual = nn.ModuleList(MaskedConv2d(hidden, hidden, colours=colours) for _ in range(layers))
        self.of_label = _label_biases(num_classes, [gates] * 2 * layers)

    def forward(self, maps: Tensor, y: Tensor | None) -> Tensor:
        """Maps ``(batch, hidden, height, width)`` from those of pixels, given labels ``(batch,)``."""
        layers = len(self.vertical)
        of_label = _as_maps(self.of_label, y, 2 * layers)
        v = h = maps
        for layer in range(layers):
            v = self.vertical[layer](v) + of_label[layer]
            seen = self.horizontal[layer](h) + self.across[layer](v) + of_label[layers + layer]
            if layer == 0 and self.untied is not None:
                seen = self.untied(seen)
            gated = self.residual[layer](dropout(_gate(seen, 1), self.dropout, self.training))
            h = h + gated if layer else gated
            v = dropout(_gate(v, 1), self.dropout, self.training)
        return h

    def begin(self, width: int, y: Tensor | None) -> StackCache:
        """The cache before the first pixel of images of this width, with the vertical stack of its row."""
        weights = tuple(map(Weights, (self.vertical, self.horizontal, self.across, self.residual)))
        bias = _with_labels((*weights[0], *weights[1]), self.of_label, y)
        nothing: tuple[Columns, ...] = ((),) * len(self.vertical)
        return self._next_row(StackCache(weights, bias, nothing, ((),), nothing), width)

    def look(self, row: int, column: int, cache: StackCache, pixel: Tensor) -> tuple[Tensor, Columns]:
        """The last features at a pixel, ``(..., hidden)``, and what the next layers see of it."""
        _, horizontal, _, residual = cache.weights
        h, features = pixel, []
        for layer, (_, own, _) in enumerate(horizontal):
            if layer:
                features.append(h)
            above, d = cache.above[layer][column], self.horizontal[layer].dilation
            seen = at_pixel(cache.along[layer], h, own, above, d)
            if layer == 0 and self.untied is not None:
                seen = seen + self.untied.at(row, column)
            gated = affine(_gate(seen, -1), *residual[layer][1:])
            h = h + gated if layer else gated
        return h, tuple(features)

    def keep(self, column: int, cache: StackCache, pixel: Tensor, features: Columns) -> StackCache:
        """The cache one pixel further; at the end of a row the vertical stack goes down to the next."""
        along = _further(cache.along, (pixel, *features))
        width = len(cache.above[0])
        if column + 1 < width:
            return cache._replace(along=along)
        rows = ((*cache.rows[0], row_of(along[0])), *cache.rows[1:])
        return self._next_row(cache._replace(rows=rows), width)

    def _next_row(self, cache: StackCache, width: int) -> StackCache:
        """The vertical stack for a row, of which the pixels above are known."""
        layers = len(self.vertical)
        rows, above = [], []
        v: Tensor | None = None
        for layer, (of_above, own, _) in enumerate(cache.weights[0]):
            convolution, bias = self.vertical[layer], cache.bias[layer].unsqueeze(-2)
            before, d = cache.rows[layer], convolution.dilation
            seen = every(d, before) if v is None else (*every(d, before), v)
            W = own if of_above is None else of_above if own is None else torch.cat([of_above, own])
            known = before if v is None else (*before, v)
            if seen:
                v = affine(windows(seen, convolution.width, d), W, bias)
            else:  # above the first row there is nothing
                v = bias.expand(*bias.shape[:-2], width, -1)
            _, of_across, _ = cache.weights[2][layer]
            above.append((v @ of_across + cache.bias[layers + layer].unsqueeze(-2)).unbind(-2))
            # The next row of the first layer sees this one's pixels, once they are there.
            most = convolution.reach_above - (layer == 0)
            rows.append(known[-most:] if most > 0 else ())
            v = _gate(v, -1)
        return cache._replace(rows=tuple(rows), above=tuple(above), along=((),) * layers)


def _gate(x: Tensor, dim: int) -> Tensor:
    """tanh(a) ⊙ σ(b) of the two halves."""
    a, b = x.chunk(2, dim)
    return a.tanh() * b.sigmoid()


def _label_biases(num_classes: int, widths: list[int]) -> nn.ModuleList | None:
    """What each label adds before each non-linearity; it starts at nothing."""
    if not num_classes:
        return None
    biases = nn.ModuleList(nn.Embedding(num_classes, width) for width in widths)
    for bias in biases:
        nn.init.zeros_(bias.weight)
    return biases


def _as_maps(of_label: nn.ModuleList | None, y: Tensor | None, num: int) -> list[Tensor | float]:
    """What labels ``(batch,)`` add to maps, 0 where there are none."""
    return [0.0] * num if of_label is None else [bias(y)[..., None, None] for bias in of_label]


def _with_labels(weights: tuple, of_label: nn.ModuleList | None, y: Tensor | None) -> Columns:
    """The biases of convolutions, with what labels of any shape add."""
    biases = [bias for *_, bias in weights]
    return tuple(
        biases if of_label is None else (b + add(y) for b, add in zip(biases, of_label, strict=True))
    )


def _further(along: tuple[Columns, ...], features: Columns) -> tuple[Columns, ...]:
    """One column more for each convolution; the first pixel's features know of no batch yet."""
    batch_shape = features[0].shape[:-1]
    if any(each.shape[:-1] != batch_shape for each in features):
        features = tuple(
            each.expand(*torch.broadcast_shapes(batch_shape, each.shape[:-1]), each.shape[-1])
            for each in features
        )
    return tuple((*columns, each) for columns, each in zip(along, features, strict=True))
