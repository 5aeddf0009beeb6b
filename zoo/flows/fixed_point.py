"""Inverse of a map with a triangular Jacobian, by a fixed-point iteration, and gradients through it.

To find x with f(x) = y, where ∂f/∂x is triangular with diagonal D(x) above 0,

    x ← x - α ⊙ D(x)⁻¹ (f(x) - y).

An entry settles once those that it depends on have; it then solves an equation of its own by Newton's steps.
Each entry has a damping α in (0, 1], which is halved where its residual swings over without getting
smaller, and grows again elsewhere.

References:
    | MintNet: Building invertible neural networks with masked convolutions (Song et al., 2019), section 3.3
    | https://arxiv.org/abs/1907.07945
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Map = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From x to f(x) and the diagonal of ∂f/∂x, all of one shape ``(batch, *event_shape)``."""


class ConvergenceError(ArithmeticError):
    """Some items were not inverted.

    Attributes:
        items: Which ones.
    """

    def __init__(self, message: str, items: list[int]) -> None:
        super().__init__(message)
        self.items = items


@dataclass(frozen=True)
class Inversion:
    """What a fixed-point iteration found.

    Attributes:
        x: Shape ``(batch, *event_shape)``.
        iterations: How many each item took, int64, shape ``(batch,)``.
        residual: max |f(x) - y| over the entries of each item, shape ``(batch,)``.
        history: The residual of each item after 0, 1, … iterations, shape ``(iterations + 1, batch)``.
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor
    history: Tensor


@torch.no_grad()
def invert(
    function: Map,
    y: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float | None = None,
    max_iterations: int = 500,
) -> Inversion:
    """Finds x with f(x) = y for each item; items that have been found are not worked on further.

    Args:
        function: f and the diagonal of its Jacobian; items do not depend on each other.
        y: Shape ``(batch, *event_shape)``.
        start: Where to begin; None begins at ``y``.
        tolerance: Largest |f(x) - y| of an entry, above 0; None is 8 units in the last place of 1, or of the
            largest entry of the item, in x or in y, where that is above 1. x itself may be off by more, where
            f is badly conditioned.
        max_iterations: How many at most, at least 1.

    Raises:
        ValueError: If ``tolerance`` or ``max_iterations`` is out of its range.
        ConvergenceError: If items do not come within the tolerance; the message names them.

    Example:
        >>> cube = lambda x: (x + x**3, 1 + 3 * x**2)
        >>> found = invert(cube, torch.tensor([[2.0], [10.0]]))
        >>> found.x.round(decimals=4)
        tensor([[1.],
                [2.]])
    """
    if max_iterations < 1 or (tolerance is not None and not tolerance > 0):
        raise ValueError(
            "expected tolerance above 0 and max_iterations of at least 1, got "
            f"{tolerance} and {max_iterations}"
        )
    unit = 8 * torch.finfo(y.dtype).eps
    largest = y.abs().flatten(1).amax(1).clamp(min=1.0)
    allowed = torch.full_like(largest, unit if tolerance is None else tolerance)
    per_item = (-1, *[1] * (y.dim() - 1))
    x = torch.empty_like(y)
    iterations = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    residual = torch.full((len(y),), torch.inf, dtype=y.dtype, device=y.device)
    active = torch.arange(len(y), device=y.device)  # items that are not found yet
    position, target, damping = (y if start is None else start), y, torch.ones_like(y)
    before: Tensor | None = None
    history = []
    for iteration in range(max_iterations + 1):
        value, diagonal = function(position)
        error = value - target
        residual[active] = error.abs().flatten(1).amax(1)
        history.append(residual.clone())
        x[active], iterations[active] = position, iteration
        if tolerance is None:
            allowed[active] = unit * torch.maximum(largest[active], position.abs().flatten(1).amax(1))
        left = residual[active]
        going = (left > allowed[active]) & left.isfinite()  # from infinity there is no way back
        if not going.any() or iteration == max_iterations:
            break
        settled = torch.zeros_like(error, dtype=torch.bool)
        if before is not None:
            stays = error.abs() > 0.5 * before.abs()
            damping = torch.where(stays & (error * before < 0), 0.5 * damping, (1.5 * damping).clamp(max=1.0))
            # At the end of its digits an entry would only jitter, and all that depends on it with it.
            settled = stays & (error.abs() <= 0.5 * allowed[active].reshape(per_item))
        active, target, damping, before = active[going], target[going], damping[going], error[going]
        change = torch.where(settled[going], 0.0, before / diagonal[going])
        position = position[going] - damping * change
    failed = (~(residual <= allowed)).nonzero().flatten().tolist()  # NaN among them
    if failed:
        raise ConvergenceError(
            f"the inverse of {len(failed)} of {len(y)} items did not converge in {iteration} iterations "
            f"to {allowed[failed].min():.1e}; the largest residual is {residual[failed].max():.1e}; "
            f"items {_listed(failed)}",
            failed,
        )
    return Inversion(x, iterations, residual, torch.stack(history))


def _listed(items: list[int]) -> str:
    return ", ".join(map(str, items[:10])) + (", ..." if len(items) > 10 else "")


class _Implicit(torch.autograd.Function):
    """x where f(x) = y, given the residual y - f(x): ∂x = (∂f/∂x)⁻¹ ∂(y - f(x)) at x fixed.

    f(x) comes with its graph, which is that of the residual too: what it was computed with is what the
    gradient is taken at, whatever has become of the parameters since.
    """

    @staticmethod
    def forward(
        context: Any, residual: Tensor, x: Tensor, graph: tuple[Tensor, Tensor], diagonal: Tensor
    ) -> Tensor:
        context.graph, context.diagonal = graph, diagonal
        return x.clone()

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # by create_graph=True
            raise RuntimeError("there is no second derivative through an inverse that is an iteration")
        (x, value), diagonal = context.graph, context.diagonal
        eps = torch.finfo(x.dtype).eps
        # Of each item: its gradient may be small beside that of another, and still be wanted in full.
        scale = grad.abs().flatten(1).amax(1).clamp(min=torch.finfo(x.dtype).tiny)
        v, before = grad / diagonal, torch.full_like(scale, torch.inf)
        for _ in range(2 * x.shape[1:].numel()):  # (∂f/∂x)ᵀ v = grad; exact after one for each entry
            error = grad - torch.autograd.grad(value, x, v, retain_graph=True)[0]
            left = error.abs().flatten(1).amax(1) / scale
            stuck = (left <= eps**0.5) & (left >= before)  # no more digits to be had
            if ((left <= 16 * eps) | stuck).all():
                break
            v, before = v + error / diagonal, left
        failed = (~(left <= eps**0.5)).nonzero().flatten().tolist()
        if failed:
            raise ConvergenceError(
                "the gradient through an inverse did not converge: "
                f"{left[failed].max():.1e} of it is left; items {_listed(failed)}",
                failed,
            )
        return v, None, None, None


def implicit(function: Map, y: Tensor, x: Tensor) -> Tensor:
    """Gives x, where f(x) = y, the gradient of the implicit-function theorem.

    ∂x/∂y = (∂f/∂x)⁻¹, and for the parameters θ of f, ∂x/∂θ = -(∂f/∂x)⁻¹ ∂f/∂θ: one linear system for each
    backward pass, however many iterations the inverse took. There is no second derivative: to ask for one, by
    ``create_graph=True``, raises a RuntimeError.

    Args:
        function: f and the diagonal of its Jacobian.
        y: Shape ``(batch, *event_shape)``.
        x: Its inverse, as `invert` found it.
    """
    x = x.detach().requires_grad_()
    value, diagonal = function(x)
    return _Implicit.apply(y - value, x.detach(), (x, value), diagonal.detach())
