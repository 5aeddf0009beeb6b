"""Gibbs sampling by blocks: every block of variables is drawn from its distribution given all others.

    s_B' ~ p(s_B | s_{-B}),    B each of the blocks in turn.

A draw from a conditional leaves the joint as it is, so nothing is ever rejected.

References:
    | Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images (Geman & Geman, 1984)
    | Sampling-based approaches to calculating marginal densities (Gelfand & Smith, 1990)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from pyro.distributions import Distribution, constraints
from torch import Tensor, nn
from typing_extensions import override

from inference.kernels import Kernel, State
from inference.program import base_of

Conditional = Callable[[State], Distribution | Tensor]
"""A site given the others: its distribution, or a draw from it."""

Clamp = Any
"""A value, or a pair of a value and a mask of what is held."""


@runtime_checkable
class HasBlocks(Protocol):
    """A model that gives its block conditionals, and somewhere to start (the zoo's undirected ones do)."""

    def blocks(self) -> Sequence[Any]:
        """In the order of a sweep: each has ``sites``, names, and ``draw(state)``, a dict of new values.

        Sites of one block are independent of each other given all other sites, and so are the entries of a
        site that is to be held in part.
        """

    def initial_state(self, num: int) -> State:
        """Values of all sites to start ``num`` chains from."""


class BlockGibbs(Kernel):
    """One sweep draws every block in turn; what is clamped stays, to the bit.

    Args:
        model: A model with ``blocks()`` (see `HasBlocks`), or conditionals: a dict from the names of sites to
            functions of the state that give a distribution to draw from, or the draw itself, of shape
            ``(chains, ...)``. The sites of a dict are drawn one after the other; in a list of dicts those of
            one dict are drawn given the same state, which is right where they are independent of each other
            given the others. The state is a dict of the current values; leave its tensors as they are.
        clamped: Values of sites that are held, so that the others are drawn given them: of the site's shape,
            or ``(chains, *shape)`` for each chain its own. A pair of a value and a mask, bool and of such a
            shape too, holds the entries where the mask is True; elsewhere the value may be anything.
        energy: A function that gives the energy of a state in nats, ``(chains,)``, to be recorded; left out,
            the model's ``energy`` where it has one.

    Raises:
        ValueError: If there is no block, or a site is clamped that no block has; at the start of a run, if
            blocks, clamped values and state do not fit each other.

    Example:
        >>> import pyro.distributions as dist
        >>> gibbs = BlockGibbs({
        ...     "x": lambda s: dist.Normal(0.8 * s["y"], 0.6),
        ...     "y": lambda s: dist.Normal(0.8 * s["x"], 0.6),
        ... })
        >>> state = {"x": torch.zeros(1000), "y": torch.zeros(1000)}
        >>> for _ in range(20):
        ...     state = gibbs.sample(state)
        >>> bool((state["x"] * state["y"]).mean() > 0.6)
        True
    """

    def __init__(
        self,
        model: Any,
        *,
        clamped: Mapping[str, Clamp] | None = None,
        energy: Callable[[State], Tensor] | None = None,
    ) -> None:
        self.source = model
        self.module = model if isinstance(model, nn.Module) else None
        self.blocks = _blocks_of(model)
        self.energy = energy or getattr(model, "energy", None)
        if not isinstance(clamped, Mapping | None):
            raise ValueError(
                f"expected clamped to be a dict by the names of sites, got {type(clamped).__name__}"
            )
        self.clamped = {name: _pair(name, given) for name, given in (clamped or {}).items()}
        self.held = frozenset(name for name, (_, mask) in self.clamped.items() if mask is None)
        drawn = [site for block in self.blocks for site in block.sites]
        unknown = [name for name in self.clamped if name not in drawn]
        if unknown:
            raise ValueError(f"expected clamped sites to be some of {', '.join(drawn)}, got {unknown[0]}")

    @override
    def start(self, num: int) -> State:
        if not callable(getattr(self.source, "initial_state", None)):
            return super().start(num)
        with torch.no_grad():
            return self.source.initial_state(num)

    @torch.no_grad()
    @override
    def prepare(self, state: State) -> State:
        state = super().prepare(state)
        for block in self.blocks:
            missing = [name for name in block.sites if name not in state]
            if missing:
                raise ValueError(
                    f"expected a state with all sites of the block {', '.join(block.sites)}, "
                    f"got none for {missing[0]}"
                )
        return state | {name: self._clamp(name, state) for name in self.clamped}

    @torch.no_grad()
    @override
    def sample(self, params: State) -> State:
        state = dict(params)
        for block in self.blocks:
            if not self.held.issuperset(block.sites):
                state |= self._kept(block, block.draw(dict(state)), state)
        return state

    @override
    def stats(self, state: State) -> dict[str, Tensor]:
        if self.energy is None:
            return {}
        with torch.no_grad():
            return {"energy": self.energy(state)}

    def _kept(self, block: Any, drawn: State, state: State) -> State:
        """The new values of a block, but where they are held."""
        values = {}
        for name in block.sites:
            if name in self.held:
                continue
            value, current = drawn.get(name), state[name]
            came = (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else type(value).__name__
            if came != (tuple(current.shape), current.dtype):
                raise ValueError(
                    f"expected a draw of {name} as in the state, {tuple(current.shape)} of {current.dtype}, "
                    f"got {f'{came[0]} of {came[1]}' if isinstance(value, Tensor) else came}"
                )
            if name in self.clamped:
                value = torch.where(self.clamped[name][1].to(value.device), current, value)
            values[name] = value
        return values

    def _clamp(self, name: str, state: State) -> Tensor:
        """The values of a site to start from: held where they are clamped, else those of the state."""
        (given, mask), current = self.clamped[name], state[name]
        value = given if isinstance(given, Tensor) else _as_tensor(name, given, current)
        for what, part in (("value", value), ("mask", mask)):
            if part is not None and part.shape not in (current.shape, current.shape[1:]):
                raise ValueError(
                    f"expected the clamped {what} of {name} of shape {tuple(current.shape[1:])} or "
                    f"{tuple(current.shape)}, got {tuple(part.shape)}"
                )
        if value.dtype != current.dtype:
            raise ValueError(f"expected the clamped value of {name} in {current.dtype}, got {value.dtype}")
        value = value.to(current.device).expand_as(current)
        if mask is not None:
            value = torch.where(mask.to(current.device), value, current)
        conditional = self._conditional(name, state)
        if mask is not None and conditional is not None and base_of(conditional).event_dim:
            raise ValueError(
                f"expected {name} to have independent entries, so that some can be held, got a "
                f"{type(base_of(conditional)).__name__} of them"
            )
        support = getattr(conditional, "support", None)
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        # Bounds that are tensors may depend on where the chains are.
        fixed = support is not None and not any(isinstance(each, Tensor) for each in vars(support).values())
        outside = value[~(support.check(value) if fixed else value.isfinite())].flatten()
        if len(outside):
            expected = " ".join(str(support).split()) if fixed else "finite numbers"
            raise ValueError(f"expected the clamped value of {name} in {expected}, got {outside[0].item():g}")
        return value.clone()

    def _conditional(self, name: str, state: State) -> Distribution | None:
        """The distribution that a site is drawn from, where it is to be had."""
        for block in self.blocks:
            if isinstance(block, _Conditionals) and name in block.sites:
                found = block.conditionals[name](dict(state))
                return found if isinstance(found, Distribution) else None
        conditional = getattr(self.source, "conditional", None)
        return conditional(name, state) if callable(conditional) else None


class _Conditionals(NamedTuple):
    """A block of a user's functions."""

    conditionals: Mapping[str, Conditional]

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.conditionals)

    def draw(self, state: State) -> State:
        given = {name: function(state) for name, function in self.conditionals.items()}
        return {
            name: value.sample() if isinstance(value, Distribution) else value
            for name, value in given.items()
        }


def _blocks_of(model: Any) -> tuple[Any, ...]:
    blocks = model.blocks() if callable(getattr(model, "blocks", None)) else model
    if isinstance(blocks, Mapping):
        blocks = [{name: function} for name, function in blocks.items()]
    if not isinstance(blocks, Sequence) or isinstance(blocks, str) or not blocks:
        came = type(model).__name__ if blocks or not isinstance(blocks, Sequence) else "none"
        raise ValueError(f"expected a model with blocks(), or conditionals by the names of sites, got {came}")
    blocks = tuple(_Conditionals(block) if isinstance(block, Mapping) else block for block in blocks)
    for block in blocks:
        functions = getattr(block, "conditionals", {}).values()
        if not (getattr(block, "sites", ()) and callable(getattr(block, "draw", None))):
            raise ValueError(f"expected a block to have sites and draw, got {block!r:.60}")
        if not all(callable(function) for function in functions):
            raise ValueError(
                f"expected functions of the state for {', '.join(block.sites)}, got other values"
            )
    return blocks


def _pair(name: str, given: Clamp) -> tuple[Any, Tensor | None]:
    """A clamped value and its mask, None where all of it is held."""
    if not isinstance(given, tuple):
        return given, None
    if len(given) != 2 or not isinstance(given[1], Tensor) or given[1].dtype != torch.bool:
        raise ValueError(
            f"expected {name} to be clamped at a value, or at a pair of a value and a mask of bool"
        )
    return given


def _as_tensor(name: str, given: Any, current: Tensor) -> Tensor:
    """A clamped number, or an array of them, in the type of its site where nothing is lost by that."""
    try:
        value = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"expected the clamped value of {name} to be a tensor or a number, got {type(given).__name__}"
        ) from None
    if current.is_floating_point() and value.dtype != torch.bool and not value.is_complex():
        return value.to(current.dtype)
    whole = not (value.dtype == torch.bool or value.is_floating_point() or value.is_complex())
    return value.to(current.dtype) if whole and current.dtype != torch.bool else value
