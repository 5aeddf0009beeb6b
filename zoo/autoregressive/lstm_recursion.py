"""The recursion of the PixelRNNs: an LSTM that goes over a map front by front, whole rows or whole diagonals.

    [o, f, i] = σ(K_s * h_prev + a),    g = tanh(K_s * h_prev + a),
    c = f ⊙ c_prev + i ⊙ g,             h = o ⊙ tanh(c),

where a is the input-to-state part of the gates, known beforehand for the whole map, and * the convolution of
the front before by K_s, the state-to-state part. c_prev is the cell at the same place of the front before.

The places of a map and the items of the batch are the last dimensions: what is done to a gate, on a whole
front, is done to memory that lies together. Autograd would keep a gradient of the size of all gates for every
front that it takes out of them; here the backward pass writes each into its place.

References:
    | Pixel recurrent neural networks (van den Oord, Kalchbrenner & Kavukcuoglu, 2016), equation 3
    | https://arxiv.org/abs/1601.06759
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad


class Front(NamedTuple):
    """Places whose states are computed together.

    Attributes:
        places: Which of the places of a map, numbered row by row.
        first: Where the front begins along its axis: columns of a row, rows of a diagonal.
        end: Where it ends.
    """

    places: slice
    first: int
    end: int


@lru_cache(maxsize=64)
def rows(height: int, width: int) -> tuple[Front, ...]:
    """A front for each row, its axis along the columns."""
    return tuple(Front(slice(r * width, (r + 1) * width), 0, width) for r in range(height))


@lru_cache(maxsize=64)
def diagonals(height: int, width: int) -> tuple[Front, ...]:
    """A front for each diagonal from right above to left below, its axis along the rows.

    The skewed map of the paper has these as its columns; here none is padded.

    Example:
        >>> places = torch.arange(6)  # of two rows of three
        >>> [places[front.places].tolist() for front in diagonals(2, 3)]
        [[0], [1, 3], [2, 4], [5]]
    """
    fronts, step = [], max(width - 1, 1)
    for diagonal in range(height + width - 1):
        first, end = max(0, diagonal - width + 1), min(diagonal + 1, height)
        start = first * width + diagonal - first
        fronts.append(Front(slice(start, start + (end - first - 1) * step + 1, step), first, end))
    return tuple(fronts)


def lstm_recursion(a: Tensor, K: Tensor, fronts: tuple[Front, ...], offsets: tuple[int, ...]) -> Tensor:
    """Hidden states h of all places, of several directions at once; differentiable, once.

    Mixed precision ends here: what is carried from front to front is of the type of the weights.

    Args:
        a: Input-to-state parts of the gates o, f, i and g, shape ``(directions, 4 h, places, batch)``.
        K: State-to-state weights, shape ``(directions, 4 h, offsets · h)``.
        fronts: In the order in which they are computed, with all places once.
        offsets: Of the places in the front before that a place sees, along their common axis.

    Returns:
        Tensor of shape ``(directions, h, places, batch)``.
    """
    with torch.autocast(a.device.type, enabled=False):
        return _Recursion.apply(a.to(K.dtype), K, fronts, offsets)


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, K: Tensor, fronts: tuple[Front, ...], offsets: tuple[int, ...]
    ) -> Tensor:
        hidden = a.new_empty(len(a), a.shape[1] // 4, *a.shape[2:])
        kept: list[Tensor] = []
        before, h, c = None, None, None
        for front in fronts:
            gates, seen = a[:, :, front.places], None
            if before is None:
                gates = gates.clone(memory_format=torch.contiguous_format)
            else:
                seen = _seen(h, before, front, offsets)
                gates = torch.bmm(K, seen.flatten(2)).view(gates.shape).add_(gates)
            sigmoids, g = _split(gates)
            o, f, i = sigmoids.sigmoid_().chunk(3, 1)
            new = i * g.tanh_()
            if before is not None:
                here, there = _overlap(before, front, 0)
                new[:, :, here].addcmul_(f[:, :, here], c[:, :, there])
            before, c = front, new
            h = c.tanh().mul_(o)
            hidden[:, :, front.places] = h
            kept += [gates, c] if seen is None else [gates, c, seen]
        ctx.save_for_backward(K, *kept)
        ctx.fronts, ctx.offsets = fronts, offsets
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        K, *kept = ctx.saved_tensors
        grad_K, K_transposed = torch.zeros_like(K), K.transpose(1, 2)
        grad_a = grad.new_empty(len(grad), 4 * grad.shape[1], *grad.shape[2:])
        grad_h = grad_c = None  # from the front that came after
        for index in reversed(range(len(ctx.fronts))):
            front = ctx.fronts[index]
            before = ctx.fronts[index - 1] if index else None
            gates, c, seen = kept[3 * index - 1 : 3 * index + 2] if index else (*kept[:2], None)
            sigmoids, g = _split(gates)
            o, f, i = sigmoids.chunk(3, 1)
            tanh_c = c.tanh()
            dh = grad[:, :, front.places]
            dh = dh if grad_h is None else grad_h.add_(dh)
            d = torch.empty_like(gates)
            d_sigmoids, dg = _split(d)
            do, df, di = d_sigmoids.chunk(3, 1)
            torch.mul(dh, tanh_c, out=do)
            dc = torch.ops.aten.tanh_backward(dh * o, tanh_c)
            dc = dc if grad_c is None else dc.add_(grad_c)
            torch.mul(dc, g, out=di)
            torch.mul(dc, i, out=dg)
            if before is None:
                df.zero_()
            else:
                here, there = _overlap(before, front, 0)
                c_before = kept[3 * index - 3] if index > 1 else kept[1]
                grad_c = torch.zeros_like(c_before)
                df.zero_()
                torch.mul(dc[:, :, here], c_before[:, :, there], out=df[:, :, here])
                torch.mul(dc[:, :, here], f[:, :, here], out=grad_c[:, :, there])
            torch.ops.aten.sigmoid_backward.grad_input(d_sigmoids, sigmoids, grad_input=d_sigmoids)
            torch.ops.aten.tanh_backward.grad_input(dg, g, grad_input=dg)
            grad_a[:, :, front.places] = d
            if before is not None:
                flat = d.flatten(2)
                grad_K.baddbmm_(flat, seen.flatten(2).transpose(1, 2))
                grad_seen = torch.bmm(K_transposed, flat).view(seen.shape)
                grad_h = torch.zeros_like(c_before)
                for offset, part in zip(ctx.offsets, grad_seen.chunk(len(ctx.offsets), 1), strict=True):
                    here, there = _overlap(before, front, offset)
                    grad_h[:, :, there] += part[:, :, here]
        return grad_a, grad_K, None, None


def _split(gates: Tensor) -> tuple[Tensor, Tensor]:
    """The three gates, and the candidate."""
    hidden = gates.shape[1] // 4
    return gates[:, : 3 * hidden], gates[:, 3 * hidden :]


def _overlap(before: Front, front: Front, offset: int) -> tuple[slice, slice]:
    """Which places of a front see one of the front before at an offset, and which these are there."""
    first = min(max(front.first, before.first - offset), front.end)
    end = max(min(front.end, before.end - offset), first)
    here = slice(first - front.first, end - front.first)
    return here, slice(here.start + front.first + offset - before.first, end + offset - before.first)


def _seen(h: Tensor, before: Front, front: Front, offsets: tuple[int, ...]) -> Tensor:
    """What each place of a front sees of the states before, zero where nothing is there."""
    size, parts = front.end - front.first, []
    for offset in offsets:
        here, there = _overlap(before, front, offset)
        part = h[:, :, there]
        missing = here.start, size - here.stop
        parts.append(pad(part, (0, 0, *missing)) if any(missing) else part)
    return torch.cat(parts, 1)
