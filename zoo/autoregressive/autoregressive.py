"""What the autoregressive models share: a site for each variable in scan order, and one pass for them all.

p(x) = ∏_i p(x_i | x_<i),    i along the scan order.
"""

from collections.abc import Sequence
from operator import index
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from zoo.model import GenerativeModel


class Autoregressive(GenerativeModel):
    """A product of conditionals; a subclass says what the parameters of each are, all at once and one by one.

    It writes four methods, in terms of the scan: step 0 is the first variable of the order.

    * `params`: those of all conditionals of items that are given (teacher forcing);
    * `initial_state`, `params_at` and `advance`: those of one conditional from a state, and the state after
      it, so that drawing n variables costs n small steps. The state is the subclass's own business; it starts
      without batch dimensions and takes on those of the values.

    Where a label conditions all variables, `params` and `initial_state` take it as a further argument, and
    the subclass writes a `model` that has a site for it.

    Args:
        event_shape: Shape of one item.
        order: The scan order: a permutation of 0 … n - 1, which number the entries of an item row by row.
            None takes them as they are numbered.
        num_levels: 2 for entries 0. or 1., more for integers 0 … num_levels - 1, None for real entries.

    Attributes:
        order: The scan order.

    Raises:
        ValueError: If ``order`` is no permutation, or ``num_levels`` is below 2.
    """

    density = "exact"

    def __init__(
        self, event_shape: tuple[int, ...], order: Sequence[int] | None, num_levels: int | None = 2
    ) -> None:
        super().__init__(event_shape)
        self.num_variables = self.event_shape.numel()
        natural = tuple(range(self.num_variables))
        self.order = natural if order is None else _permutation(order, self.num_variables)
        if num_levels is not None and num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}")
        self.num_levels = num_levels
        if num_levels is None:
            self.support = constraints.real
        else:
            self.support = (
                constraints.boolean if num_levels == 2 else constraints.integer_interval(0, num_levels - 1)
            )
        self.is_natural = self.order == natural
        scan = torch.tensor(self.order)
        self.register_buffer("scan", scan, persistent=False)
        self.register_buffer("rank", scan.argsort(), persistent=False)

    # What a subclass writes

    def params(self, x: Tensor, *labels: Tensor) -> Tensor:
        """Parameters of all conditionals of items ``(..., n)`` in scan order: shape ``(..., n, *rest)``."""
        raise NotImplementedError

    def initial_state(self, *labels: Tensor) -> Any:
        """The state before any variable is known."""
        return None

    def params_at(self, step: int, state: Any) -> Tensor:
        """Parameters of the conditional of the variable at a step: shape ``(..., *rest)``."""
        raise NotImplementedError

    def advance(self, step: int, state: Any, value: Tensor) -> Any:
        """The state once the variable at a step has its value, ``(...)``; leaves ``state`` as it is."""
        raise NotImplementedError

    def entry(self, params: Tensor) -> dist.Distribution:
        """The distribution of single variables from their parameters: logits, unless a subclass differs."""
        return dist.Bernoulli(logits=params) if self.num_levels == 2 else dist.Categorical(logits=params)

    # What the base makes of it

    def conditional(self, step: int, state: Any) -> dist.Distribution:
        """p(x_i | x_<i) of the variable at a step of the scan, from the state before it."""
        return self.entry(self.params_at(step, state))

    def conditionals(self, x: Tensor, *labels: Tensor) -> dist.Distribution:
        """p(x_i | x_<i) of every entry of items ``(..., *event_shape)``, in one pass; batched like x."""
        entries = self.in_scan_order(x)
        params, dim = self.params(entries, *labels), entries.dim() - 1
        if not self.is_natural:
            params = params.index_select(dim, self.rank)
        return self.entry(params if len(self.event_shape) == 1 else params.unflatten(dim, self.event_shape))

    def in_scan_order(self, x: Tensor) -> Tensor:
        """Entries of items ``(..., *event_shape)`` along the scan: shape ``(..., n)``."""
        entries = x if len(self.event_shape) == 1 else x.flatten(-len(self.event_shape))
        return entries if self.is_natural else entries.index_select(-1, self.scan)

    def assembled(self, values: Sequence[Tensor]) -> Tensor:
        """Items ``(..., *event_shape)`` from the values of their variables, in scan order."""
        entries = torch.stack(torch.broadcast_tensors(*values), dim=-1)
        if not self.is_natural:
            entries = entries.index_select(-1, self.rank)
        return entries.unflatten(-1, self.event_shape)

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """Draws ``num`` items variable by variable, sites ``x_i`` in scan order, or observes ``x`` as one.

        ``x_i`` is entry i of the flattened item, whatever its place in the scan; `pyro.condition` may hold
        any of them. Given the whole of ``x``, all conditionals come from one pass, and ``x`` is one site.
        """
        pyro.module(self.name, self)
        with pyro.plate("data", num if x is None else len(x)):
            return self.draw_in_turn(num) if x is None else self.observe(x)

    def observe(self, x: Tensor, *labels: Tensor) -> Tensor:
        """The site ``x``, for a program that is given the whole of it."""
        conditionals = self.conditionals(x, *labels)
        return pyro.sample("x", conditionals.to_event(len(self.event_shape)), obs=x)

    def draw_in_turn(self, num: int, *labels: Tensor) -> Tensor:
        """The sites ``x_i`` in scan order, for a program that draws ``num`` items, or is held at some."""
        state, values = self.initial_state(*labels), []
        for step, variable in enumerate(self.order):
            value = pyro.sample(f"x_{variable}", self.conditional(step, state))
            values.append(value if value.dim() else value.expand(num))  # one held for all items
            state = self.advance(step, state, values[-1])
        return self.assembled(values)

    def _sample(self, num: int, *labels: Tensor) -> Tensor:
        """What `model` draws, bit for bit, without its handlers."""
        with pyro.validation_enabled(False):
            state, values = self.initial_state(*labels), []
            for step in range(self.num_variables):
                values.append(self._draw(self.params_at(step, state), num))
                state = self.advance(step, state, values[-1])
            return self.assembled(values)

    def _draw(self, params: Tensor, num: int) -> Tensor:
        if self.num_levels == 2:  # what Bernoulli does, at a quarter of its cost
            probs = params.sigmoid()
            return torch.bernoulli(probs if probs.dim() else probs.expand(num))
        entry = self.entry(params)
        return (entry if entry.batch_shape == (num,) else entry.expand((num,)))()

    def log_prob(self, x: Tensor, *labels: Tensor) -> Tensor:
        """Log-probability (log-density where entries are real) of each item in nats, in one pass."""
        entries = self.in_scan_order(x)
        params = self.params(entries, *labels)
        if self.num_levels == 2:  # what Bernoulli does, at less cost
            return -binary_cross_entropy_with_logits(params, entries, reduction="none").sum(-1)
        with pyro.validation_enabled(False):
            return self.entry(params).log_prob(entries).sum(-1)


def _permutation(order: Sequence[int], num: int) -> tuple[int, ...]:
    """The order as a tuple, where it is a permutation of 0 … num - 1."""
    values = order.tolist() if hasattr(order, "tolist") else order  # a tensor, or NumPy's
    came = repr(values)
    try:
        if not any(isinstance(value, bool) for value in values):
            values = tuple(map(index, values))
            came = str(values)
    except TypeError:  # no sequence, or one of something else than integers
        values = ()
    if not isinstance(values, tuple) or sorted(values) != list(range(num)):
        came = came if len(came) <= 100 else f"{came[:100]}..."
        raise ValueError(f"order must be a permutation of 0 ... {num - 1}, got {came}")
    return values
