"""What the transforms share: one call gives a value and its log-determinant together, and nothing is cached.

log p_X(x) = log p_Z(f⁻¹(x)) + log |det ∂f⁻¹/∂x|,    where x = f(z).
"""

import math
from collections.abc import Sequence

import torch
from pyro.distributions import TransformedDistribution, constraints
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, Transform
from torch.distributions.utils import _sum_rightmost as sum_rightmost
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from zoo.flows.fixed_point import ConvergenceError


class FlowTransform(TransformModule):
    """An invertible map that gives a value together with its log-determinant.

    A subclass writes `call_and_log_det` and `inverse_and_log_det`. From these comes what torch and Pyro ask
    of a transform, so that it can stand in any `pyro.distributions.TransformedDistribution`.

    Args:
        event_dim: How many dimensions on the right make one item: 1 for vectors, 3 for images with channels.
    """

    bijective = True

    def __init__(self, event_dim: int = 1) -> None:
        super().__init__()
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and log |det ∂f/∂x|, the latter of the batch's shape."""
        raise NotImplementedError

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """f⁻¹(y) and log |det ∂f⁻¹/∂y|, the latter of the batch's shape."""
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log-determinant alone, log |det ∂f/∂x| at ``x``, of the batch's shape."""
        return self.call_and_log_det(x)[1]

    @property
    def inv(self) -> "FlowTransform":
        """The same the other way round: `Inverse`, a module like this one, which has its parameters."""
        return Inverse(self)

    def _call(self, x: Tensor) -> Tensor:
        return _refuse_non_finite(str(named(self)), *self.call_and_log_det(x), forwards=True)

    def _inverse(self, y: Tensor) -> Tensor:
        return _refuse_non_finite(str(named(self)), *self.inverse_and_log_det(y), forwards=False)

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)


class Inverse(FlowTransform):
    """A transform the other way round, what its ``inv`` is."""

    def __init__(self, transform: FlowTransform) -> None:
        super().__init__()
        self.transform = transform
        self.domain, self.codomain = transform.codomain, transform.domain

    @property
    def inv(self) -> FlowTransform:
        """The other."""
        return self.transform

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of the other."""
        return self.transform.inverse_and_log_det(x)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The call of the other."""
        return self.transform.call_and_log_det(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Without a call of the other's inverse, which may be costly."""
        return -self.transform.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of f(x) from that of x."""
        return self.transform.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of x from that of f(x)."""
        return self.transform.forward_shape(shape)


class Composed(FlowTransform):
    """Transforms one after the other: ours, and any of Pyro's or torch's that need no cache.

    Args:
        parts: In the order in which a call applies them.

    Raises:
        ValueError: If there are none.
        FloatingPointError: From a call or its inverse, if the result is not finite; the message names the
            layer that it comes from.
        ConvergenceError: If a layer's inverse is an iteration that did not converge; the message names both
            the layer and the items.

    Example:
        >>> from pyro.distributions.transforms import TanhTransform
        >>> from zoo.flows import DiagonalScaling
        >>> transform = Composed([DiagonalScaling((3,)), TanhTransform()])
        >>> y, log_det = transform.call_and_log_det(torch.zeros(5, 3))
        >>> y.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, parts: Sequence[Transform]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("Composed expects at least one transform, got none")
        self.parts = list(parts)
        self.modules_of_parts = nn.ModuleList(module for part in parts for module in _modules(part))
        whole = ComposeTransform(self.parts)
        self.domain, self.codomain = whole.domain, whole.codomain
        # How many dimensions the items of the whole have at each part beyond those that the part knows of.
        self.surplus = []
        event_dim = self.domain.event_dim
        for part in self.parts:
            self.surplus.append(event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through all parts, and the sum of their log-determinants."""
        return self._through(x, self.parts, forwards=True)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Back through all parts, and the sum of their log-determinants."""
        return self._through(y, self.parts[::-1], forwards=False)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_log_det(x)[0]  # which has been looked at

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_log_det(y)[0]

    def _through(self, value: Tensor, parts: list[Transform], *, forwards: bool) -> tuple[Tensor, Tensor]:
        step = call_and_log_det if forwards else inverse_and_log_det
        result, log_det = value, None
        try:
            for part, surplus in zip(parts, self.surplus[:: 1 if forwards else -1], strict=True):
                result, change = step(part, result)
                change = sum_rightmost(change, surplus)
                log_det = change if log_det is None else log_det + change
        except (ConvergenceError, FloatingPointError):
            with named(part, self.parts):
                raise
        checked = len(parts) == 1 and isinstance(parts[0], Composed)  # by the part itself
        if not checked and _can_branch() and not math.isfinite((result.sum() + log_det.sum()).item()):
            if not (result.isfinite().all() and log_det.isfinite().all()):  # not their sum alone
                self._name_the_layer(value, parts, forwards=forwards)
        return result, log_det

    @torch.no_grad()
    def _name_the_layer(self, value: Tensor, parts: list[Transform], *, forwards: bool) -> None:
        if not value.isfinite().all():
            raise FloatingPointError("a flow expects finite numbers, got NaN or infinity")
        for part in parts:
            value, log_det = (call_and_log_det if forwards else inverse_and_log_det)(part, value)
            _refuse_non_finite(str(named(part, self.parts)), value, log_det, forwards=forwards)
        raise FloatingPointError(
            "a layer gave a value that is not finite, and did not when it was asked again"
        )

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of f(x) from that of x."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of x from that of f(x)."""
        for part in self.parts[::-1]:
            shape = part.inverse_shape(shape)
        return shape


class FlowDistribution(TransformedDistribution):
    """`TransformedDistribution` that scores in one pass: each transform gives value and log-determinant.

    Raises:
        FloatingPointError: From `log_prob` and from drawing, if a layer of ours gives what is not finite; the
            message names it.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of each item in nats."""
        event_dim, log_det = len(self.event_shape), 0.0
        for part in reversed(self.transforms):
            value, change = inverse_and_log_det(part, value)
            if isinstance(part, FlowTransform) and not isinstance(part, Composed):  # which has looked at them
                _refuse_non_finite(str(named(part, self.transforms)), value, change, forwards=False)
            log_det = log_det + sum_rightmost(change, event_dim - part.codomain.event_dim)
            event_dim += part.domain.event_dim - part.codomain.event_dim
        base = self.base_dist.log_prob(value)
        return sum_rightmost(base, event_dim - len(self.base_dist.event_shape)) + log_det


def call_and_log_det(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and log |det ∂f/∂x| of any transform, whatever it has cached."""
    if isinstance(transform, FlowTransform):
        return transform.call_and_log_det(x)
    x = x.view_as(x)  # another object than any that a cache knows
    y = transform(x)
    return y, transform.log_abs_det_jacobian(x, y)


def inverse_and_log_det(transform: Transform, y: Tensor) -> tuple[Tensor, Tensor]:
    """f⁻¹(y) and log |det ∂f⁻¹/∂y| of any transform, whatever it has cached."""
    if isinstance(transform, FlowTransform):
        return transform.inverse_and_log_det(y)
    y = y.view_as(y)
    x = transform.inv(y)
    return x, -transform.log_abs_det_jacobian(x, y)


class named:
    """Puts the name of a layer before what it complains of.

    Args:
        layer: The transform, or what to call it.
        among: Those that it is one of, whose number is part of the name.
    """

    def __init__(self, layer: Transform | str, among: Sequence[Transform] = ()) -> None:
        self.layer, self.among = layer, among

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ConvergenceError):
            raise ConvergenceError(f"{self}: {error}", error.items) from None
        if isinstance(error, FloatingPointError):
            raise FloatingPointError(f"{self}: {error}") from None

    def __str__(self) -> str:
        if isinstance(self.layer, str):
            return self.layer
        inverted = isinstance(self.layer, Inverse)
        kind = f"inverse of {type(self.layer.transform).__name__}" if inverted else type(self.layer).__name__
        for number, part in enumerate(self.among):
            if part is self.layer:
                return f"layer {number} ({kind})"
        return kind


def _refuse_non_finite(name: str, value: Tensor, log_det: Tensor, *, forwards: bool) -> Tensor:
    """The value, where it and the log-determinant are finite."""
    if _can_branch():
        for what, numbers in (("value", value), ("log-determinant", log_det)):
            if not numbers.isfinite().all():
                raise FloatingPointError(
                    f"{name} gives a {what} that is not finite in its {'call' if forwards else 'inverse'}"
                )
    return value


def _modules(transform: Transform) -> list[nn.Module]:
    """The modules of a transform of torch's or Pyro's, which may be hidden in a plain one."""
    if isinstance(transform, nn.Module):
        return [transform]
    if isinstance(transform, ComposeTransform):
        return [module for part in transform.parts for module in _modules(part)]
    inner = getattr(transform, "base_transform", None)
    if inner is None and type(transform).__name__ == "_InverseTransform":
        inner = transform.inv
    return [] if inner is None else _modules(inner)


def _can_branch() -> bool:
    """Whether values may be looked at: not while a graph is traced from them."""
    return not torch.compiler.is_compiling() and get_proxy_mode() is None
