"""A pair of Pyro programs, model and guide, with the parameters that belong to them."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

Batch = Tensor | tuple[Tensor, ...]
"""What a program is called with: ``x``, or ``(x, y)``."""


@dataclass(frozen=True)
class Structure:
    """What one run of the programs shows of them.

    Attributes:
        latent: Names of the latent sites.
        unguided: Names of those that the guide lacks and that are not enumerated.
        summed_out: Names of those that the guide lacks and that are enumerated in the model.
        reparameterized: Whether every latent site of the guide can be drawn with a gradient.
        plate_nesting: How many dimensions the plates take, counted from the right.
        data_dim: The (negative) dimension of the one full plate over the batch, None where there is none.
        loose: Names of the sites, of model and guide, that lie outside that plate.
        population: Full size of the plate over the batch where the batch is a subsample of it, else None.
    """

    latent: tuple[str, ...]
    unguided: tuple[str, ...]
    summed_out: tuple[str, ...]
    reparameterized: bool
    plate_nesting: int
    data_dim: int | None
    loose: tuple[str, ...]
    population: int | None


class Program(nn.Module):
    """A model and its guide, however they were written, as one module that owns their parameters.

    The parameters are those of the modules that the programs belong to, and those that the programs make by
    ``pyro.param`` and ``pyro.module`` statements in plain functions (known after `prepare`). Runs of the
    programs inside `scope` read and write a parameter store of their own, so that Pyro's global one stays as
    it was.

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
        unique = {id(owner): owner for owner in map(owner_of, (model, guide)) if owner is not None}
        self.owners = nn.ModuleList(unique.values())
        self.free_parameters = nn.ParameterList()
        self._free_names: list[str] = []
        self._constraints: dict[str, Any] = {}
        self._known: set[str] = set()
        self.structure: Structure | None = None

    @classmethod
    def of(cls, model: Any, guide: Callable[..., Any] | None = None) -> Self:
        """The program of an objective, a program itself, or a new one: what is trained keeps its values."""
        model = getattr(model, "program", model)
        return model if isinstance(model, cls) else cls(model, guide)

    @property
    def model(self) -> Callable[..., Any]:
        """The generative program."""
        return self.model_fn[0]

    @property
    def guide(self) -> Callable[..., Any]:
        """The program over the latent sites."""
        return self.guide_fn[0]

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Tensor, ...],
        *,
        drawn: dict[str, Any] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Runs a program inside `scope` and returns its sample sites, as ``poutine.trace`` would for more.

        Args:
            function: `model` or `guide`, or one of them inside a plate.
            args: What it is called with.
            drawn: Sites of the guide, whose values the latent sites of the model take.
        """
        sites = _Sites(self._known, drawn or {})
        with sites:
            function(*args)
        return sites.sites

    @contextmanager
    def scope(self) -> Iterator[dict[str, Any]]:
        """Runs what is inside on the program's own parameter store, without Pyro's per-step validation.

        A module's parameters enter the store anew each time: a store that remembered them from one run to the
        next would overrule the module.
        """
        params = dict(zip(self._free_names, self.free_parameters, strict=True))
        state = {"params": params, "constraints": self._constraints.copy()}
        with pyro.get_param_store().scope(state), pyro.validation_enabled(False):
            yield state

    def parameter_values(self) -> dict[str, Tensor]:
        """The parameters of ``pyro.param`` statements in plain functions, constrained, by name."""
        with torch.no_grad(), self.scope():
            store = pyro.get_param_store()
            return {name: store[name].clone() for name in self._free_names}

    def prepare(self, batch: Batch) -> Structure:
        """Runs the programs once, with Pyro's validation, and learns their parameters and structure.

        Args:
            batch: Some items, as the programs take them.

        Raises:
            ValueError: If a program fails on them; the message is Pyro's.
        """
        args = arguments(batch)
        self._known.clear()
        with forked_rng(), self.scope() as state, pyro.validation_enabled(True):
            model_trace, guide_trace = self._traces(args)
            dims = _dims_of_size(len(args[0]), model_trace, guide_trace)
            if len(dims) > 1:  # another plate is of the batch's size; that over the batch grows with it
                longer = self._traces(tuple(torch.cat([values, values[:1]]) for values in args))
                dims &= _dims_of_size(len(args[0]) + 1, *longer)
        owned = {id(param) for param in self.parameters()}
        for name, value in state["params"].items():
            if name in self._free_names:
                continue
            if id(value) in owned:
                self._known.add(name)
                continue
            # One that is a Parameter belongs to a module that the function passed to pyro.module.
            shared = isinstance(value, nn.Parameter)
            self.free_parameters.append(value if shared else nn.Parameter(value.detach().clone()))
            self._free_names.append(name)
            self._constraints[name] = state["constraints"][name]
        self.structure = _structure(model_trace, guide_trace, len(args[0]), min(dims, default=None))
        return self.structure

    def _traces(self, args: tuple[Tensor, ...]) -> tuple[poutine.Trace, poutine.Trace]:
        guide_trace = poutine.trace(self.guide).get_trace(*args)
        return poutine.trace(poutine.replay(self.model, guide_trace)).get_trace(*args), guide_trace


class _Sites(Messenger):
    """Records sample sites, replays those drawn before, and answers a module's own parameters at once."""

    def __init__(self, known: set[str], drawn: dict[str, Any]) -> None:
        super().__init__()
        self.known, self.drawn = known, drawn
        self.sites: dict[str, dict[str, Any]] = {}

    def _process_message(self, msg: Any) -> None:
        name = msg["name"]
        if msg["type"] == "param":
            if name in self.known and len(msg["args"]) == 2:
                msg["value"], msg["done"] = msg["args"][1], True
        elif name in self.drawn and msg["type"] == "sample" and not msg["is_observed"]:
            site = self.drawn[name]
            msg["value"], msg["infer"], msg["done"] = site["value"], site["infer"], True

    def _postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not site_is_subsample(msg):
            if msg["name"] in self.sites:
                raise RuntimeError(f"the program has two sites called {msg['name']}")
            self.sites[msg["name"]] = msg.copy()


def log_prob(site: dict[str, Any]) -> Tensor:
    """Log-probability of a site's value, scaled and masked, over its plates."""
    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(value, site["scale"], site["mask"])


def arguments(batch: Batch) -> tuple[Tensor, ...]:
    """A batch as the positional arguments of a program."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def unpacked(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a program, with a split's items in its place: an object of ``x``, a tensor, and ``y``."""
    return tuple(
        arg.x
        if not isinstance(arg, tuple) and hasattr(arg, "y") and isinstance(getattr(arg, "x", None), Tensor)
        else arg
        for arg in args
    )


def chosen_sites(sites: Sequence[str], known: Collection[str]) -> list[str]:
    """The names that were asked for, each once.

    Raises:
        ValueError: If there is none, or one is not among those known.
    """
    if isinstance(sites, str) or not sites or any(name not in known for name in sites):
        came = sites if isinstance(sites, str) else ", ".join(map(str, sites)) or "none"
        raise ValueError(f"expected sites to be a list of some of {', '.join(known)}, got {came}")
    return list(dict.fromkeys(sites))


def check_counts(**counts: int) -> None:
    """Refuses counts, by their names, that are no integers of at least 1.

    Raises:
        ValueError: If one is not.
    """
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {count!r}")


def owner_of(function: Any) -> nn.Module | None:
    """The module that a program is, or is a method of, beneath Pyro's handlers and `functools.partial`."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = function.func
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def forked_rng(device: torch.device | None = None) -> AbstractContextManager[None]:
    """Leaves torch's generators as they were: the CPU's, and CUDA's where it is in use."""
    on_cuda = torch.cuda.is_initialized() or (device is not None and device.type == "cuda")
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else ())


@contextmanager
def restored_modes(module: nn.Module) -> Iterator[None]:
    """Leaves every submodule in training or evaluation mode, as it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def constants(module: nn.Module) -> Iterator[None]:
    """Holds parameters as constants; what needed a gradient before needs it afterwards."""
    needed = [param for param in module.parameters() if param.requires_grad]
    try:
        for param in needed:
            param.requires_grad_(False)
        yield
    finally:
        for param in needed:
            param.requires_grad_(True)


def own_store(program: Program) -> AbstractContextManager[Any]:
    """Where the parameters are: with the module or objective, else in a copy of Pyro's store.

    A module's parameters may be in Pyro's store too, under the name of another that was there before.
    """
    if program.structure is not None or len(program.owners):
        return program.scope()
    return copied_store()


@contextmanager
def copied_store() -> Iterator[None]:
    """A copy of Pyro's store, so that what runs inside leaves the store as it was."""
    store = pyro.get_param_store()
    with store.scope(store.get_state()), pyro.validation_enabled(False):
        yield


@contextmanager
def as_found(module: nn.Module, *values: Any) -> Iterator[None]:
    """Evaluation mode inside; generators, modes, parameters and Pyro's store are left as they were.

    Args:
        module: The program's, or one that holds its parameters.
        *values: What it is run with: where no parameters tell the device, the tensors among them do.
    """
    placed = (*module.parameters(), *values)
    device = next((each.device for each in placed if isinstance(each, Tensor)), None)
    store = own_store(module) if isinstance(module, Program) else copied_store()
    with forked_rng(device), restored_modes(module), constants(module), store:
        module.eval()
        yield


def base_of(distribution: Any) -> Any:
    """What is beneath `to_event`, masks and expansions."""
    while hasattr(distribution, "base_dist") and not hasattr(distribution, "transforms"):
        distribution = distribution.base_dist
    return distribution


def is_factor(distribution: Any) -> bool:
    """Whether it is that of a ``pyro.factor``, from which nothing is drawn."""
    return isinstance(base_of(distribution), Unit)


def sample_sites(trace: poutine.Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace, but for the indices that plates draw, by name."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def can_be_reparameterized(guide_sites: dict[str, dict[str, Any]]) -> bool:
    """Whether every latent site can be drawn with a gradient."""
    return all(
        site["is_observed"] or getattr(site["fn"], "has_rsample", False) for site in guide_sites.values()
    )


def is_enumerated(site: dict[str, Any]) -> bool:
    """Whether a latent site is marked to be summed out."""
    return not site["is_observed"] and site["infer"].get("enumerate") == "parallel"


def _empty_guide(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latent sites."""


def _frames(*traces: poutine.Trace) -> list[Any]:
    """The plates around the sites, that of a site with two twice."""
    sites = [site for trace in traces for site in sample_sites(trace).values()]
    return [frame for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]


def _dims_of_size(num: int, *traces: poutine.Trace) -> set[int]:
    """Dimensions of the full plates of that size."""
    return {frame.dim for frame in _frames(*traces) if frame.size == num and frame.full_size in (None, num)}


def _structure(
    model_trace: poutine.Trace, guide_trace: poutine.Trace, num: int, data_dim: int | None
) -> Structure:
    sites, guide_sites = sample_sites(model_trace), sample_sites(guide_trace)
    latent = [name for name, site in sites.items() if not site["is_observed"]]
    unguided = [name for name in latent if name not in guide_sites]
    summed_out = [name for name in unguided if is_enumerated(sites[name])]
    frames = _frames(model_trace, guide_trace)
    loose = {
        name: None
        for trace_sites in (sites, guide_sites)
        for name, site in trace_sites.items()
        if not any(frame.dim == data_dim and frame.size == num for frame in site["cond_indep_stack"])
    }
    subsampled = [frame.full_size for frame in frames if frame.size == num and (frame.full_size or 0) > num]
    return Structure(
        latent=tuple(latent),
        unguided=tuple(name for name in unguided if name not in summed_out),
        summed_out=tuple(summed_out),
        reparameterized=can_be_reparameterized(guide_sites),
        plate_nesting=max((-frame.dim for frame in frames), default=0),
        data_dim=data_dim,
        loose=tuple(loose),
        population=min(subsampled, default=None),
    )
