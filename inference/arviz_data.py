"""Draws of chains as ArviZ takes them, with what the program says of them, and as a NetCDF file."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.batched_program import BatchedProgram, Site
from inference.chains import Draws, chain_seeds
from inference.checkpoint import replaced_atomically
from inference.program import Program, as_found, is_factor, unpacked

IN_ARVIZ = {"acceptance": "acceptance_rate", "divergent": "diverging", "hamiltonian": "energy"}
"""What ArviZ's schema calls a statistic; others keep their names."""

_NUMBERS_AT_ONCE = 1 << 22
"""In the values of all sites, at the draws that the program is run on together."""


def to_arviz(
    draws: Draws,
    program: Any = None,
    *args: Any,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    log_likelihood: bool = True,
    prior: int = 0,
    posterior_predictive: bool = False,
    seed: int = 0,
) -> Any:
    """The draws as ArviZ takes them: groups ``posterior`` and ``sample_stats`` of ``(chain, draw, ...)``.

    With the program, and what it was run with, there are more groups: ``observed_data``; ``log_likelihood``,

    log p(x_i | θ_s), in nats, ``(chain, draw, *plates)`` for each observed site,

    as ``arviz.loo`` takes it; ``prior`` and ``prior_predictive``; ``posterior_predictive``. The program is
    run on many draws at once, as an extra dimension on the left, or draw by draw where it does not broadcast.
    It still has its data as arguments when it draws: what it computes from them, other than ``obs``, stays.

    The statistics go by the names of ArviZ's schema: ``acceptance_rate``, ``step_size``, ``diverging``;
    ``lp``, the log density where the chains move, in nats, up to a constant; ``energy``, the Hamiltonian
    where the kernel tells it, and else -``lp``, of which ``arviz.bfmi`` would make nothing.

    Dimensions are named after plates where they belong to some, and else ``v_dim_0``, …; a plate's name that
    stands for another size already, for a site or for another dimension of the same, gives way to that too.
    A ``/`` in a name, which no NetCDF file takes, becomes a dot. Half precision becomes single.

    Args:
        draws: What `inference.run_chains` or another sampler of inference's gave.
        program: What they are the posterior of: a Pyro program, an object with ``.model``, or an objective.
        *args: The data, a split of `zoo.load` or whatever the program takes.
        dims: Names for the dimensions of a value, for instance ``{"v": ["row", "column"]}``.
        coords: Labels along dimensions, for instance ``{"row": ["a", "b"]}``; left out, 0, 1, ….
        log_likelihood: Whether to have that group, where a program is given.
        prior: Draws from the prior, and of data from those, ``(1, prior, ...)``; 0 for none.
        posterior_predictive: Whether to draw new data for each draw. A latent site that the sampler summed
            out, and so is not among the draws, is drawn anew.
        seed: Of what is drawn here; torch's generators and Pyro's parameter store are left as they were.
            Modules run in evaluation mode.

    Returns:
        An ``arviz.InferenceData``; from ArviZ 1.0 on, an ``xarray.DataTree``.

    Raises:
        ValueError: If a site is called ``chain`` or ``draw``; if names are given for what there is not, not
            one for each dimension, or twice for other sizes; if something is asked for that takes a program,
            and there is none; or the draws lack a latent site of it, or are of another shape.

    References:
        | InferenceData schema specification (ArviZ), https://python.arviz.org

    Example:
        >>> import inference, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0., 1.))
        ...     with pyro.plate("person", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 1.), obs=x)
        >>> x = torch.tensor([0.5, 1.5, 1.])
        >>> draws = inference.run_chains(inference.MALA(model), 100, x, num_chains=4, progress=False)
        >>> data = to_arviz(draws, model, x, coords={"person": ["Ann", "Bo", "Cy"]})
        >>> data.log_likelihood["x"].dims, data.log_likelihood["x"].shape
        (('chain', 'draw', 'person'), (4, 100, 3))
    """
    if not isinstance(prior, int) or isinstance(prior, bool) or prior < 0:
        raise ValueError(f"expected prior to be a number of draws, 0 for none, got {prior!r}")
    taken = [name for name in draws.samples if name in ("chain", "draw")]
    if taken:
        raise ValueError(f"expected no site by the name of a dimension of ArviZ's, got {taken[0]}: rename it")
    groups = {"posterior": dict(draws.samples), "sample_stats": _statistics(draws)}
    shapes = {name: value.shape[2:] for name, value in draws.samples.items()}
    known = dict(draws.dims)
    if program is not None:
        more, sites = _of_program(draws, program, args, log_likelihood, prior, posterior_predictive, seed)
        groups |= more
        for name, site in sites.items():
            shapes.setdefault(name, site.shape)
            known.setdefault(name, site.dims(name))
    elif args or prior or posterior_predictive:
        what = "arguments" if args else "prior" if prior else "posterior_predictive"
        raise ValueError(f"expected a program, for {what} to be of use, got none")
    names = _names(shapes, known, dims or {})
    coordinates = _coordinates(shapes, names, coords or {})
    attributes = {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "pyro-zoo",
        "creation_library_language": "Python",
        "inference_library": "pyro",
        "inference_library_version": version("pyro-ppl"),
    }
    datasets = {
        group: _dataset(group, values, names, coordinates, attributes)
        for group, values in groups.items()
        if values
    }
    datasets["posterior"].attrs.update(
        warmup=draws.warmup,
        thin=draws.thin,
        seed=_as_attribute(draws.seed),
        interrupted=int(draws.interrupted),
    )
    arviz = import_arviz()
    if is_old(arviz):
        return arviz.InferenceData(**datasets)
    import xarray

    return xarray.DataTree.from_dict(datasets)


def save_netcdf(data: Any, path: str | os.PathLike[str]) -> None:
    """Writes ArviZ data as a NetCDF file, whole or not at all, that ``arviz.from_netcdf`` reads.

    Args:
        data: What `to_arviz` gave, for instance.
        path: Where to; its folder must exist.

    Raises:
        OSError: If the disk is full or the folder cannot be written; a file that was there before still is.

    Example:
        >>> import arviz, inference, zoo
        >>> kernel = inference.BlockGibbs(zoo.RBM((4, 4), hidden=3))
        >>> draws = inference.run_chains(kernel, 50, num_chains=10, progress=False)
        >>> folder = getfixture("tmp_path")
        >>> save_netcdf(to_arviz(draws), folder / "draws.nc")
        >>> arviz.from_netcdf(folder / "draws.nc").posterior["v"].shape
        (10, 50, 4, 4)
    """
    with replaced_atomically(path) as part:
        data.to_netcdf(str(part), engine="h5netcdf")


def import_arviz() -> Any:
    """ArviZ, without what it announces of its next version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def is_old(arviz: Any) -> bool:
    """Whether it is older than 1.0, where an ``xarray.DataTree`` took the place of its own class."""
    return int(arviz.__version__.split(".")[0]) < 1


# What the kernel and the program tell


def _statistics(draws: Draws) -> dict[str, Tensor]:
    """The statistics by ArviZ's names."""
    found = {}
    for name, value in draws.stats.items():
        base, number = re.fullmatch(r"(.*?)(_\d+)?", name, re.DOTALL).groups(default="")
        found[IN_ARVIZ.get(base, base) + number] = value
    if "energy" in draws.stats:
        found["lp"] = -draws.stats["energy"]
        if "hamiltonian" not in draws.stats:
            found["energy"] = draws.stats["energy"]
    return found


def _of_program(
    draws: Draws,
    program: Any,
    args: tuple[Any, ...],
    log_likelihood: bool,
    prior: int,
    posterior_predictive: bool,
    seed: int,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Site]]:
    """The groups that take a program, and the sites that are in them."""
    args = unpacked(args)
    module = Program.of(program)
    groups: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad(), as_found(module, *args, *draws.samples.values()):
        torch.manual_seed(seed)
        of_prior, of_posterior = chain_seeds(seed, 2)
        batched = BatchedProgram(module.model, args)
        observed = {
            name: _whole(batched.sites[name])
            for name in batched.observed
            if not is_factor(batched.sites[name].distribution)
        }
        sites = {name: site for name, site in batched.sites.items() if name in batched.latent} | observed
        values = _given(draws, batched)
        lacking = [name for name in batched.latent if name not in values]
        groups["observed_data"] = {name: site.value for name, site in observed.items()}
        if observed and log_likelihood and draws.num_draws:
            if lacking:
                raise ValueError(
                    f"expected draws of all latent sites, for the log-likelihood of each draw, got none of "
                    f"{lacking[0]}: keep it among the sites that are drawn, or set log_likelihood=False"
                )
            groups["log_likelihood"] = _by_chain(_log_likelihood(batched, values, observed), draws)
        if prior:
            torch.manual_seed(of_prior)
            drawn = _drawn(batched, {}, prior, observed)
            drawn = {name: value.unsqueeze(0) for name, value in drawn.items()}
            groups["prior"] = {name: drawn[name] for name in batched.latent}
            groups["prior_predictive"] = {name: drawn[name] for name in observed}
        if posterior_predictive and draws.num_draws:
            if not observed:
                raise ValueError("expected a program that observes something, to predict, got none")
            lost = [name for name in lacking if not batched.sites[name].enumerated]
            if lost:
                raise ValueError(
                    f"expected draws of all latent sites, to predict by, got none of {lost[0]}: keep it among"
                    " the sites that are drawn"
                )
            torch.manual_seed(of_posterior)
            drawn = _drawn(batched, values, draws.num_chains * draws.num_draws, observed)
            predicted = {name: drawn[name] for name in observed}
            groups["posterior_predictive"] = _by_chain(predicted, draws)
    return groups, sites


def _given(draws: Draws, program: BatchedProgram) -> dict[str, Tensor]:
    """The draws of the program's latent sites, all chains in a row."""
    found = {name: draws.samples[name] for name in program.latent if name in draws.samples}
    if not found:
        raise ValueError(
            f"expected draws of the program's latent sites, {', '.join(program.latent) or 'which has none'}, "
            f"got those of {', '.join(draws.samples)}: of another program?"
        )
    for name, value in found.items():
        expected, came = tuple(program.sites[name].shape), tuple(value.shape[2:])
        if came != expected:
            raise ValueError(f"expected draws of {name} of shape {expected}, got {came}: of another program?")
    return {name: value.flatten(0, 1) for name, value in found.items()}


def _whole(site: Site) -> Site:
    """The site, with a value as large as what it is drawn from: one number may be observed of all items."""
    shape = torch.broadcast_shapes(site.shape, site.distribution.shape())
    return replace(site, shape=shape, value=site.value.expand(shape))


def _parts(program: BatchedProgram, num: int) -> Iterator[slice]:
    """Draws that the program is run on together."""
    numbers = sum(max(1, site.value.numel()) for site in program.sites.values())
    step = max(1, _NUMBERS_AT_ONCE // numbers) if program.refusal is None else 1
    for start in range(0, num, step):
        yield slice(start, min(start + step, num))


def _log_likelihood(
    program: BatchedProgram, values: dict[str, Tensor], observed: dict[str, Site]
) -> dict[str, Tensor]:
    """Of each draw and observed entry, ``(draws, *plates)``."""
    rows: dict[str, list[Tensor]] = {name: [] for name in observed}
    for part in _parts(program, len(next(iter(values.values())))):
        num = part.stop - part.start
        scores = program.scores({name: value[part] for name, value in values.items()}, num)
        for name, site in observed.items():
            score, shape = scores[name], site.shape[: site.batch_dims]
            # What lies between the draws and the site's own plates are plates of other sites, of size 1 here.
            score = score.reshape(len(score), *score.shape[max(1, score.dim() - len(shape)) :])
            rows[name].append(score.expand(num, *shape))
    return {name: torch.cat(parts) for name, parts in rows.items()}


def _drawn(
    program: BatchedProgram, values: dict[str, Tensor], num: int, observed: dict[str, Site]
) -> dict[str, Tensor]:
    """Latent sites, those given as they are, and new data, ``(num, *shape)``."""
    rows: dict[str, list[Tensor]] = {}
    for part in _parts(program, num):
        given = {name: value[part] for name, value in values.items()}
        try:
            drawn = program.draw(part.stop - part.start, given, observed=True)
        except NotImplementedError as error:
            words = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"expected a program whose sites can be drawn, got one that cannot ({words:.100}): set "
                "prior=0, or give it a proper prior"
            ) from None
        for name, value in drawn.items():
            rows.setdefault(name, []).append(value)
    for name, site in observed.items():
        came = tuple(rows[name][0].shape[1:])
        if came != tuple(site.shape):
            raise ValueError(
                f"expected {name} to be drawn of the shape it is observed in, {tuple(site.shape)}, got {came}"
                ": draw it inside a plate over its items"
            )
    return {name: torch.cat(parts) for name, parts in rows.items()}


def _by_chain(values: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
    size = (draws.num_chains, draws.num_draws)
    return {name: value.unflatten(0, size) for name, value in values.items()}


# Names


def _names(
    shapes: Mapping[str, torch.Size], known: Mapping[str, list[str]], given: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Names of the dimensions of each site's value: those given, else those known where they fit."""
    for name, names in given.items():
        if name not in shapes:
            raise ValueError(f"expected dims of some of {', '.join(shapes)}, got {name}")
        if isinstance(names, str) or len(names) != len(shapes[name]):
            came = repr(names) if isinstance(names, str) else len(names)
            raise ValueError(
                f"expected a name for each of {len(shapes[name])} dimensions of {name}, got {came}"
            )
    taken = {"chain", "draw", *shapes}
    sizes: dict[str, int] = {}
    found: dict[str, list[str]] = {}
    for name in sorted(shapes, key=lambda name: name not in given):
        shape, names = shapes[name], []
        wanted = given.get(name, known.get(name, ()))
        wanted = wanted if len(wanted) == len(shape) else [""] * len(shape)
        for axis, (dim, size) in enumerate(zip(wanted, shape, strict=True)):
            wrong = None
            if not dim or dim in taken:
                wrong = "a name that no site has, nor chain or draw"
            elif dim in names:
                wrong = "another name for each dimension"
            elif sizes.get(dim, size) != size:
                wrong = f"a dimension of {sizes[dim]}, as elsewhere, and not {size}"
            if wrong and name in given:
                raise ValueError(f"expected dims of {name} to have {wrong}, got {dim!r}")
            names.append(f"{name}_dim_{axis}" if wrong else dim)
            sizes[names[-1]] = size
        found[name] = names
    return found


def _coordinates(
    shapes: Mapping[str, torch.Size], names: Mapping[str, list[str]], given: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """Labels along each named dimension."""
    sizes = {dim: size for name in shapes for dim, size in zip(names[name], shapes[name], strict=True)}
    for dim, labels in given.items():
        if dim not in sizes:
            raise ValueError(f"expected coords of some of {', '.join(sizes) or 'no dimensions'}, got {dim}")
        if len(labels) != sizes[dim]:
            raise ValueError(f"expected {sizes[dim]} coords of {dim}, got {len(labels)}")
    return {dim: np.asarray(given.get(dim, range(size))) for dim, size in sizes.items()}


def _dataset(
    group: str,
    values: Mapping[str, Tensor],
    names: Mapping[str, list[str]],
    coordinates: Mapping[str, np.ndarray],
    attributes: Mapping[str, str],
) -> Any:
    """A group, as xarray has it."""
    import xarray

    leading = [] if group == "observed_data" else ["chain", "draw"]
    variables: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for name, value in values.items():
        array = _array(value)
        units = "nats" if group == "log_likelihood" or re.fullmatch(r"(lp|energy)(_\d+)?", name) else None
        units = units if group in ("log_likelihood", "sample_stats") else None
        inner = array.shape[len(leading) :]
        own = names[name] if name in names else [f"{name}_dim_{axis}" for axis in range(len(inner))]
        dims = [*leading, *own[: len(inner)]]
        for dim, size in zip(dims, array.shape, strict=True):
            labels[_plain(dim)] = coordinates[dim] if dim in coordinates else np.arange(size)
        if _plain(name) in variables:
            raise ValueError(f"expected names that differ when / is read as a dot, got {name} and another")
        variables[_plain(name)] = ([_plain(dim) for dim in dims], array, {"units": units} if units else {})
    return xarray.Dataset(
        variables, labels, attrs={**attributes, "sample_dims": leading} if leading else attributes
    )


def _plain(name: str) -> str:
    return name.replace("/", ".")


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _as_attribute(seed: int | tuple[int, ...]) -> Any:
    """A seed, or one of each chain, as NetCDF can hold it: a number, or in digits where it is too large."""
    seeds = [seed] if isinstance(seed, int) else list(seed)
    fit = all(-(1 << 63) <= each < 1 << 63 for each in seeds)
    written = seeds if fit else [str(each) for each in seeds]
    return written[0] if isinstance(seed, int) else written
