"""Convolutions that see no pixel of the future: the rows above, and their own row up to a point."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

Columns = tuple[Tensor, ...]
"""Features of one row, ``(..., maps)`` in each of its columns."""

Sees = Literal["A", "B", "above", "row"]
"""What a convolution sees of its own row: with the masks of van den Oord et al., ``"A"`` what is left of a
pixel, ``"B"`` the pixel too; with ``"above"`` nothing, with ``"row"`` the whole of it."""


def colour_of(num: int, colours: int, parts: int = 1) -> Tensor:
    """Which colour each of ``num`` feature maps belongs to, 0 … colours - 1, in ``parts`` parts alike.

    Example:
        >>> colour_of(7, 3).tolist(), colour_of(6, 3, parts=2).tolist()
        ([0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2])
    """
    each = num // parts
    return (torch.arange(num) % each) * colours // each


class MaskedConv2d(nn.Module):
    """y(r, c) = b + Σ W_ij x(r - i, c - j), over pixels (i, j) that come before in the scan, or at it.

    Within a pixel the feature maps belong to colours, in order: with the mask ``"A"`` those of a colour see
    those of the colours before it, with ``"B"`` those of its own colour too.

    `forward` takes whole maps. For drawing, `weights` takes the weights apart: what the rows above add comes
    for a whole row at once, and what the row itself adds pixel by pixel.

    Args:
        in_channels: Feature maps that come in.
        out_channels: Feature maps that go out.
        kernel_size: Rows and columns, odd; of the rows only the upper half and the middle are there.
        sees: Which mask.
        colours: Colours that the maps belong to, at most as many as there are maps.
        parts: Parts of the outgoing maps, such as gates, of which each has all the colours.
        bias: Whether there is b.
        dilation: Pixels from one weight to the next, in rows and columns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (1, 1),
        sees: Sees = "B",
        *,
        colours: int = 1,
        parts: int = 1,
        bias: bool = True,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels // parts) < colours:
            raise ValueError(
                f"expected at least {colours} feature maps, one for each colour, got {in_channels} and "
                f"{out_channels // parts}"
            )
        self.sees, self.dilation = sees, dilation
        self.rows_above, self.width = kernel_size[0] // 2, kernel_size[1]
        rows = self.rows_above + (sees != "above")
        mask = torch.ones(out_channels, in_channels, rows, self.width)
        if sees in ("A", "B"):
            middle = self.width // 2
            mask[:, :, -1, middle + 1 :] = 0
            seen = colour_of(in_channels, colours)
            own = colour_of(out_channels, colours, parts).unsqueeze(1)
            mask[:, :, -1, middle] = (seen < own if sees == "A" else seen <= own).float()
        self.register_buffer("mask", None if mask.all() else mask, persistent=False)
        # A sum over as many inputs as are seen, and no more, starts as wide as they are.
        num_seen = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
        self.weight = nn.Parameter(torch.randn_like(mask) / num_seen.sqrt())
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    @property
    def reach_above(self) -> int:
        """How many rows above a pixel it reaches."""
        return self.rows_above * self.dilation

    @property
    def masked_weight(self) -> Tensor:
        """W with zeros where nothing is seen, shape ``(out, in, rows, columns)``."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, out, height, width)`` from maps ``(batch, in, height, width)``."""
        height, d = x.shape[-2], self.dilation
        if d == 1:
            padding = self.rows_above, self.width // 2
        else:  # nothing below, where much of the work would be in vain
            x = pad(x, (0, 0, self.rows_above * d, 0))
            padding = 0, self.width // 2 * d
        y = conv2d(x, self.masked_weight, self.bias, padding=padding, dilation=d)
        return y if y.shape[-2] == height else y[..., :height, :]

    def weights(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """W of the rows above and of the row itself, as matrices with the out-going maps last; and b."""
        weight = self.masked_weight.permute(2, 3, 1, 0)  # rows, columns, in, out
        above = weight[: self.rows_above].flatten(0, 2) if self.rows_above else None
        if self.sees == "above":
            return above, None, self.bias
        own = weight[-1] if self.sees == "row" else weight[-1, : self.width // 2 + 1]
        return above, own.flatten(0, 1), self.bias


class UntiedBias(nn.Module):
    """b(r, c): a bias for each pixel, by which a network of convolutions knows where in the image it is.

    Args:
        size: Height and width of the image.
        channels: Feature maps.
    """

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(*size, channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps ``(batch, channels, height, width)`` with the bias, in their own type."""
        return maps + self.bias.movedim(-1, 0).to(maps.dtype)

    def at(self, row: int, column: int) -> Tensor:
        """The bias of one pixel, ``(channels,)``."""
        return self.bias[row, column]


class Weights(tuple):
    """The weights of some convolutions, taken apart as `MaskedConv2d.weights` does.

    It is a leaf of a state, whatever looks for the tensors in it: it never changes.
    """

    def __new__(cls, convolutions: Iterable[MaskedConv2d]) -> "Weights":
        """Takes them apart, in order."""
        return super().__new__(cls, (convolution.weights() for convolution in convolutions))


def every(dilation: int, before: Columns) -> Columns:
    """Of what lies before, nearest last, that at distances of ``dilation`` and its multiples.

    Example:
        >>> every(2, (5, 4, 3, 2, 1))
        (4, 2)
    """
    return before[len(before) % dilation :: dilation]


def windows(rows: Sequence[Tensor], width: int, dilation: int = 1) -> Tensor:
    """What a convolution of ``width`` columns sees of rows ``(..., W, maps)`` from each column, zeros beyond.

    Returns:
        Tensor of shape ``(..., W, rows · width · maps)``.
    """
    half, span = width // 2 * dilation, (width - 1) * dilation + 1
    wide = [
        pad(row, (0, 0, half, half)).unfold(-2, span, 1)[..., ::dilation].movedim(-1, -2).flatten(-2)
        for row in rows
    ]
    return joined(wide)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts side by side in the last dimension, with what dimensions on the left any of them has."""
    if len(parts) == 1:
        return parts[0]
    try:
        return torch.cat(parts, -1)
    except RuntimeError:  # asked before, it would cost as much as the work
        batch_shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*batch_shape, part.shape[-1]) for part in parts], -1)


def row_of(columns: Columns) -> Tensor:
    """A row ``(..., width, maps)`` of its columns, which may have seen more and more of the batch."""
    return torch.stack(torch.broadcast_tensors(*columns), -2)


def at_pixel(before: Columns, own: Tensor, W: Tensor, above: Tensor, dilation: int = 1) -> Tensor:
    """What a convolution gives at one pixel.

    Args:
        before: What it sees of its row, in the columns so far; those that it does not reach are left out.
        own: What it sees of the pixel itself.
        W: The weights of the row itself, as `MaskedConv2d.weights` gives them.
        above: What the rows above add, with the bias.
        dilation: Of the convolution.
    """
    reach = (W.shape[0] // own.shape[-1] - 1) * dilation
    seen = before[max(0, len(before) - reach) :]
    return affine(joined((*(seen if dilation == 1 else every(dilation, seen)), own)), W, above)


def affine(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Returns x W + b; where x has seen fewer rows or columns than W has weights for, these are the last.

    ``b`` may have dimensions on the left.
    """
    if x.shape[-1] != W.shape[0]:
        W = W[-x.shape[-1] :]
    return product(x, b)(b, x, W)


def product(x: Tensor, b: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What computes b + x W: in one operation where there is a single dimension of items."""
    return torch.addmm if x.dim() == 2 and b.dim() <= 2 else _product


def _product(b: Tensor, x: Tensor, W: Tensor) -> Tensor:
    return x @ W + b
