"""The log-likelihood of held-out items, by whatever route the model's density allows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from inference.annealing import LogZEstimate, ais
from inference.importance import log_weights
from inference.objectives import check_items
from inference.program import Program, forked_rng, restored_modes
from inference.progress import progress as show_progress

EXACT, LOWER_BOUND, ESTIMATE = "exact", "lower bound", "estimate"

Bound = Literal["importance-weighted", "elbo"]
"""Which bound on log p(x): the log of the mean of K weights, or the mean of their logs."""

POSTERIOR_BETAS = 100
"""Steps of the annealing that estimates log p*(x) of an unnormalised model, from its mean field on."""


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Log-likelihood of a set of items, in nats.

    Attributes:
        mean: Mean of ``per_item``.
        standard_error: Of the mean as a figure for further items of the same kind: standard deviation of
            ``per_item`` over √n; NaN for a single item.
        per_item: Shape ``(num_items,)``, float64.
        kind: ``"exact"``, ``"lower bound"`` (in expectation over the particles), or ``"estimate"``.
        monte_carlo_error: Standard error of ``mean`` as a figure for these items, from the spread of the
            particles of each: by the delta method for the importance-weighted bound, of a plain mean for the
            ELBO. NaN for a single particle, which shows no spread; 0 where the kind is exact.
        particles: How many were drawn for each item, 0 where the kind is exact.
        num_dims: Entries of an item, for `bits_per_dim`.
        bound: ``"importance-weighted"`` or ``"elbo"``, None where the kind is no bound.
        log_z: The log-normaliser that was taken from every item, None where the density needs none.
    """

    mean: float
    standard_error: float
    per_item: Tensor
    kind: str
    monte_carlo_error: float
    particles: int
    num_dims: int
    bound: Bound | None = None
    log_z: LogZEstimate | float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """What ``mean`` lies within as far as log Z is uncertain, at 95 %; its ends meet if it is not.

        Not symmetric: an error of the mean weight is none of its log. The items' own spread is no part of it.
        """
        if not isinstance(self.log_z, LogZEstimate):
            return self.mean, self.mean
        low, high = (end.item() for end in self.log_z.interval())
        log_z = self.log_z.log_z.item()
        return self.mean + log_z - high, self.mean + log_z - low

    @property
    def nats_per_item(self) -> float:
        """Negative log-likelihood of an item, in nats."""
        return -self.mean

    @property
    def bits_per_dim(self) -> float:
        """Negative log-likelihood of an entry, in bits: -mean / (num_dims · ln 2)."""
        return -self.mean / (self.num_dims * math.log(2))

    def __str__(self) -> str:
        plural = "" if self.particles == 1 else "s"
        if self.log_z is not None:
            how = self.kind
            if self.particles:
                how += f", annealed from the mean field, {self.particles:,} chain{plural} per item"
            elif self.bound == "elbo":
                how += ", by mean field"
            known = not isinstance(self.log_z, LogZEstimate)
            log_z = f"log Z = {self.log_z:.3f}" if known else str(self.log_z)
            low, high = self.interval
            within = "" if known else f"; with that, {low:.2f} … {high:.2f}"
            return (
                f"log p(x) = {self.mean:.2f} ± {self.standard_error:.2f} nats per item, "
                f"{self.bits_per_dim:.3f} bits per dimension ({how}, {len(self.per_item):,} items; "
                f"{log_z}{within})"
            )
        how = {
            None: f"{self.kind}, mean over {self.particles:,} draw{plural} of the posterior"
            if self.particles
            else self.kind,
            "importance-weighted": f"{self.kind}, {self.particles:,} importance sample{plural} per item",
            "elbo": f"{self.kind}, the ELBO, mean over {self.particles:,} draw{plural} per item",
        }[self.bound]
        return (
            f"log p(x) = {self.mean:.2f} ± {self.standard_error:.2f} nats per item, "
            f"{self.bits_per_dim:.3f} bits per dimension ({how}, {len(self.per_item):,} items)"
        )


@torch.no_grad()
def log_likelihood(
    model: Any,
    x: Any,
    *,
    guide: Callable[..., Any] | None = None,
    particles: int = 1000,
    bound: Bound | None = None,
    log_z: LogZEstimate | Tensor | float | None = None,
    chunk: int = 4000,
    seed: int = 0,
    progress: bool = True,
) -> LikelihoodEstimate:
    """Log-likelihood of items in nats: exact where the model's density is, else bounded from below.

    With latent sites, log p(x) is bounded in expectation by weights w_k = p(x, z_k) / q(z_k | x),
    z_k ~ q(z | x), in one of two ways:

    ``"importance-weighted"``: log 1/K Σ_k w_k, which rises to log p(x) with K.

    ``"elbo"``: 1/K Σ_k log w_k, whose expectation is the ELBO whatever K, and never above the other on the
    same draws. It is what papers on flows report for levels made real by noise (uniform dequantisation).

    Where the density is unnormalised, p(x) = p*(x) / Z, the same two choices are for log p*(x): ``"elbo"`` is
    the model's variational bound, ``"importance-weighted"`` an estimate by annealing from its mean field to
    the posterior, ``particles`` chains for each item. Where the bound is log p*(x) itself, as in an RBM, the
    kind is an estimate for want of log Z alone; where that is exact too, exact. An estimated log Z is low on
    average, and the figure as much too high: its interval says how far.

    The weights are summed as a stream in float64, so that memory does not grow with ``particles``.

    Args:
        model: An object with ``.model`` and ``.guide`` (every model of the zoo), a Pyro program, or an
            objective: that of plain functions knows the values that `fit` found for their ``pyro.param``.
        x: A split of `zoo.load`, or a tensor ``(num, *event_shape)``.
        guide: The guide, where ``model`` is a program.
        particles: K, at least 1; not used where the density is exact.
        bound: One of the two above; left out, the ELBO where the density is unnormalised, and else the
            importance-weighted one. Not used where the density is exact.
        log_z: The log-normaliser of an unnormalised density: what `inference.ais` gives, or the exact
            number. Left out, 500 chains of AIS in 2,000 steps.
        chunk: How many pairs of item and particle are worked on at a time.
        seed: Seed of the particles; torch's generators are left as they were. Modules are evaluated in
            evaluation mode.
        progress: Whether to show a bar.

    Raises:
        ValueError: If ``particles`` or ``chunk`` is below 1, ``bound`` is none of the two, the items do not
            suit the model, or the model has no density.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 5 for the evaluation
        | A note on the evaluation of generative models (Theis, van den Oord & Bethge, 2016), section 3.1 for
          levels made real by noise

    Example:
        >>> import zoo
        >>> vae = zoo.VAE((8, 8))
        >>> estimate = log_likelihood(vae, vae.sample(20), particles=10, progress=False)
        >>> estimate.kind, tuple(estimate.per_item.shape)
        ('lower bound', (20,))
    """
    if particles < 1 or chunk < 1:
        raise ValueError(f"particles and chunk must be at least 1, got {particles} and {chunk}")
    if bound is not None and bound not in get_args(Bound):
        raise ValueError(f"bound must be one of {', '.join(get_args(Bound))}, got {bound!r}")
    items = getattr(x, "x", x)
    program = Program.of(model, guide)
    source = program.source[0]
    check_items(source, items)
    density = getattr(source, "density", None)
    density = density if isinstance(density, str) else None  # a user's own attribute may have that name
    if density == "unnormalized" and hasattr(source, "variational_bound"):
        return _unnormalized(source, items, particles, bound or "elbo", log_z, chunk, seed, progress)
    if density not in (None, "exact", "bound"):
        raise ValueError(f"{type(source).__name__} has no likelihood to estimate: its density is {density!r}")
    for owner in program.owners:
        if getattr(owner, "density", None) == "unnormalized":
            raise ValueError(
                f"expected {type(owner).__name__} itself, whose density is unnormalised, got a program of "
                "it: its log Z would be left out"
            )
    if log_z is not None:
        raise ValueError(
            f"log_z is for unnormalised densities, and that of {type(source).__name__} is {density!r}"
        )
    bound = bound or "importance-weighted"
    device = next((param.device for param in program.parameters()), items.device)

    parts: list[Tensor] = []
    variance = 0.0
    batches = items.split(min(100, chunk))
    bar_of = show_progress("evaluating", len(batches), enabled=progress)
    with restored_modes(program), forked_rng(device), bar_of as bar:
        program.eval()
        torch.manual_seed(seed)
        latent = density != "exact" and bool(program.prepare(batches[0].to(device)).latent)
        kind = LOWER_BOUND if latent else EXACT
        total = particles if latent else 1
        streamed = _log_of_mean if bound == "importance-weighted" else _mean_of_logs
        for batch in batches:
            batch = batch.to(device)
            if density == "exact":
                parts.append(source.log_prob(batch).double().cpu())
            else:
                figure, spread = streamed(program, batch, total, max(1, chunk // len(batch)))
                parts.append(figure.cpu())
                variance += spread.sum().item()
            bar.advance()
    per_item = torch.cat(parts)
    num = len(per_item)
    return LikelihoodEstimate(
        mean=per_item.mean().item(),
        standard_error=per_item.std().item() / math.sqrt(num) if num > 1 else math.nan,
        per_item=per_item,
        kind=kind,
        monte_carlo_error=math.sqrt(variance) / num if kind == LOWER_BOUND else 0.0,
        particles=particles if kind == LOWER_BOUND else 0,
        num_dims=items[0].numel(),
        bound=bound if kind == LOWER_BOUND else None,
    )


def _unnormalized(
    model: Any,
    items: Tensor,
    particles: int,
    bound: Bound,
    log_z: LogZEstimate | Tensor | float | None,
    chunk: int,
    seed: int,
    progress: bool,
) -> LikelihoodEstimate:
    device = next(model.parameters()).device
    annealed = bound == "importance-weighted" and not model.bound_is_exact
    with restored_modes(model), torch.no_grad():
        model.eval()
        if log_z is None:
            log_z = ais(model, chains=500, betas=2000, seed=seed, progress=progress)
        elif not isinstance(log_z, LogZEstimate):
            log_z = _number(log_z)
        known = not isinstance(log_z, LogZEstimate)
        parts, variance = [], 0.0
        batches = items.split(max(1, chunk // particles) if annealed else 1000)
        with show_progress("evaluating", len(batches), enabled=progress) as bar:
            for number, batch in enumerate(batches):
                batch = batch.to(device)
                if annealed:
                    found = ais(
                        model.annealing(batch), chains=particles, betas=POSTERIOR_BETAS, seed=seed + number
                    )
                    parts.append(found.log_z.cpu())
                    variance += found.relative_error.square().sum().item()
                else:
                    parts.append(model.variational_bound(batch).double().cpu())
                bar.advance()
    found = torch.cat(parts)
    if not found.isfinite().all():
        raise ValueError(
            f"log p*(x) is not finite in {int((~found.isfinite()).sum())} of {len(found)} items: are the "
            f"parameters of {type(model).__name__}?"
        )
    per_item = found - (log_z if known else log_z.log_z.item())
    num = len(per_item)
    error_of_log_z = 0.0 if known else log_z.relative_error.item()
    exact = EXACT if known else ESTIMATE
    return LikelihoodEstimate(
        mean=per_item.mean().item(),
        standard_error=per_item.std().item() / math.sqrt(num) if num > 1 else math.nan,
        per_item=per_item,
        kind=ESTIMATE if annealed else exact if model.bound_is_exact else LOWER_BOUND,
        monte_carlo_error=math.sqrt(variance / num**2 + error_of_log_z**2),
        particles=particles if annealed else 0,
        num_dims=items[0].numel(),
        bound=None if annealed or model.bound_is_exact else "elbo",
        log_z=log_z,
    )


def _number(log_z: Any) -> float:
    """An exact log Z as a number."""
    single = log_z.numel() == 1 if isinstance(log_z, Tensor) else isinstance(log_z, int | float)
    if isinstance(log_z, bool) or not single or not math.isfinite(log_z):
        came = f"a tensor of shape {tuple(log_z.shape)}" if isinstance(log_z, Tensor) else repr(log_z)
        raise ValueError(f"log_z must be an estimate by inference.ais, or a finite number, got {came}")
    return float(log_z)


def _log_of_mean(program: Program, batch: Tensor, particles: int, at_a_time: int) -> tuple[Tensor, Tensor]:
    """Log of the mean weight of each item, and the variance of that log; NaN for a single particle."""
    log_sum = torch.full((len(batch),), -math.inf, dtype=torch.float64, device=batch.device)
    log_sum_squares = log_sum.clone()
    for weights in _in_parts(program, batch, particles, at_a_time):
        log_sum = torch.logaddexp(log_sum, weights.logsumexp(0))
        log_sum_squares = torch.logaddexp(log_sum_squares, (2 * weights).logsumexp(0))
    relative_variance = ((log_sum_squares - 2 * log_sum).exp() - 1 / particles).clamp(min=0)
    return log_sum - math.log(particles), relative_variance if particles > 1 else relative_variance + math.nan


def _mean_of_logs(program: Program, batch: Tensor, particles: int, at_a_time: int) -> tuple[Tensor, Tensor]:
    """Mean log-weight of each item, and the variance of that mean; NaN for a single particle."""
    total = torch.zeros(len(batch), dtype=torch.float64, device=batch.device)
    squares = total.clone()  # of the differences from the mean so far, which are small beside the log-weights
    done = 0
    for weights in _in_parts(program, batch, particles, at_a_time):
        num, mean = len(weights), weights.mean(0)
        squares = squares + (weights - mean).square().sum(0)
        if done:
            squares = squares + (mean - total / done).square() * (done * num / (done + num))
        total, done = total + weights.sum(0), done + num
    variance = squares / (particles - 1) if particles > 1 else squares + math.nan
    return total / particles, variance / particles


def _in_parts(program: Program, batch: Tensor, particles: int, at_a_time: int) -> Iterator[Tensor]:
    """The log-weights of each item, float64, so many particles at a time."""
    for done in range(0, particles, at_a_time):
        yield log_weights(program, batch, num_particles=min(at_a_time, particles - done)).double()
