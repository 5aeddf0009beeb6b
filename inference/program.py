"""A pair of Pyro programs, model and guide, with the parameters that belong to them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

Batch = Tensor | tuple[Tensor, ...]
"""What a program is called with: ``x``, or ``(x, y)``."""


@dataclass(frozen=True)
class Structure:
    """What one run of the programs shows of them.

    Attributes:
        latent: Names of the latent sites.
        reparameterized: Whether every latent site of the guide can be drawn with a gradient.
        enumerated: Whether the guide marks a latent site for parallel enumeration.
        plate_nesting: How many dimensions the plates take, counted from the right.
        data_dim: The (negative) dimension of the one full plate over the batch, None where there is none.
        loose: Names of the sites that lie outside that plate.
    """

    latent: tuple[str, ...]
    reparameterized: bool
    enumerated: bool
    plate_nesting: int
    data_dim: int | None
    loose: tuple[str, ...]


class Program(nn.Module):
    """A model and its guide, however they were written, as one module that owns their parameters.

    The parameters are those of the modules that the programs belong to, and those that the programs make by
    bare ``pyro.param`` statements (known after `prepare`). Runs of the programs inside `scope` read and write
    a parameter store of their own, so that Pyro's global one stays as it was.

    Args:
        model: An object with the methods ``model`` and ``guide`` (every model of the zoo), or a Pyro program:
            function, method or module.
        guide: The guide, where ``model`` is a program; None where nothing is latent.

    Raises:
        ValueError: If ``model`` is neither of the two.
    """

    def __init__(self, model: Any, guide: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.source = [model]  # in a list, so that a module is not registered twice
        if guide is None and callable(getattr(model, "model", None)):
            model, guide = model.model, getattr(model, "guide", None)
        if not callable(model) or not (guide is None or callable(guide)):
            raise ValueError(
                "expected an object with .model and .guide, or a Pyro program and its guide, got "
                f"{type(model).__name__} and {type(guide).__name__}"
            )
        self.model_fn = [model]
        self.guide_fn = [guide or _empty_guide]
        owners = [fn if isinstance(fn, nn.Module) else getattr(fn, "__self__", None) for fn in (model, guide)]
        unique = {id(owner): owner for owner in owners if isinstance(owner, nn.Module)}
        self.owners = nn.ModuleList(unique.values())
        self.free_parameters = nn.ParameterList()
        self._free_names: list[str] = []
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self.structure: Structure | None = None

    @property
    def model(self) -> Callable[..., Any]:
        """The generative program."""
        return self.model_fn[0]

    @property
    def guide(self) -> Callable[..., Any]:
        """The program over the latent sites."""
        return self.guide_fn[0]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Runs what is inside on the program's own parameter store, without Pyro's per-step validation."""
        self._store["params"].update(zip(self._free_names, self.free_parameters, strict=True))
        with pyro.get_param_store().scope(self._store), pyro.validation_enabled(False):
            yield

    def parameter_values(self) -> dict[str, Tensor]:
        """The parameters of bare ``pyro.param`` statements, constrained, by name."""
        with torch.no_grad(), self.scope():
            store = pyro.get_param_store()
            return {name: store[name].clone() for name in self._free_names}

    def prepare(self, batch: Batch) -> Structure:
        """Runs the programs once, with Pyro's validation, and learns their parameters and structure.

        Args:
            batch: A few items, as the programs take them.

        Raises:
            ValueError: If a program fails on them; the message is Pyro's.
        """
        if self.structure is not None:
            return self.structure
        args = arguments(batch)
        with self.scope(), pyro.validation_enabled(True), torch.random.fork_rng():
            guide_trace = poutine.trace(self.guide).get_trace(*args)
            model_trace = poutine.trace(poutine.replay(self.model, guide_trace)).get_trace(*args)
        known = {id(param) for param in self.parameters()}
        for name, value in self._store["params"].items():
            if id(value) not in known:
                self._free_names.append(name)
                self.free_parameters.append(nn.Parameter(value.detach().clone()))
        self.structure = _structure(model_trace, guide_trace, len(args[0]))
        return self.structure


def arguments(batch: Batch) -> tuple[Tensor, ...]:
    """A batch as the positional arguments of a program."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def _empty_guide(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latent sites."""


def _structure(model_trace: poutine.Trace, guide_trace: poutine.Trace, num: int) -> Structure:
    sites = {name: site for name, site in model_trace.nodes.items() if site["type"] == "sample"}
    sites = {name: site for name, site in sites.items() if not poutine.util.site_is_subsample(site)}
    guide_sites = [
        site
        for site in guide_trace.nodes.values()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]
    frames = [
        {frame for frame in site["cond_indep_stack"] if frame.vectorized} for site in (*sites.values(), *guide_sites)
    ]
    nesting = max((-frame.dim for stack in frames for frame in stack), default=0)
    over_batch = [
        frame for stack in frames for frame in stack if frame.size == num and frame.full_size in (None, num)
    ]
    dims = [frame.dim for frame in over_batch]
    data_dim = max(set(dims), key=dims.count) if dims else None
    loose = tuple(
        name
        for name, site in sites.items()
        if not any(frame.dim == data_dim and frame.size == num for frame in site["cond_indep_stack"])
    )
    return Structure(
        latent=tuple(name for name, site in sites.items() if not site["is_observed"]),
        reparameterized=all(getattr(site["fn"], "has_rsample", False) for site in guide_sites),
        enumerated=any(site["infer"].get("enumerate") == "parallel" for site in guide_sites),
        plate_nesting=nesting,
        data_dim=data_dim,
        loose=loose,
    )
