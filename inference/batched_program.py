"""A Pyro program at many values of its latent sites at once: one run of it scores a thousand chains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Distribution, constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import ComposeTransform, Transform, biject_to

from inference.program import is_enumerated, log_prob, sample_sites

RADIUS = 2.0
"""Chains start within this distance of zero in every unconstrained direction, as those of Pyro's HMC."""


TRIED = 16
"""States that a program is scored at, together and one by one, to see whether it broadcasts."""


@dataclass(frozen=True)
class Site:
    """A sample site, as one run of the program showed it.

    Attributes:
        shape: Of its value.
        event_dim: How many of these dimensions, on the right, belong to one event.
        plates: Names of the plates that the others belong to, by their (negative) dimension.
        distribution: What it is drawn from in that run.
        value: Its value in that run.
        discrete: Whether its support is.
        draws: Whether the program draws it; else it is observed.
        enumerated: Whether it is marked to be summed out.
    """

    shape: torch.Size
    event_dim: int
    plates: dict[int, str]
    distribution: Distribution
    value: Tensor
    discrete: bool
    draws: bool
    enumerated: bool

    @property
    def batch_dims(self) -> int:
        """How many dimensions of its value are outside the event."""
        return len(self.shape) - self.event_dim

    def dims(self, name: str) -> list[str]:
        """Names for the dimensions of its value: those of plates, else ``name_dim_0``, …, as ArviZ's."""
        places = range(-len(self.shape), 0)
        by_place = {dim - self.event_dim: plate for dim, plate in self.plates.items()}
        return [by_place.get(dim, f"{name}_dim_{axis}") for axis, dim in enumerate(places)]


class BatchedProgram:
    """Runs a program with a dimension of chains to the left of all its own, as inside one more plate.

    With S values of each latent site, the log-probability of a site has S as its first dimension, and is
    summed over all others. A single value needs no such dimension, and any program will do.

    Args:
        model: A Pyro program.
        args: What it is called with.
        kwargs: The same, by name.

    Raises:
        ValueError: If a plate subsamples, or the support of a continuous site depends on another site.
    """

    def __init__(
        self, model: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.model, self.args, self.kwargs = model, args, dict(kwargs or {})
        with torch.no_grad(), pyro.validation_enabled(True):
            traces = [poutine.trace(_Started(self.model)).get_trace(*args, **self.kwargs) for _ in range(2)]
        _check_plates(traces[0])
        _check_data(traces[0])
        self.sites = {name: _site(site) for name, site in sample_sites(traces[0]).items()}
        self.latent = [name for name, site in self.sites.items() if site.draws]
        self.observed = [
            name
            for name, site in self.sites.items()
            if not site.draws and not traces[0].nodes[name]["infer"].get("_deterministic")
        ]
        self.transforms: dict[str, Transform] = {}
        for name in self.latent:
            if not self.sites[name].discrete:
                self.transforms[name] = _to_reals(name, *(trace.nodes[name]["fn"] for trace in traces))
        sites = sample_sites(traces[0]).values()
        depths = [-frame.dim for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
        self.nesting = max([*depths, *(site.batch_dims for site in self.sites.values())], default=0)
        self._bounds = {name: _bounds(self.sites[name].distribution.support) for name in self.transforms}
        self._known: dict[str, bool] = {}
        self._refusal: str | None = None
        self._checked = False

    # Scores

    def scores(self, values: Mapping[str, Tensor], num: int) -> dict[str, Tensor]:
        """Log-probabilities of all sites in nats, over the dimensions of plates, ``(num or 1, ...)`` each.

        Args:
            values: Of every latent site, ``(num, *shape)``, in its own space.
            num: How many.
        """
        return self._scores(values, num, {})

    def _scores(
        self, values: Mapping[str, Tensor], num: int, found: dict[str, dict[str, Any]]
    ) -> dict[str, Tensor]:
        """The same; the sites that the program has come to are in ``found``, even if it fails."""
        given = {name: self._placed(name, values[name], num) for name in self.latent}
        # A value at which some argument is out of its range has no density; that is no error.
        with _Given(given, self._known, found), pyro.validation_enabled(False):
            self.model(*self.args, **self.kwargs)
            scores = {name: log_prob(site) for name, site in found.items()}
            for name, bounds in self._bounds.items():
                if bounds:
                    _check_bounds(name, bounds, _bounds(found[name]["fn"].support))
        return {
            name: score.unsqueeze(0) if num == 1 or score.dim() <= self.nesting else score
            for name, score in scores.items()
        }

    def without_density(self, values: Mapping[str, Tensor], num: int) -> str | None:
        """The first site whose log-probability is not finite at some of the values, in words, or None."""
        for name, score in self.scores(values, num).items():
            sums = by_first(score)
            if not sums.isfinite().all():
                return f"log p of {name} is {sums[~sums.isfinite()][0].item()}"
        return None

    def log_prob(self, values: Mapping[str, Tensor], num: int) -> Tensor:
        """The log joint density, in nats, float64, ``(num,)``: each site's, summed over all but the chains.

        Raises:
            ValueError: If several are asked for and the program does not broadcast.
        """
        self.require_broadcasting(num)
        first, *others = (by_first(score) for score in self.scores(values, num).values())
        for each in others:
            first = first + each
        return first.expand(num)

    def require_broadcasting(self, num: int) -> None:
        """Raises a `ValueError` if ``num`` values are more than the program can take at once."""
        if num > 1 and self.refusal is not None:
            raise ValueError(
                f"expected a program that broadcasts, to run {num:,} chains as one more dimension on the "
                f"left: {self.refusal}; write it with plates and indices from the right, or run num_chains=1"
            )

    @property
    def refusal(self) -> str | None:
        """Why the program can't take several values at once, None where it can; tried on some, once."""
        if not self._checked:
            self._checked = True
            self._refusal = self._tried()
        return self._refusal

    def _tried(self) -> str | None:
        """Scores some states together and one by one."""
        with torch.no_grad(), torch.random.fork_rng(), pyro.validation_enabled(False):
            singles = [self.start() for _ in range(TRIED)]
            apart = [
                {name: score.sum(dtype=torch.float64) for name, score in self.scores(each, 1).items()}
                for each in singles
            ]
            together = {name: torch.cat([each[name] for each in singles]) for name in self.latent}
            reached: dict[str, Any] = {}
            try:
                scores = self._scores(together, TRIED, reached)
            except Exception as error:  # whatever one raises that was not written for a dimension more
                words = (str(error).splitlines() or [""])[0]
                after = f" after site {list(reached)[-1]}" if reached else ""
                return f"it raised {type(error).__name__}{after} ({words:.100})"
        for name, score in scores.items():
            if score.dim() > self.nesting + 1 or score.shape[0] not in (1, TRIED):
                return f"the log-probability of site {name} has shape {tuple(score.shape)} for {TRIED} chains"
            sums = by_first(score).expand(TRIED)
            if not torch.allclose(
                sums, torch.stack([each[name] for each in apart]), rtol=1e-4, atol=1e-4, equal_nan=True
            ):
                return f"site {name} has other log-probabilities for many chains than for each alone"
        return None

    # Draws

    def start(self) -> dict[str, Tensor]:
        """Values of the latent sites for one chain to start from, ``(1, *shape)``.

        Continuous ones are within `RADIUS` of zero in unconstrained space, discrete ones as the program draws
        them.
        """
        trace = poutine.trace(_Started(self.model)).get_trace(*self.args, **self.kwargs)
        return {name: trace.nodes[name]["value"].detach().unsqueeze(0) for name in self.latent}

    def draw(
        self, num: int, given: Mapping[str, Tensor] | None = None, *, observed: bool = False
    ) -> dict[str, Tensor]:
        """Draws of the program's latent sites, ``(num, *shape)``; those that are given stay.

        A program that does not broadcast is run draw by draw.

        Args:
            num: How many.
            given: Values of some latent sites, ``(num, *shape)``.
            observed: Whether to draw what the program observes, too.
        """
        given = {name: value for name, value in (given or {}).items() if name in self.latent}
        shapes = {name: self.sites[name].shape for name in self.latent}
        if observed:
            shapes |= {name: self.sites[name].distribution.shape() for name in self.observed}
        if num > 1 and self.refusal is not None:
            rows = [
                self.draw(1, {name: value[row : row + 1] for name, value in given.items()}, observed=observed)
                for row in range(num)
            ]
            return {name: torch.cat([row[name] for row in rows]) for name in shapes}
        placed = {name: self._placed(name, value, num) for name, value in given.items()}
        model = poutine.uncondition(self.model) if observed else self.model
        if num > 1:
            model = pyro.plate("_chains", num, dim=-1 - self.nesting)(model)
        with _Given(placed, self._known) as sites:
            model(*self.args, **self.kwargs)
        return {
            name: sites.found[name]["value"].detach().reshape(num, *shape) for name, shape in shapes.items()
        }

    def _placed(self, name: str, value: Tensor, num: int) -> Tensor:
        """Values of a site, with the dimension of chains where it belongs."""
        if num == 1:
            return value[0]
        site = self.sites[name]
        return value.reshape(num, *(1,) * (self.nesting - site.batch_dims), *value.shape[1:])


class _Given(Messenger):
    """Gives latent sites their values, collects all sites, and answers a module's own parameters at once."""

    def __init__(
        self, values: dict[str, Tensor], known: dict[str, bool], found: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.values, self.known = values, known
        self.found: dict[str, dict[str, Any]] = {} if found is None else found

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "param":
            if self.known.get(msg["name"]) and len(msg["args"]) == 2:
                msg["value"], msg["done"] = msg["args"][1], True
        elif msg["type"] == "sample" and msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True

    def _postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "param" and msg["name"] not in self.known:
            # pyro.module hands over the parameter itself, which the store gives back where no other has it.
            self.known[msg["name"]] = len(msg["args"]) == 2 and msg["value"] is msg["args"][1]
        if msg["type"] == "sample" and not site_is_subsample(msg):
            self.found[msg["name"]] = msg.copy()


class _Started(Messenger):
    """Draws continuous sites near zero in unconstrained space, whatever the program draws them from."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self:
            return self.model(*args, **kwargs)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is not None or site_is_subsample(msg) or msg["fn"].support.is_discrete:
            return
        try:
            like = msg["fn"].sample()
        except NotImplementedError:  # of an improper density
            like = torch.empty(msg["fn"].shape())
        transform = biject_to(msg["fn"].support)
        shape = transform.inverse_shape(like.shape)
        msg["value"] = transform(
            torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-RADIUS, RADIUS)
        )


def by_first(values: Tensor) -> Tensor:
    """The sum over all dimensions but the first, float64."""
    if values.dim() == 1:
        return values.double()
    return values.reshape(len(values), -1).sum(1, dtype=torch.float64)


def is_identity(transform: Transform) -> bool:
    """Whether it leaves its argument as it is."""
    return isinstance(transform, ComposeTransform) and not transform.parts


def _site(site: dict[str, Any]) -> Site:
    return Site(
        shape=site["value"].shape,
        event_dim=site["fn"].event_dim,
        plates={frame.dim: frame.name for frame in site["cond_indep_stack"] if frame.vectorized},
        distribution=site["fn"],
        value=site["value"].detach(),
        discrete=bool(site["fn"].support.is_discrete),
        draws=not site["is_observed"],
        enumerated=is_enumerated(site),
    )


def _check_plates(trace: poutine.Trace) -> None:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and site_is_subsample(site):
            full, size = site["fn"].size, site["fn"].subsample_size
            if size is not None and size < full:
                raise ValueError(f"expected all items at once, got {size} of {full} in the plate {name}")


def _check_data(trace: poutine.Trace) -> None:
    """Refuses data outside the support of their distribution, of which it may give a number all the same."""
    for name, site in sample_sites(trace).items():
        if site["is_observed"] and site["mask"] is None:
            support = site["fn"].support
            inside = support.check(site["value"])
            if not inside.all():
                wrong = site["value"][(~inside).nonzero(as_tuple=True)].flatten()[0]
                expected = " ".join(str(support).split())
                raise ValueError(f"expected the data of {name} in {expected:.60}, got {wrong.item():g}")


def _to_reals(name: str, first: Distribution, second: Distribution) -> Transform:
    """The map from a site's support to unconstrained numbers, of a support that is always the same."""
    _check_bounds(name, _bounds(first.support), _bounds(second.support))
    return biject_to(first.support).inv


def _bounds(support: constraints.Constraint) -> list[Tensor]:
    """What a support depends on, as tensors."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return [value for value in vars(support).values() if isinstance(value, Tensor)]


def _check_bounds(name: str, known: list[Tensor], found: list[Tensor]) -> None:
    if any((one != other).any() for one, other in zip(known, found, strict=True)):
        raise ValueError(
            f"expected a support of {name} that depends on no other site, got bounds that differ from one "
            "run to the next: draw a number in (0, 1), and scale it"
        )
