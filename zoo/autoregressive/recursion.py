"""The recursion that NADE and its relatives share: all n hidden layers in O(n d), forwards and backwards.

    a_1 = c,    a_{i+1} = a_i + x_i W_i,    h_i = f(ρ_i a_i),    o_i = V_i h_i + b_i.

Autograd would keep every a_i and h_i, n · d numbers for each item: some 300 MB for a batch of 100 at n = 784,
d = 500, and slow because it leaves the cache. Here only a block of variables is ever in memory, small enough
for the cache; the backward pass computes it once more, from the a_i at its start.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from zoo.autoregressive.autoregressive import Autoregressive

Activation = Literal["sigmoid", "relu"]

BLOCK_BYTES = 8_000_000
"""What two blocks of hidden layers may take, forwards and backwards: they should stay in the cache."""


class NeuralAutoregressive(Autoregressive):
    """A hidden layer for each variable, over the values before it, with shared input weights.

    A subclass says how values enter, in `inputs`, and what distribution the outputs parametrise.

    Args:
        event_shape: Shape of one item.
        order: The scan order, None for row by row.
        num_levels: As `Autoregressive`.
        hidden: d, the width of the hidden layer, at least 1.
        num_inputs: Numbers that a value enters as.
        num_outputs: Parameters of a variable's distribution; a single one has no dimension of its own.
        activation: f, ``"sigmoid"`` or ``"relu"``.
        rescaled: Whether each variable has a ρ_i of its own; without, ρ is 1.

    Raises:
        ValueError: If ``hidden`` is below 1, or as `Autoregressive`.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        order: Sequence[int] | None,
        num_levels: int | None,
        *,
        hidden: int,
        num_inputs: int,
        num_outputs: int,
        activation: Activation = "sigmoid",
        rescaled: bool = False,
    ) -> None:
        super().__init__(event_shape, order, num_levels)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        n = self.num_variables
        self.activation = activation
        # As if each hidden unit saw all n values; the weights of the last variable reach nobody.
        self.W = nn.Parameter(torch.randn(n - 1, num_inputs, hidden) / n**0.5)
        self.c = nn.Parameter(torch.zeros(hidden))
        self.V = nn.Parameter(torch.randn(n, num_outputs, hidden) / hidden**0.5)
        self.b = nn.Parameter(torch.zeros(n * num_outputs))  # one dimension: no weight decay for biases
        if rescaled:
            self.rho = nn.Parameter(1 / torch.arange(1, n + 1).float().sqrt())
        else:
            self.rho = None

    def inputs(self, x: Tensor) -> Tensor:
        """What values ``(...)`` enter as: shape ``(..., num_inputs)``."""
        return x.unsqueeze(-1)

    def params(self, x: Tensor) -> Tensor:
        """The outputs of all variables by the recursion in blocks."""
        # One batch dimension, written out: -1 would not do where there is a single variable and so no input.
        # Mixed precision gives values in another type than the weights.
        inputs = self.inputs(x)[..., :-1, :].reshape(x.shape[:-1].numel(), *self.W.shape[:2]).to(self.W.dtype)
        b = self.b.view(self.V.shape[:2])
        outputs = hidden_recursion(inputs, self.W, self.c, self.V, b, self.rho, self.activation)
        return outputs.reshape(*x.shape[:-1], *(outputs.shape[1:] if outputs.shape[-1] > 1 else (-1,)))

    def initial_state(self) -> tuple[Tensor, "_Steps"]:
        """a_1 = c, and the weights of each step."""
        return self.c, _Steps(self.W, self.V, self.b, self.rho)

    def params_at(self, step: int, state: tuple[Tensor, "_Steps"]) -> Tensor:
        """o_i from a_i."""
        a, steps = state
        if steps.rho is not None:
            a = a * steps.rho[step]
        return steps.outputs(step, a.sigmoid() if self.activation == "sigmoid" else a.relu())

    def advance(self, step: int, state: tuple[Tensor, "_Steps"], value: Tensor) -> tuple[Tensor, "_Steps"]:
        """a_{i+1} = a_i + x_i W_i."""
        a, steps = state
        if step == self.num_variables - 1:
            return state
        x, W = self.inputs(value), steps.W[step]
        return torch.addcmul(a, x, W) if W.dim() == 1 else a + x @ W, steps

    def _sample(self, num: int) -> Tensor:
        """What the base draws, bit for bit, with a and h in place."""
        with pyro.validation_enabled(False):
            # a_1 stays one vector, as in the program: a matrix times V_1 may round otherwise.
            a, steps = self.initial_state()
            h, values = torch.empty_like(a), []
            for step in range(self.num_variables):
                scaled = a if steps.rho is None else torch.mul(a, steps.rho[step], out=h)
                if self.activation == "sigmoid":
                    torch.sigmoid(scaled, out=h)
                else:
                    torch.clamp_min(scaled, 0, out=h)
                values.append(self._draw(steps.outputs(step, h), num))
                if step + 1 < self.num_variables:
                    if step == 0:
                        a = a.expand(num, -1).clone()
                        h = torch.empty_like(a)
                    x, W = self.inputs(values[-1]), steps.W[step]
                    a = a.addcmul_(x, W) if W.dim() == 1 else a.add_(x @ W)
            return self.assembled(values)


class _Steps:
    """The weights of each step, a vector where there is a single input or output.

    They are taken apart at once: to select each alone costs a gradient of full size.
    """

    def __init__(self, W: Tensor, V: Tensor, b: Tensor, rho: Tensor | None) -> None:
        self.W = (W.squeeze(1) if W.shape[1] == 1 else W).unbind(0)
        self.V = (V.squeeze(1) if V.shape[1] == 1 else V).unbind(0)
        self.b = (b if V.shape[1] == 1 else b.view(V.shape[:2])).unbind(0)
        self.rho = None if rho is None else rho.unbind(0)

    def outputs(self, step: int, h: Tensor) -> Tensor:
        """o_i from h_i."""
        V, b = self.V[step], self.b[step]
        if V.dim() == 2:
            return h @ V.T + b
        return torch.addmv(b, h, V) if h.dim() == 2 else torch.linalg.vecdot(h, V) + b


def hidden_recursion(
    x: Tensor,
    W: Tensor,
    c: Tensor,
    V: Tensor,
    b: Tensor,
    rho: Tensor | None = None,
    activation: Activation = "sigmoid",
) -> Tensor:
    """Outputs o_i of all variables, differentiable with regard to every tensor.

    Where derivatives of its gradient are asked for, it computes that gradient all at once, as autograd would.

    Args:
        x: What the values enter as, shape ``(batch, n - 1, num_inputs)``: nobody sees the last one.
        W: Input weights, shape ``(n - 1, num_inputs, d)``.
        c: Where a starts, shape ``(d,)``.
        V: Output weights, shape ``(n, num_outputs, d)``.
        b: Output biases, shape ``(n, num_outputs)``.
        rho: Factors of a_i, shape ``(n,)``; None is 1.
        activation: f, ``"sigmoid"`` or ``"relu"``.

    Returns:
        Tensor of shape ``(batch, n, num_outputs)``.

    References:
        | The neural autoregressive distribution estimator (Larochelle & Murray, 2011), algorithm 1
    """
    return _Recursion.apply(x, W, c, V, b, rho, activation)


class _Recursion(torch.autograd.Function):
    """Tensors inside are laid out with the variable first: a block of them is contiguous."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W: Tensor,
        c: Tensor,
        V: Tensor,
        b: Tensor,
        rho: Tensor | None,
        activation: Activation,
    ) -> Tensor:
        given = (x, W, c, V, b, rho)
        x = x.transpose(0, 1).contiguous()
        outputs = x.new_empty(len(V), V.shape[1], x.shape[1])
        buffer = _block_buffer(x, V)
        a, starts = c.expand(x.shape[1], -1), []
        for block in _blocks(len(V), buffer):
            starts.append(a)
            pre = buffer[: len(block)]
            a = _pre_activations(a, x, W, block, pre)
            h = _activated(pre, rho, block, activation)
            rows = slice(block.start, block.stop)
            # The product this way round is a row times a matrix, which is many times faster than the other.
            torch.bmm(V[rows], h.transpose(1, 2), out=outputs[rows])
        ctx.save_for_backward(*given, *starts)
        ctx.activation = activation
        return outputs.add_(b.unsqueeze(-1)).permute(2, 0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W, c, V, b, rho, *starts = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate the gradient
            given, needed = (x, W, c, V, b, rho), ctx.needs_input_grad[:6]
            outputs = _all_at_once(*given, ctx.activation)
            wanted = [tensor for tensor, need in zip(given, needed, strict=True) if need]
            grads = iter(torch.autograd.grad(outputs, wanted, grad, create_graph=True, allow_unused=True))
            return *(next(grads) if need else None for need in needed), None
        x = x.transpose(0, 1).contiguous()
        grad = grad.permute(1, 2, 0).contiguous()  # (n, num_outputs, batch)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_W, grad_V = torch.empty_like(W), torch.empty_like(V)
        grad_rho = None if rho is None else torch.empty_like(rho)
        buffer, grad_buffer = _block_buffer(x, V), _block_buffer(x, V)
        later = x.new_zeros(x.shape[1], V.shape[2])  # the gradient of a_i: all of the outputs from i on
        for block, a in zip(reversed(list(_blocks(len(V), buffer))), reversed(starts), strict=True):
            rows = slice(block.start, block.stop)
            pre, grad_pre = buffer[: len(block)], grad_buffer[: len(block)]
            _pre_activations(a, x, W, block, pre)
            factors = None if rho is None else rho[rows, None, None]
            a_block = pre.clone() if rho is not None else None
            h = _activated(pre, rho, block, ctx.activation)
            torch.bmm(grad[rows], h, out=grad_V[rows])
            _products(grad[rows], V[rows], out=grad_pre)
            if ctx.activation == "sigmoid":
                torch.ops.aten.sigmoid_backward.grad_input(grad_pre, h, grad_input=grad_pre)
            else:
                torch.ops.aten.threshold_backward.grad_input(grad_pre, h, 0, grad_input=grad_pre)
            if a_block is not None:
                grad_rho[rows] = a_block.mul_(grad_pre).sum((1, 2))
                grad_pre *= factors
            for i in reversed(range(len(block))):
                grad_pre[i] += later
                later = grad_pre[i]
            # a_i holds x_{i-1} W_{i-1}: the variable before the block's first is the one that moved it.
            moved = grad_pre[1:] if block.start == 0 else grad_pre
            by = slice(max(block.start - 1, 0), block.stop - 1)
            torch.bmm(x[by].transpose(1, 2), moved, out=grad_W[by])
            if grad_x is not None:
                torch.bmm(moved, W[by].transpose(1, 2), out=grad_x[by])
            later = later.clone()
        return (
            None if grad_x is None else grad_x.transpose(0, 1),
            grad_W,
            later.sum(0),
            grad_V,
            grad.sum(-1),
            grad_rho,
            None,
        )


def _all_at_once(
    x: Tensor, W: Tensor, c: Tensor, V: Tensor, b: Tensor, rho: Tensor | None, activation: Activation
) -> Tensor:
    """The same outputs by cumulative sums, which autograd can differentiate as often as it likes."""
    moves = torch.einsum("bik,ikd->bid", x, W).cumsum(1)
    a = torch.cat([c.expand(len(x), 1, -1), c + moves], dim=1)
    a = a if rho is None else a * rho.unsqueeze(-1)
    h = a.sigmoid() if activation == "sigmoid" else a.relu()
    return torch.einsum("bid,iod->bio", h, V) + b


def _block_buffer(x: Tensor, V: Tensor) -> Tensor:
    """Room for as many hidden layers of the batch as stay in the cache."""
    _, batch, _ = x.shape
    num, _, hidden = V.shape
    fitting = BLOCK_BYTES // max(1, 2 * batch * hidden * x.element_size())
    return x.new_empty(max(1, min(num, fitting)), batch, hidden)


def _blocks(num: int, buffer: Tensor) -> Iterator[range]:
    for start in range(0, num, len(buffer)):
        yield range(start, min(start + len(buffer), num))


def _pre_activations(a: Tensor, x: Tensor, W: Tensor, block: range, out: Tensor) -> Tensor:
    """Writes a_i for the variables of a block, from that of its first; returns that of the next block's."""
    out[0] = a
    for place, i in enumerate(block[:-1]):
        _advanced(out[place], x[i], W[i], out=out[place + 1])
    if block[-1] == len(W):
        return a
    return _advanced(out[len(block) - 1], x[block[-1]], W[block[-1]], out=torch.empty_like(out[0]))


def _advanced(a: Tensor, x: Tensor, W: Tensor, out: Tensor) -> Tensor:
    if len(W) == 1:
        return torch.addcmul(a, x, W[0], out=out)
    return torch.addmm(a, x, W, out=out)


def _activated(pre: Tensor, rho: Tensor | None, block: range, activation: Activation) -> Tensor:
    """The hidden layers h from a, in place."""
    if rho is not None:
        pre *= rho[block.start : block.stop, None, None]
    return pre.sigmoid_() if activation == "sigmoid" else pre.relu_()


def _products(grad: Tensor, V: Tensor, out: Tensor) -> None:
    """The gradient of h: that of the outputs, (block, outputs, batch), times V."""
    if V.shape[1] == 1:
        torch.mul(grad.transpose(1, 2), V, out=out)
    else:
        torch.bmm(grad.transpose(1, 2), V, out=out)
