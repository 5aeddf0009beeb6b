"""The contract that every model of the zoo keeps."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule
from torch import Tensor, nn

MISSING = -1
"""The label of an item whose label is not known."""

_instances: Counter[str] = Counter()


def _unique_name(cls: type) -> str:
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    _instances[stem] += 1
    return f"{stem}_{_instances[stem]}"


class GenerativeModel(PyroModule):
    """A distribution over items of one shape: a Pyro program, and a guide over its latent sites.

    A subclass writes `model`, `guide` where something is latent, `_sample`, and `log_prob` where the
    density is exact. Both programs open with ``pyro.module(self.name, self)`` and keep every site inside
    one ``pyro.plate("data", ...)``.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.

    Attributes:
        event_shape: Shape of one item.
        support: What the entries of an item may be, one of `pyro.distributions.constraints`.
        density: ``"exact"`` (`log_prob` gives it), ``"bound"``, ``"unnormalized"`` or ``"none"``.
        name: Under which `pyro.module` registers the parameters; unique to the instance, so that a copy gets
            a new one and two models never share parameters.
        recipes: For each data set, how the model is built and trained there: plain data.

    Raises:
        ValueError: If ``event_shape`` is empty or has a side below 1.
    """

    density: ClassVar[Literal["exact", "bound", "unnormalized", "none"]]
    support: constraints.Constraint
    recipes: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = checked_shape(event_shape)
        self.name = _unique_name(type(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.name = _unique_name(type(self))

    def model(self, x: Tensor | None = None, *, num: int = 1) -> Tensor:
        """The generative program: observes ``x``, ``(batch, *event_shape)``, or draws ``num`` items."""
        raise NotImplementedError

    def guide(self, x: Tensor) -> None:
        """The program over the latent sites, given ``x``; empty where nothing is latent."""

    def _sample(self, num: int, **conditions: Any) -> Tensor:
        """Draws ``num`` items by the fastest exact route."""
        raise NotImplementedError

    def sample(self, num: int, *, seed: int | None = None, **conditions: Any) -> Tensor:
        """Draws items, without gradient and in evaluation mode (a dropout of the training drops nothing).

        Args:
            num: How many, at least 1.
            seed: Makes the draw reproducible, and leaves torch's generators alone; None draws from them.
            **conditions: What the model can be conditioned on, for instance ``y`` where it has labels.

        Returns:
            Tensor of shape ``(num, *event_shape)``.

        Raises:
            ValueError: If ``num`` is below 1.
        """
        if num < 1:
            raise ValueError(f"num must be at least 1, got {num}")
        with torch.no_grad(), evaluation_mode(self), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return self._sample(num, **conditions)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each item in nats, shape ``(batch,)``, where ``density`` is ``"exact"``."""
        raise NotImplementedError(
            f"{type(self).__name__} has no exact log_prob (its density is {self.density!r}); "
            "inference.log_likelihood gives the figure that it has"
        )

    def check(self, x: Tensor) -> None:
        """Checks items at the door: shape, dtype, NaN, support.

        Args:
            x: Tensor that should be of shape ``(batch, *event_shape)``.

        Raises:
            ValueError: If it is not, or an entry is infinite; the message says what was expected, what came.
        """
        who = type(self).__name__
        if not isinstance(x, Tensor):
            raise ValueError(f"{who} expects a tensor of items, got {type(x).__name__}")
        if x.dim() != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            sides = ", ".join(str(side) for side in self.event_shape)
            raise ValueError(f"{who} expects items of shape (batch, {sides}), got {tuple(x.shape)}")
        if len(x) == 0:
            raise ValueError(f"{who} expects at least one item, got none")
        discrete_levels = isinstance(self.support, type(constraints.integer_interval(0, 1)))
        dtype = torch.int64 if discrete_levels else next(self.parameters()).dtype
        if x.dtype != dtype:
            raise ValueError(f"{who} expects entries of {dtype}, got {x.dtype}")
        for chunk in x.split(10_000):
            # Only that of the reals lets numbers pass that are none.
            if self.support is not constraints.real and self.support.check(chunk).all():
                continue
            if chunk.isnan().any():
                raise ValueError(
                    f"{who} expects numbers, got NaN in {int(chunk.isnan().sum())} of its entries"
                )
            if chunk.isinf().any():
                raise ValueError(
                    f"{who} expects finite numbers, got infinity in {int(chunk.isinf().sum())} of its entries"
                )
            outside = chunk[~self.support.check(chunk)]
            if len(outside):
                raise ValueError(
                    f"{who} expects entries in {_describe(self.support)}, got {outside[0].item():g} "
                    f"and {len(outside) - 1} more outside it"
                )


def checked_shape(event_shape: tuple[int, ...]) -> torch.Size:
    """The shape of an item, for a model that builds something of it before the base sees it.

    Raises:
        ValueError: If it is empty or has a side below 1.
    """
    shape = torch.Size(event_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"event_shape must have sides of at least 1, got {tuple(event_shape)}")
    return shape


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluates a module, and leaves each of its parts in the mode that it was in."""
    if not module.training:
        yield
        return
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def check_labels(y: Tensor, num: int, num_classes: int, *, lowest: int = 0) -> None:
    """Checks labels at the door.

    Raises:
        ValueError: If they are no int64 tensor of shape ``(num,)``, or one lies outside ``lowest`` to
            ``num_classes - 1``.
    """
    if not isinstance(y, Tensor):
        raise ValueError(f"labels must be a tensor of shape ({num},), got {type(y).__name__}")
    if y.shape != (num,) or y.dtype != torch.int64:
        raise ValueError(f"labels must be torch.int64 of shape ({num},), got {y.dtype} of {tuple(y.shape)}")
    if y.min() < lowest or y.max() >= num_classes:
        raise ValueError(
            f"labels must lie in {lowest}..{num_classes - 1}, got {int(y.min())}..{int(y.max())}"
        )


def refuse_constant_entries(who: str, x: Tensor) -> None:
    """Checks that every entry varies between items: the density may grow without bound where one does not.

    Raises:
        ValueError: If one is the same in all of them.
    """
    constant = (x == x[:1]).flatten(1).all(0).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"{who} expects entries that vary between the training items, got entry {constant[0]} (and "
            f"{len(constant) - 1} more) that is {x.flatten(1)[0, constant[0]].item():g} in all {len(x)}"
        )


def _describe(support: constraints.Constraint) -> str:
    """A support in words, for messages."""
    if support is constraints.boolean:
        return "{0, 1}"
    if support is constraints.real:
        return "the real line"
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        return f"{{{support.lower_bound}, ..., {support.upper_bound}}}"
    return re.sub(r"^_?([A-Z])", lambda match: match[1].lower(), str(support))
