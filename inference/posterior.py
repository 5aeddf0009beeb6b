"""Posteriors over what a program does not observe: draws by Pyro's NUTS or a guide, and what they predict."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import NUTS
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.chains import Draws, chain_seeds, run_chains
from inference.diagnostics import effective_size_of_mean
from inference.likelihood import ESTIMATE, LikelihoodEstimate
from inference.objectives import check_items
from inference.program import (
    Program,
    Structure,
    as_found,
    check_counts,
    chosen_sites,
    forked_rng,
    is_enumerated,
    log_prob,
    own_store,
    restored_modes,
    sample_sites,
    unpacked,
)
from inference.progress import progress as show_progress
from inference.pyro_kernels import InTurn

OPTIONS = (
    "step_size",
    "adapt_step_size",
    "adapt_mass_matrix",
    "full_mass",
    "use_multinomial_sampling",
    "max_plate_nesting",
    "target_accept_prob",
    "max_tree_depth",
    "init_strategy",
)
"""What `nuts` hands on to ``pyro.infer.NUTS``."""

LEAST_CORRELATED = 4
"""Draws of a chain from which on their correlation is looked at."""

ITEMS_AT_A_TIME = 1000
"""Whose log-probabilities under all draws are held at once."""


def nuts(
    program: Any,
    *args: Any,
    num_draws: int = 500,
    num_chains: int = 4,
    warmup: int | None = None,
    seed: int = 0,
    sites: Sequence[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Draws:
    """Draws from the posterior of a program's latent sites by Pyro's NUTS, one chain after the other.

    Every chain has a seed, a start and an adaptation of its own, so that R-hat (`inference.diagnose`) means
    something. Parameters are constants. Latent sites that are marked with ``infer={"enumerate": "parallel"}``
    are summed out by Pyro, and are not among the draws.

    The statistics of a draw are its ``energy``, the negative log joint density in nats, in the unconstrained
    space that NUTS moves in, the log-Jacobian included; the mean ``acceptance`` probability along its
    trajectory; whether that was ``divergent``; and the ``step_size``.

    What ``pyro.infer.Predictive(program, {site: value.flatten(0, 1) for site, value in
    draws.samples.items()})`` draws, given no data, follows the posterior predictive distribution.

    Args:
        program: A Pyro program, an object with ``.model``, or an objective; it is called with ``args``.
        *args: The data, a split of `zoo.load` or whatever the program takes.
        num_draws: Draws of each chain to keep, at least 1.
        num_chains: How many, at least 1.
        warmup: Transitions before, in which step size and mass matrix adapt; left out, ``num_draws``.
        seed: From which each chain has its own; torch's generators and Pyro's parameter store are left as
            they were. Modules run in evaluation mode.
        sites: Whose values to keep; left out, all.
        progress: Whether to show a bar.
        **options: Of ``pyro.infer.NUTS``: ``target_accept_prob``, ``max_tree_depth``, ``full_mass``,
            ``init_strategy``, ….

    Returns:
        The draws, ``(chain, draw, *shape)``, in the sites' own space. After Ctrl-C, what was drawn
        until then.

    Raises:
        ValueError: If a number is below its least, a site or an option unknown, the data hold NaN, nothing is
            latent, a discrete site is not enumerated, a plate subsamples, or no start has a density.

    References:
        | The No-U-Turn Sampler (Hoffman & Gelman, 2014)
        | A Conceptual Introduction to Hamiltonian Monte Carlo (Betancourt, 2017), appendix A, for the
          multinomial variant that Pyro runs

    Example:
        >>> import pyro.distributions as dist
        >>> def coin(x):
        ...     p = pyro.sample("p", dist.Beta(1., 1.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
        >>> draws = nuts(coin, torch.ones(8), num_draws=100, num_chains=2, progress=False)
        >>> draws.samples["p"].shape, sorted(draws.stats)
        (torch.Size([2, 100]), ['acceptance', 'divergent', 'energy', 'step_size'])
    """
    check_counts(num_draws=num_draws, num_chains=num_chains)
    warmup = num_draws if warmup is None else warmup
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise ValueError(f"warmup must be an integer of at least 0, got {warmup!r}")
    strange = [name for name in options if name not in OPTIONS]
    if strange:
        raise ValueError(f"nuts expects options out of {', '.join(OPTIONS)}, got {strange[0]}")
    args = unpacked(args)
    posterior = Program.of(program)
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if tensors and len(tensors) == len(args):
        check_items(posterior.source[0], *tensors)
    with as_found(posterior, *args):
        kept = _sites(posterior.model, args, sites)
        kernel = InTurn(NUTS(posterior.model, **options), chain_seeds(seed, num_chains), posterior)
    return run_chains(
        kernel,
        num_draws,
        *args,
        num_chains=num_chains,
        warmup=warmup,
        sites=kept,
        seed=seed,
        progress=progress,
    )


def _sites(model: Callable[..., Any], args: tuple[Any, ...], sites: Sequence[str] | None) -> list[str]:
    """The names of the sites to keep, of a program that NUTS can run."""
    with pyro.validation_enabled(True):
        trace = poutine.trace(model).get_trace(*args)
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and site_is_subsample(site):
            full, size = site["fn"].size, site["fn"].subsample_size
            if size is not None and size < full:
                raise ValueError(f"NUTS expects all items at once, got {size} of {full} in the plate {name}")
    latent = []
    for name, site in sample_sites(trace).items():
        discrete = not site["is_observed"] and site["fn"].support.is_discrete
        if discrete and not (is_enumerated(site) and site["fn"].has_enumerate_support):
            raise ValueError(
                f"NUTS expects continuous latent sites, got discrete {name}: mark it with "
                'infer={"enumerate": "parallel"} if its support is finite, or sum it out'
            )
        if not site["is_observed"] and not discrete:
            latent.append(name)
    if not latent:
        raise ValueError("NUTS expects a program with continuous latent sites, got none")
    return latent if sites is None else chosen_sites(sites, latent)


def posterior_draws(guide: Any, num_draws: int, *args: Any, seed: int = 0) -> Draws:
    """Draws from a fitted guide, as one chain of independent draws.

    Args:
        guide: A guide program, an AutoGuide or any other, or the objective that it was fitted with: that of
            plain functions knows the values that `fit` found for their ``pyro.param``. A plain function
            alone takes those of Pyro's store.
        num_draws: How many; an ``AutoDelta`` gives copies of its point, so that 1 is enough.
        *args: What the guide takes; an AutoGuide that has run before needs none.
        seed: Seed of the draws; torch's generators and Pyro's parameter store are left as they were. Modules
            run in evaluation mode.

    Returns:
        The draws, ``(1, num_draws, *shape)``, in the sites' own space, without statistics.

    Raises:
        ValueError: If ``num_draws`` is below 1, or the guide has no latent sites.

    Example:
        >>> import inference, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> def coin(x):
        ...     p = pyro.sample("p", dist.Beta(1., 1.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
        >>> x, guide = torch.ones(8), AutoNormal(coin)
        >>> elbo = inference.ELBO(coin, guide)
        >>> fit = inference.fit(elbo, x, batch_size=len(x), epochs=300, lr=0.03, progress=False)
        >>> posterior_draws(guide, 100).samples["p"].shape
        torch.Size([1, 100])
    """
    check_counts(num_draws=num_draws)
    program = getattr(guide, "program", getattr(guide, "guide", guide))
    program = program if isinstance(program, Program) else Program(_nothing, guide)
    args = unpacked(args)
    drawn: dict[str, list[Tensor]] = {}
    with as_found(program, *args), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(num_draws):
            for name, site in sample_sites(poutine.trace(program.guide).get_trace(*args)).items():
                # An AutoGuide has sites of its own, in unconstrained space.
                if not site["is_observed"] and not site["infer"].get("is_auxiliary"):
                    drawn.setdefault(name, []).append(site["value"].detach().clone())
    if not drawn:
        raise ValueError("expected a guide with latent sites, got none")
    samples = {name: torch.stack(values).unsqueeze(0) for name, values in drawn.items()}
    last = {name: value[:, -1] for name, value in samples.items()}
    return Draws(samples, {}, last, warmup=0, thin=1, seed=seed)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """The model, where a guide came alone."""


@torch.no_grad()
def log_predictive(
    program: Any, draws: Draws, x: Any, *, chunk: int = 20_000, progress: bool = True
) -> LikelihoodEstimate:
    """Log of the posterior predictive density of new items, by Monte Carlo over draws of the posterior.

    log p(x* | X) ≈ log 1/S Σ_s p(x* | θ_s),    θ_s ~ p(θ | X), in nats for each item by itself.

    The logarithm of a mean is low on average, the less so the more draws there are. The error that the draws
    leave in the mean over the items, ``monte_carlo_error``, is by the delta method, from their effective
    number: all items share them, and those of a chain are correlated. It cannot tell of what no chain has
    found.

    Args:
        program: p(θ) Π p(x_i | θ): the program that the draws are from, which takes ``x``, as a function, an
            object with ``.model``, or an objective. Its latent sites are outside the plate over the items:
            what is latent for each item is summed out.
        draws: Of all its latent sites, by `nuts`, `posterior_draws` or `run_chains`.
        x: New items: a split of `zoo.load`, or a tensor ``(num, *event_shape)``.
        chunk: How many pairs of item and draw are worked on at a time, where the program takes many draws at
            once, as an extra dimension on the left. It is tried on two draws whether it does; one that does
            not is run draw by draw, which is slower.
        progress: Whether to show a bar.

    Returns:
        The kind is ``"estimate"``, and ``particles`` the number of draws.

    Raises:
        ValueError: If the items do not suit the program, the draws lack one of its latent sites, or it has
            sites that give no density for each item.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0., 10.))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 1.), obs=x)
        >>> draws = nuts(model, torch.randn(50), num_draws=50, num_chains=1, progress=False)
        >>> estimate = log_predictive(model, draws, torch.randn(20), progress=False)
        >>> estimate.kind, estimate.particles, tuple(estimate.per_item.shape)
        ('estimate', 50, (20,))
    """
    check_counts(chunk=chunk)
    items = getattr(x, "x", x)
    predictive = Program.of(program)
    check_items(predictive.source[0], items)
    store = own_store(predictive)  # before the program is prepared, and has parameters of its own
    device = next((param.device for param in predictive.parameters()), items.device)
    at_once = min(ITEMS_AT_A_TIME, chunk)
    batches = items.split(at_once)
    num, chains, length = len(items), draws.num_chains, draws.num_draws
    if not length:
        raise ValueError("expected draws from the posterior, got none")
    bar_of = show_progress("predicting", len(batches), enabled=progress)
    with forked_rng(device), restored_modes(predictive), bar_of as bar:
        predictive.eval()
        structure = predictive.prepare(batches[0].to(device))
        _check_predictive(structure, draws, predictive, batches[0].to(device))
        samples = {name: draws.samples[name].flatten(0, 1).to(device) for name in structure.latent}
        means: list[Tensor] = []
        share = torch.zeros(chains * length, dtype=torch.float64)
        with store:
            log_densities = _Densities(predictive, structure, samples, batches[0].to(device))
            for batch in batches:
                batch = batch.to(device)
                step = max(1, chunk // len(batch))
                parts = [
                    log_densities(
                        {name: value[start : start + step] for name, value in samples.items()}, batch
                    )
                    for start in range(0, chains * length, step)
                ]
                densities = torch.cat(parts)
                mean = densities.logsumexp(0) - math.log(len(densities))
                means.append(mean.cpu())
                share += (densities - mean).exp().sum(1).cpu()
                bar.advance()
    per_item = torch.cat(means)
    return LikelihoodEstimate(
        mean=per_item.mean().item(),
        standard_error=per_item.std().item() / math.sqrt(num) if num > 1 else math.nan,
        per_item=per_item,
        kind=ESTIMATE,
        monte_carlo_error=_error_of_mean((share / num).reshape(chains, length)),
        particles=chains * length,
        num_dims=items[0].numel(),
    )


def _check_predictive(structure: Structure, draws: Draws, program: Program, x: Tensor) -> None:
    """Refuses a program without a density for each new item, and draws that are not of its latent sites."""
    local = [name for name in structure.latent if name not in structure.loose]
    if structure.data_dim is None or local:
        raise ValueError(
            "expected all latent sites outside one full pyro.plate over the items, what is latent for each "
            f"summed out, got {', '.join(local) or 'no such plate'}"
        )
    outside = [name for name in structure.loose if name not in structure.latent]
    if outside:
        raise ValueError(f"expected what is observed inside the plate over the items, got {outside[0]}")
    if not structure.latent:
        raise ValueError(
            "expected a program with latent sites, got none: its log-likelihood is log_likelihood's"
        )
    lacking = [name for name in structure.latent if name not in draws.samples]
    if lacking:
        raise ValueError(
            f"expected draws of {', '.join(structure.latent)}, got those of {', '.join(draws.samples)}"
        )
    with program.scope():
        sites = program.run(program.model, (x,))
    for name in structure.latent:
        expected, came = tuple(sites[name]["value"].shape), tuple(draws.samples[name].shape[2:])
        if came != expected:
            raise ValueError(f"expected draws of {name} of shape {expected}, got {came}: of another program?")


class _Densities:
    """log p(x_i | θ_s), ``(draw, item)``, float64, many draws at once where the program can take them."""

    def __init__(self, program: Program, structure: Structure, samples: dict[str, Tensor], x: Tensor) -> None:
        self.program, self.structure = program, structure
        # The two that differ most: a program that mixes up its dimensions then gives other numbers for one.
        away = sum(
            (value.double() - value[:1].double()).square().reshape(len(value), -1).sum(1)
            for value in samples.values()
        )
        pair = {name: value[[0, int(away.argmax())]] for name, value in samples.items()}
        sites = self.run(program.model, {name: value[0] for name, value in pair.items()}, x)
        self.event_dims = {name: sites[name]["fn"].event_dim for name in samples}
        self.vectorized = False
        one_by_one = self(pair, x)
        self.vectorized = True
        try:
            together = self(pair, x)
            self.vectorized = torch.allclose(together, one_by_one, rtol=1e-4, atol=1e-4, equal_nan=True)
        except Exception:  # whatever a program raises that was not written for a dimension more
            self.vectorized = False

    def run(self, model: Callable[..., Any], values: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        drawn = {name: {"value": value, "infer": {}} for name, value in values.items()}
        return self.program.run(model, (x,), drawn=drawn)

    def __call__(self, samples: dict[str, Tensor], x: Tensor) -> Tensor:
        num = len(next(iter(samples.values())))
        if not self.vectorized:
            single = [{name: value[draw] for name, value in samples.items()} for draw in range(num)]
            rows = [self.per_item(self.run(self.program.model, values, x)) for values in single]
            return torch.cat([row.expand(1, len(x)) for row in rows])
        nesting = self.structure.plate_nesting
        values = {}
        for name, value in samples.items():
            plates = value.dim() - 1 - self.event_dims[name]
            values[name] = value.reshape(num, *(1,) * (nesting - plates), *value.shape[1:])
        model = pyro.plate("_draws", num, dim=-1 - nesting)(self.program.model)
        return self.per_item(self.run(model, values, x)).expand(num, len(x))

    def per_item(self, sites: dict[str, Any]) -> Tensor:
        """Summed over what is observed of an item."""
        nesting, total = self.structure.plate_nesting, torch.zeros((), dtype=torch.float64)
        others = [dim for dim in range(-nesting, 0) if dim != self.structure.data_dim]
        for name, site in sites.items():
            if name not in self.structure.latent:
                value = log_prob(site).double()
                value = value.reshape((1,) * (nesting + 1 - value.dim()) + value.shape)
                total = total.to(value.device) + (value.sum(others) if others else value)
        return total


def _error_of_mean(shares: Tensor) -> float:
    """Standard error of the mean of ``(chain, draw)`` numbers, by their effective number."""
    if shares.numel() == 1:
        return math.nan
    if (shares == shares[0, 0]).all():
        return 0.0
    correlated = shares.shape[1] >= LEAST_CORRELATED
    worth = effective_size_of_mean(shares) if correlated else shares.numel()
    if not worth > 0:  # of a few draws that alternate
        worth = shares.numel()
    return shares.std().item() / math.sqrt(worth)
