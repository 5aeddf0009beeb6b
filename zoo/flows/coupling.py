"""Coupling: some entries pass as they are, and a network of them says how the others move.

With z_a the entries that a mask shows and z_b those that it hides,

    additive:  x_a = z_a,    x_b = z_b + g(z_a);
    affine:    x_a = z_a,    x_b = z_b ⊙ exp(-h(z_a)) + g(z_a),    log |det ∂x/∂z| = -Σ h(z_a).

References:
    | NICE: Non-linear independent components estimation (Dinh, Krueger & Bengio, 2015), section 3.2
    | Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017), section 3.4 for the masks
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.flows.transform import FlowTransform


class Coupling(FlowTransform):
    """Coupling over any mask, with any network; a subclass says how the hidden entries move.

    A mask along the first dimension of an item alone, shape ``(d,)``, *splits* it: the network is given the
    entries (or channels) shown, in their order, and answers for those hidden. A mask over the whole item, for
    instance a checkerboard, *blanks* it: the network is given the item with zeros where it is hidden, and
    answers for all of it; the answer for what is shown is not used. Either way it answers with `num_params`
    numbers for an entry, one after the other along the first dimension of an item.

    Args:
        mask: Which entries are shown, bool; shape ``(d,)``, or that of an item.
        network: From what is shown to the parameters of what is hidden.
        event_dim: How many dimensions an item has.

    Raises:
        ValueError: If the mask shows all or nothing, or has neither of the two shapes.
    """

    num_params: int

    def __init__(self, mask: Tensor, network: Callable[[Tensor], Tensor], *, event_dim: int = 1) -> None:
        super().__init__(event_dim)
        if mask.dtype != torch.bool or mask.dim() not in (1, event_dim):
            raise ValueError(
                f"mask must be bool, of 1 or {event_dim} dimensions, got {mask.dtype} of {mask.dim()}"
            )
        if mask.all() or not mask.any():
            raise ValueError(
                f"mask must show some entries and hide others, got {mask.sum()} of {mask.numel()}"
            )
        self.register_buffer("mask", mask.clone(), persistent=False)
        self.splits = mask.dim() == 1
        order = (
            torch.cat([mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]]) if self.splits else mask.new_empty(0)
        )
        self.sizes = [int(mask.sum()), int((~mask).sum())]  # of what is shown, of what is hidden
        self.register_buffer("order", order.long(), persistent=False)
        self.register_buffer("rank", self.order.argsort(), persistent=False)
        self.network = network

    def moved(self, hidden: Tensor, *params: Tensor, forwards: bool) -> tuple[Tensor, Tensor | None]:
        """The hidden entries after a step, and the logarithm of what each was multiplied with."""
        raise NotImplementedError

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Entries shown as they are, the others moved."""
        return self._coupled(x, forwards=True)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The others moved back: those shown are the same as before, and so are the parameters."""
        return self._coupled(y, forwards=False)

    def _coupled(self, x: Tensor, *, forwards: bool) -> tuple[Tensor, Tensor]:
        event_dim = self.domain.event_dim
        dim = x.dim() - event_dim
        if dim < 0 or x.shape[dim : dim + self.mask.dim()] != self.mask.shape:
            raise ValueError(
                f"{type(self).__name__} has a mask of shape {tuple(self.mask.shape)} for items of "
                f"{event_dim} dimensions, got a tensor of shape {tuple(x.shape)}"
            )
        if self.splits:
            shown, hidden = x.index_select(dim, self.order).split(self.sizes, dim)
            moved, log_scale = self.moved(hidden, *self._params(shown, hidden, dim), forwards=forwards)
            result = torch.cat([shown, moved], dim).index_select(dim, self.rank)
        else:
            params = self._params(torch.where(self.mask, x, 0.0), x, dim)
            moved, log_scale = self.moved(x, *params, forwards=forwards)
            result = torch.where(self.mask, x, moved)
            if log_scale is not None:
                log_scale = torch.where(self.mask, 0.0, log_scale)
        if log_scale is None:
            return result, x.new_zeros(x.shape[:dim])
        return result, log_scale.flatten(dim).sum(-1)

    def _params(self, shown: Tensor, moved: Tensor, dim: int) -> tuple[Tensor, ...]:
        params = self.network(shown).to(shown.dtype)  # a network may have run in half precision
        num = self.num_params * moved.shape[dim]
        if params.shape != (*moved.shape[:dim], num, *moved.shape[dim + 1 :]):
            raise ValueError(
                f"{type(self).__name__} expects its network to answer with {num} numbers in dimension {dim}, "
                f"for a tensor of shape {tuple(shown.shape)}, got {tuple(params.shape)}"
            )
        return params.chunk(self.num_params, dim)


class AdditiveCoupling(Coupling):
    """x_b = z_b + g(z_a): volume is kept. The network gives g, one number for an entry.

    Args:
        mask: Which entries are shown, as in `Coupling`.
        network: g.
        event_dim: How many dimensions an item has.

    Raises:
        ValueError: If the mask does not suit.

    Example:
        >>> coupling = AdditiveCoupling(torch.tensor([True, False, False]), torch.nn.Linear(1, 2))
        >>> y, log_det = coupling.call_and_log_det(torch.zeros(5, 3))
        >>> y.shape, log_det
        (torch.Size([5, 3]), tensor([0., 0., 0., 0., 0.]))
    """

    num_params = 1

    def moved(self, hidden: Tensor, *params: Tensor, forwards: bool) -> tuple[Tensor, None]:
        """z_b + g, or x_b - g."""
        (g,) = params
        return (hidden + g if forwards else hidden - g), None


class AffineCoupling(Coupling):
    """x_b = z_b ⊙ exp(-h(z_a)) + g(z_a). The network gives h and g, two numbers for an entry.

    h is kept between -`limit` and `limit` by `limit` · tanh(· / `limit`), so that no scale runs away.

    Args:
        mask: Which entries are shown, as in `Coupling`.
        network: h and g, h first.
        event_dim: How many dimensions an item has.
        limit: Largest |h|, above 0 and finite.

    Raises:
        ValueError: If the mask does not suit, or ``limit`` is not above 0.

    Example:
        >>> coupling = AffineCoupling(torch.tensor([True, False, False]), torch.nn.Linear(1, 4))
        >>> coupling.call_and_log_det(torch.zeros(5, 3))[1].shape
        torch.Size([5])
    """

    num_params = 2

    def __init__(
        self,
        mask: Tensor,
        network: Callable[[Tensor], Tensor],
        *,
        event_dim: int = 1,
        limit: float = 3.0,
    ) -> None:
        super().__init__(mask, network, event_dim=event_dim)
        if not 0 < limit < math.inf:
            raise ValueError(f"limit must be above 0 and finite, got {limit}")
        self.limit = limit

    def moved(self, hidden: Tensor, *params: Tensor, forwards: bool) -> tuple[Tensor, Tensor]:
        """z_b ⊙ exp(-h) + g, or (x_b - g) ⊙ exp(h)."""
        h, g = params
        log_scale = torch.tanh(h / self.limit) * (-self.limit if forwards else self.limit)
        if forwards:
            return torch.addcmul(g, hidden, log_scale.exp()), log_scale
        return (hidden - g) * log_scale.exp(), log_scale
