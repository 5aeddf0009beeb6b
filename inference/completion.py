"""Completion: the missing variables of items, drawn given all that were observed, whatever the mask.

    p(x_missing | x_observed) ∝ ∏_i p(x_i | x_<i),    i along the scan order.

Where all that is observed comes first in the scan, the conditionals themselves draw from it. Elsewhere what
is observed later must reach back to what was drawn before it: by weights (sequential Monte Carlo), or by
visiting the missing variables again and again (Gibbs). An undirected model, p(x) = Σ_h exp(-E(x, h)) / Z, has
no scan: its blocks are drawn in turn, with what is observed clamped.
"""

import inspect
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import pyro
import torch
from pyro import poutine
from pyro.distributions import Distribution
from pyro.poutine.runtime import NonlocalExit
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from inference.gibbs import BlockGibbs, HasBlocks
from inference.program import Program, forked_rng, log_prob, restored_modes, sample_sites
from inference.progress import Progress
from inference.progress import progress as show_progress

Method = Literal["auto", "ancestral", "smc", "gibbs", "left-to-right"]

LEAST_SWEEPS = 8
"""Half of them is the least that ArviZ tells an effective sample size from."""


@dataclass(frozen=True)
class Completion:
    """Completions of items, and how far they may be trusted.

    Attributes:
        draws: Shape ``(num, batch, *event_shape)``; the observed entries are those of x, to the bit.
        effective_sample_size: How many independent draws the ``num`` draws of an item are worth, 1 to
            ``num``: shape ``(batch,)``, float64; NaN where nothing tells.
        log_evidence: log p(x_observed) in nats, shape ``(batch,)``, float64: exact where ``exact``, else the
            log of an unbiased estimate; NaN for ``"left-to-right"``, and of an undirected model, whose
            density lacks its normaliser.
        log_evidence_error: Its standard error, 0 where ``exact``; infinite where all particles have one
            ancestor, so that nothing tells; NaN where the evidence is.
        method: What was used.
        exact: Whether the draws are independent and of the conditional itself. ``"smc"`` and ``"gibbs"``
            are that only in the limit, of particles and of sweeps.
    """

    draws: Tensor
    effective_sample_size: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    method: str
    exact: bool

    def __str__(self) -> str:
        num, items = self.draws.shape[:2]
        worth = self.effective_sample_size.min().item()
        how = "exact" if self.exact else f"worth {worth:.1f} independent ones or more for each item"
        return f"{num:,} completions of {items:,} items by {self.method}: {how}"


@runtime_checkable
class Sequential(Protocol):
    """What `complete` asks of a model: its conditionals one by one, and its density (the zoo's have both).

    Steps count along ``order``, which numbers the entries of an item row by row. The state belongs to the
    model: tensors in tuples, lists or dicts, whose first dimension is that of the values once `advance` has
    seen one; what does not depend on the values stays the object that it was in the first state.
    """

    order: Sequence[int]

    def initial_state(self) -> Any:
        """The state before any variable is known."""

    def conditional(self, step: int, state: Any) -> Distribution:
        """p(x_i | x_<i) of the variable at a step."""

    def advance(self, step: int, state: Any, value: Tensor) -> Any:
        """The state once the variable at a step has its value, ``(num,)``; leaves ``state`` as it is."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of whole items, ``(num, *event_shape)``, in nats."""


@torch.no_grad()
def complete(
    model: Any,
    x: Any,
    observed: Tensor,
    *,
    num: int = 16,
    method: Method = "auto",
    particles: int = 1000,
    sweeps: int = 100,
    chunk: int = 4000,
    seed: int = 0,
    progress: bool = True,
) -> Completion:
    """Draws the missing variables of items, given all that were observed.

    ``"ancestral"``: each from p(x_i | x_<i), in scan order. Exact, where no observed variable comes after a
    missing one.

    ``"smc"``: sequential Monte Carlo with the same proposal. A particle's weight is multiplied by
    p(x_i | x_<i) at each observed variable; when the effective sample size of an item's weights falls below
    half its particles, they are resampled, systematically. Particles of one ancestor count as one in
    ``effective_sample_size``: with c = Σ_a W_a², W_a the final weight of all descendants of the first
    particle a, two draws share an ancestor with probability c, and num draws are worth
    num / (1 + (num - 1) c). Like every figure that comes from weights, it knows nothing of what no particle
    has found.

    ``"gibbs"``: a chain for each draw, started from one of ``"smc"``. A sweep visits the missing variables in
    scan order. One of finitely many levels is drawn given all others, from the joint density at each level;
    another is proposed from p(x_i | x_<i), and accepted with probability
    min(1, ∏_{j>i} p(x_j | new) / p(x_j | old)). The effective sample size is ArviZ's (bulk) for the joint
    log-density over the second half of the sweeps, ``num`` at most; that of the start where the
    log-density never changes there, or there are fewer than 8 sweeps.

    ``"left-to-right"``: as ``"ancestral"`` whatever the mask, blind to what is observed later. The draws are
    biased wherever that matters; it is here to be compared with.

    ``"auto"``: ancestral where that is exact for every item, else smc; gibbs, of an undirected model.

    An undirected model takes ``"gibbs"`` alone: for each draw a chain of its own, from an independent start,
    of `inference.BlockGibbs` with the observed entries clamped; the last of its ``sweeps`` is kept. The
    effective sample size is then ArviZ's (bulk) for the energy, over the second half of the sweeps, and NaN
    where it never changes, where the model has no ``energy``, or there are fewer than 8 sweeps.

    Args:
        model: An object with the methods of `Sequential` (every autoregressive model of the zoo), or with
            those of `inference.gibbs.HasBlocks` (every undirected one), whose site ``v`` is the item; an
            object with ``.model``, or a Pyro program: called with ``num=N``, it has one site ``x_i`` for each
            entry of the flattened item and no other, inside one plate of size N. A program is run anew for
            every variable, up to it: n variables cost n²/2 sites a pass. Of an objective, ``pyro.param``
            statements take the values that `fit` found; others come from Pyro's store, which stays as it is.
        x: A split of `zoo.load`, or a tensor ``(batch, *event_shape)``. Missing entries may hold anything.
        observed: Which entries are observed: bool, ``event_shape`` or ``(batch, *event_shape)``.
        num: Draws for each item.
        method: One of the above.
        particles: Of an item, in sequential Monte Carlo.
        sweeps: Of a chain.
        chunk: How many pairs of item and particle are worked on at a time, one item at least.
        seed: Seed of the draws; torch's generators are left as they were.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a number is below 1, the method is unknown or not for this model, or ``"ancestral"``
            and not exact for the mask; if items, mask and model do not fit each other, or no particle
            explains what is observed.

    References:
        | Sequential Monte Carlo methods in practice (Doucet, de Freitas & Gordon, 2001), chapter 1
        | Variance estimation in the particle filter (Lee & Whiteley, 2018), whose Eves are the ancestors
        | Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images (Geman & Geman,
          1984)

    Example:
        >>> import zoo
        >>> network = zoo.FVSBN((8, 8))
        >>> x = network.sample(3, seed=0)
        >>> upper = torch.arange(64).view(8, 8) < 32
        >>> complete(network, x, upper, num=5, progress=False).draws.shape
        torch.Size([5, 3, 8, 8])
        >>> print(complete(network, x, ~upper, num=5, progress=False))
        5 completions of 3 items by smc: worth 5.0 independent ones or more for each item
    """
    for name, value in (("num", num), ("particles", particles), ("sweeps", sweeps), ("chunk", chunk)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"expected {name} to be an integer of at least 1, got {value!r}")
    if method not in get_args(Method):
        raise ValueError(f"expected method to be one of {', '.join(get_args(Method))}, got {method!r}")
    items = getattr(x, "x", x)
    observed = _checked_mask(items, observed)
    if isinstance(model, HasBlocks) and not isinstance(model, Sequential):
        if method not in ("auto", "gibbs"):
            raise ValueError(
                "an undirected model has no conditionals one by one: expected method to be auto or gibbs "
                f"for {type(model).__name__}, got {method!r}"
            )
        return _by_blocks(
            model, items, observed, num=num, sweeps=sweeps, chunk=chunk, seed=seed, progress=progress
        )
    program = None if isinstance(model, Sequential) else Program.of(model)
    source = model if program is None else program.source[0]
    owner = source if isinstance(source, Sequential) else program
    module = owner if isinstance(owner, nn.Module) else nn.Module()  # for what has parameters and modes
    device = next((param.device for param in module.parameters()), items.device)
    entries = items.flatten(1).to(device)  # missing ones are drawn before anything reads them
    observed = observed.flatten(1).to(device)

    with restored_modes(module), forked_rng(device), _parameters(program):
        module.eval()
        torch.manual_seed(seed)
        sequence = source if isinstance(source, Sequential) else _Replayed(program, entries.shape[1])
        _check_shape(sequence, items)
        order = list(sequence.order)
        seen = observed[:, order]
        late = (seen & (seen.long().cumprod(-1) == 0)).nonzero()
        if method == "ancestral" and len(late):
            item, step = late[0].tolist()
            raise ValueError(
                "ancestral draws expect every observed variable before the missing ones in scan order, got "
                f"x_{order[step]} of item {item} observed after one; smc and gibbs take any mask"
            )
        if method == "auto":
            method = "smc" if len(late) else "ancestral"
        weighted = method in ("smc", "gibbs")
        rows = max(1, chunk // (max(num, particles) if weighted else num))
        chunks = list(zip(entries.split(rows), observed.split(rows), strict=True))
        for number, (part, mask) in enumerate(chunks):
            _check_entries(sequence, part, mask, number * rows)
        units = len(chunks) * (len(order) + (sweeps if method == "gibbs" else 0))
        with show_progress("completing", units, enabled=progress) as bar:
            sampler = _Sampler(sequence, items.shape[1:], chunk, bar)
            results = [
                sampler.complete(*part, num=num, method=method, particles=particles, sweeps=sweeps)
                for part in chunks
            ]
    draws, worth, evidence, error = (torch.cat(parts) for parts in zip(*results, strict=True))
    return Completion(
        draws=draws.movedim(1, 0).unflatten(-1, items.shape[1:]).to(items.device),
        effective_sample_size=worth.cpu(),
        log_evidence=evidence.cpu(),
        log_evidence_error=error.cpu(),
        method=method,
        exact=method == "ancestral",
    )


@dataclass
class _Particles:
    """The particles of some items, each with its weight and the number of its first ancestor.

    Attributes:
        values: Shape ``(items, particles, n)``.
        log_weights: Since the last resampling: shape ``(items, particles)``, float64.
        ancestors: Of the same shape.
        log_evidence: Of what was weighed before that resampling: shape ``(items,)``, float64.
    """

    values: Tensor
    log_weights: Tensor
    ancestors: Tensor
    log_evidence: Tensor

    def coincidence(self) -> Tensor:
        """The chance that two draws of an item descend from one first particle."""
        shares = torch.zeros_like(self.log_weights)
        shares.scatter_add_(1, self.ancestors, self.log_weights.softmax(-1))
        return shares.square().sum(-1)

    def total_log_evidence(self) -> Tensor:
        """Of all that was weighed, in nats."""
        return self.log_evidence + self.log_weights.logsumexp(-1) - math.log(self.log_weights.shape[1])


class _Sampler:
    """The methods, on anything that is `Sequential`."""

    def __init__(self, sequence: Sequential, event_shape: torch.Size, chunk: int, bar: Progress) -> None:
        self.sequence, self.event_shape, self.chunk, self.bar = sequence, event_shape, chunk, bar
        self.order = list(sequence.order)

    def complete(
        self, entries: Tensor, observed: Tensor, *, num: int, method: Method, particles: int, sweeps: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws ``(items, num, n)``; what they are worth, the evidence and its error, ``(items,)``."""
        weighted = method in ("smc", "gibbs")
        lineage = self.scan(entries, observed, particles if weighted else num, resample=weighted)
        evidence = lineage.total_log_evidence()
        nothing = torch.full_like(evidence, math.nan)
        if method == "left-to-right":
            return lineage.values, nothing, nothing, nothing
        if method == "ancestral":
            return lineage.values, torch.full_like(evidence, num), evidence, torch.zeros_like(evidence)
        coincidence = lineage.coincidence()
        # By the delta method, with a particle's descendants as one; a single family has no spread to see.
        error = (coincidence - 1 / particles).clamp(min=0).sqrt()
        error[coincidence > 1 - 1e-9] = math.inf
        chosen = _systematic(lineage.log_weights, num)
        chosen = chosen.gather(1, torch.rand(chosen.shape, device=chosen.device).argsort(-1))  # in no order
        draws = _picked(lineage.values, chosen)
        worth = num / (1 + (num - 1) * coincidence)
        if method == "gibbs":
            draws, worth = self.gibbs(draws, observed, sweeps, worth)
        return draws, worth, evidence, error

    def scan(self, entries: Tensor, observed: Tensor, num: int, *, resample: bool) -> _Particles:
        """Draws ``num`` particles of each item along the scan, and weighs them by what is observed."""
        items = len(entries)
        lineage = _Particles(
            values=entries.unsqueeze(1).repeat(1, num, 1),
            log_weights=torch.zeros(items, num, dtype=torch.float64, device=entries.device),
            ancestors=torch.arange(num, device=entries.device).repeat(items, 1),
            log_evidence=torch.zeros(items, dtype=torch.float64, device=entries.device),
        )
        state = first = self.sequence.initial_state()
        for step, variable in enumerate(self.order):
            held = observed[:, variable, None]
            conditional = self.conditional(step, state, items * num)
            value = lineage.values[:, :, variable]
            if not held.all():
                value = torch.where(held, value, conditional.sample().view(items, num))
                lineage.values[:, :, variable] = value
            if held.any():
                weight = conditional.log_prob(value.flatten()).view(items, num).double()
                lineage.log_weights += torch.where(held, weight, 0.0)
                self.check_weights(lineage.log_weights, variable)
            state = self.sequence.advance(step, state, value.flatten())
            if resample and held.any() and step + 1 < len(self.order):
                state = _resampled(lineage, state, first)
            self.bar.advance()
        return lineage

    def conditional(self, step: int, state: Any, num: int) -> Distribution:
        """p(x_i | x_<i), with a batch dimension even where nothing is known yet."""
        conditional = self.sequence.conditional(step, state)
        return conditional if conditional.batch_shape == (num,) else conditional.expand((num,))

    @staticmethod
    def check_weights(log_weights: Tensor, variable: int) -> None:
        """Refuses weights that are none."""
        largest = log_weights.amax(-1)
        if not largest.isfinite().all():
            came = "probability 0" if (largest == -math.inf).any() else "no finite density"
            raise ValueError(
                f"expected observed entries that some particle explains, got {came} at x_{variable} from all "
                f"{log_weights.shape[1]:,} of them"
            )

    def gibbs(self, draws: Tensor, observed: Tensor, sweeps: int, worth: Tensor) -> tuple[Tensor, Tensor]:
        """Moves a chain from each of the draws; they are worth ``worth`` at the start."""
        items, num, _ = draws.shape
        x = draws.flatten(0, 1)
        missing = ~observed.repeat_interleave(num, 0)
        density = self.log_joint(x)
        trace = []
        for _ in range(sweeps):
            self.sweep(x, missing, density)
            trace.append(density.view(items, num).clone())
            self.bar.advance()
        if sweeps >= LEAST_SWEEPS:
            chains = torch.stack(trace[sweeps // 2 :], dim=-1)
            worth = torch.stack([_mixed(*each) for each in zip(chains, worth, strict=True)])
        return x.view(draws.shape), worth

    def sweep(self, x: Tensor, missing: Tensor, density: Tensor) -> None:
        """Visits every missing variable once, in place; ``density`` is the log-density of ``x``."""
        state = self.sequence.initial_state()
        last = max(
            (step for step, variable in enumerate(self.order) if missing[:, variable].any()), default=-1
        )
        for step, variable in enumerate(self.order[: last + 1]):
            rows = missing[:, variable].nonzero().squeeze(-1)
            if len(rows):
                conditional = self.conditional(step, state, len(x))
                visit = self.visit_levels if conditional.has_enumerate_support else self.visit_by_proposal
                visit(conditional, x, density, rows, variable)
            state = self.sequence.advance(step, state, x[:, variable].clone())

    def visit_levels(
        self, conditional: Distribution, x: Tensor, density: Tensor, rows: Tensor, variable: int
    ) -> None:
        """Draws a variable of few levels given all others."""
        levels = conditional.enumerate_support(expand=False).flatten()
        changed = x[rows].repeat(len(levels), 1, 1)
        changed[:, :, variable] = levels.unsqueeze(-1)
        joint = self.log_joint(changed.flatten(0, 1)).view(len(levels), len(rows)).T
        choice = joint.softmax(-1).multinomial(1)
        x[rows, variable] = levels[choice.squeeze(-1)]
        density[rows] = joint.gather(1, choice).squeeze(-1)

    def visit_by_proposal(
        self, conditional: Distribution, x: Tensor, density: Tensor, rows: Tensor, variable: int
    ) -> None:
        """Proposes a value from p(x_i | x_<i), which leaves the density of what comes later to decide."""
        before = x[:, variable].clone()
        proposed = conditional.sample()
        changed = x[rows]
        changed[:, variable] = proposed[rows]
        joint = self.log_joint(changed)
        own = (conditional.log_prob(proposed) - conditional.log_prob(before))[rows]
        accepted = torch.rand_like(joint).log() < joint - density[rows] - own
        rows = rows[accepted]
        x[rows, variable] = proposed[rows]
        density[rows] = joint[accepted]

    def log_joint(self, x: Tensor) -> Tensor:
        """Log-density of whole items, from their entries: shape ``(len(x),)``, float64."""
        parts = x.unflatten(-1, self.event_shape).split(self.chunk)
        return torch.cat([self.sequence.log_prob(part).double() for part in parts])


def _systematic(log_weights: Tensor, num: int) -> Tensor:
    """``num`` indices for each item by their weights, sorted: one random number places a comb of them."""
    cumulative = log_weights.softmax(-1).cumsum(-1)
    cumulative = cumulative / cumulative[:, -1:]  # ends in 1 exactly
    # In (0, 1], so that no tooth falls on a particle of weight 0.
    offset = 1 - torch.rand(len(cumulative), 1, dtype=torch.float64, device=cumulative.device)
    comb = (torch.arange(num, device=cumulative.device) + offset) / num
    return torch.searchsorted(cumulative, comb)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Particles ``(items, num, n)`` from ``(items, particles, n)``."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _resampled(lineage: _Particles, state: Any, first: Any) -> Any:
    """Resamples the items whose weights are too uneven, in place; returns the state that belongs to it."""
    items, num = lineage.log_weights.shape
    uneven = 1 / lineage.log_weights.softmax(-1).square().sum(-1) < num / 2
    if not uneven.any():
        return state
    index = torch.arange(num, device=uneven.device).repeat(items, 1)
    index[uneven] = _systematic(lineage.log_weights[uneven], num)
    lineage.log_evidence = torch.where(uneven, lineage.total_log_evidence(), lineage.log_evidence)
    lineage.log_weights[uneven] = 0.0
    lineage.values = _picked(lineage.values, index)
    lineage.ancestors = lineage.ancestors.gather(1, index)
    rows = (index + num * torch.arange(items, device=index.device).unsqueeze(-1)).flatten()
    unchanged = {id(leaf) for leaf in tree_leaves(first)}

    def reindexed(leaf: Any) -> Any:
        if leaf is None or isinstance(leaf, bool | int | float | str) or id(leaf) in unchanged:
            return leaf
        if not isinstance(leaf, Tensor) or leaf.shape[:1] != rows.shape:
            came = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(
                f"expected a state of tensors with the values' dimension of {len(rows)} in front, got {came}"
            )
        return leaf[rows]

    return tree_map(reindexed, state)


def _mixed(chains: Tensor, start: Tensor) -> Tensor:
    """What the ends of chains are worth, from their log-density ``(num, sweeps)``; at a loss, ``start``."""
    if (chains == chains[0, 0]).all():
        return start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next version
        import arviz
    worth = start.new_tensor(float(arviz.ess(chains.cpu().numpy())))
    return start if worth.isnan() else worth.clamp(min=1.0, max=len(chains))


def _by_blocks(
    model: HasBlocks,
    items: Tensor,
    observed: Tensor,
    *,
    num: int,
    sweeps: int,
    chunk: int,
    seed: int,
    progress: bool,
) -> Completion:
    """Completions by an undirected model: a clamped chain for each draw."""
    module = model if isinstance(model, nn.Module) else nn.Module()
    device = next((param.device for param in module.parameters()), items.device)
    x, seen = items.to(device), observed.to(device)
    rows = max(1, chunk // num)
    with restored_modes(module), forked_rng(device), pyro.validation_enabled(False):
        module.eval()
        torch.manual_seed(seed)
        _check_items(model, x, seen)
        parts = list(zip(x.split(rows), seen.split(rows), strict=True))
        with show_progress("completing", len(parts) * sweeps, enabled=progress) as bar:
            results = [_clamped_chains(model, *part, num, sweeps, bar) for part in parts]
    draws, worth = (torch.cat(each) for each in zip(*results, strict=True))
    unknown = torch.full((len(items),), math.nan, dtype=torch.float64)
    return Completion(
        draws=draws.movedim(1, 0).to(items.device),
        effective_sample_size=worth.cpu(),
        log_evidence=unknown,
        log_evidence_error=unknown.clone(),
        method="gibbs",
        exact=False,
    )


def _clamped_chains(
    model: HasBlocks, x: Tensor, seen: Tensor, num: int, sweeps: int, bar: Progress
) -> tuple[Tensor, Tensor]:
    """Where ``num`` chains of each item end, ``(items, num, *event_shape)``; what they are worth."""
    held = x.repeat_interleave(num, 0), seen.repeat_interleave(num, 0)
    kernel = BlockGibbs(model, clamped={"v": held})
    state = kernel.prepare(kernel.start(len(held[0])))
    trace = []
    for sweep in range(sweeps):
        state = kernel.sample(state)
        if sweep >= sweeps // 2:
            trace += [energy.double().view(len(x), num) for energy in kernel.stats(state).values()]
        bar.advance()
    worth = torch.full((len(x),), math.nan, dtype=torch.float64, device=x.device)
    if trace and sweeps >= LEAST_SWEEPS:
        worth = torch.stack([_mixed(*each) for each in zip(torch.stack(trace, -1), worth, strict=True)])
    return state["v"].unflatten(0, (len(x), num)), worth


def _check_items(model: HasBlocks, x: Tensor, seen: Tensor) -> None:
    """Checks items by a state of the model, and by its own rule where it has one."""
    start = model.initial_state(len(x))
    if "v" not in start:
        raise ValueError(f"expected an undirected model with a site v for the items, got {', '.join(start)}")
    if start["v"].shape != x.shape:
        raise ValueError(f"expected items of shape {tuple(start['v'].shape[1:])}, got {tuple(x.shape[1:])}")
    if start["v"].dtype != x.dtype:
        raise ValueError(f"expected entries of {start['v'].dtype}, got {x.dtype}")
    if callable(getattr(model, "check", None)):
        model.check(torch.where(seen, x, start["v"]))  # missing entries may hold anything


class _Replayed:
    """A Pyro program as `Sequential`: run up to the site in question, the sites before it held.

    The state is the tuple of the values so far.
    """

    def __init__(self, program: Program, num_variables: int) -> None:
        self.program = program.model
        try:
            inspect.signature(self.program).bind(num=1)
        except TypeError as error:
            raise ValueError(f"expected a program that is called with num alone: {error}") from None
        sites = sample_sites(poutine.trace(self.program).get_trace(num=2))
        if sites.keys() != {f"x_{variable}" for variable in range(num_variables)}:
            came = ", ".join(list(sites)[:5]) + (", ..." if len(sites) > 5 else "")
            raise ValueError(
                f"expected a model with a site x_i for each of the {num_variables} entries of an item and no "
                f"other, as the autoregressive ones have, got {came or 'none'}"
            )
        self.order = tuple(int(name.removeprefix("x_")) for name in sites)

    def initial_state(self) -> tuple[Tensor, ...]:
        return ()

    def conditional(self, step: int, state: tuple[Tensor, ...]) -> Distribution:
        wanted = f"x_{self.order[step]}"
        held = {f"x_{variable}": value for variable, value in zip(self.order, state, strict=False)}
        conditioned = poutine.condition(self.program, data=held)
        try:
            poutine.escape(conditioned, escape_fn=lambda site: site["name"] == wanted)(
                num=len(state[0]) if state else 1
            )
        except NonlocalExit as reached:
            return reached.site["fn"]
        raise ValueError(f"expected a program that reaches {wanted} whatever the values before it")

    def advance(self, step: int, state: tuple[Tensor, ...], value: Tensor) -> tuple[Tensor, ...]:
        return (*state, value)

    def log_prob(self, x: Tensor) -> Tensor:
        held = {f"x_{variable}": value for variable, value in enumerate(x.flatten(1).unbind(-1))}
        trace = poutine.trace(poutine.condition(self.program, data=held)).get_trace(num=len(x))
        return sum(log_prob(site) for site in sample_sites(trace).values())


@contextmanager
def _parameters(program: Program | None) -> Iterator[None]:
    """Runs what is inside on the program's parameters, and on those that plain SVI left in Pyro's store."""
    if program is None:
        with pyro.validation_enabled(False):
            yield
        return
    store = pyro.get_param_store()
    left = store.get_state()
    # A module's own parameters are in the module; a copy that the store remembers would overrule them.
    names = [name for name in left["params"] if "$$$" not in name]
    with program.scope():
        names = [name for name in names if name not in store]
        store.set_state({part: {name: left[part][name] for name in names} for part in left})
        yield


def _checked_mask(items: Any, observed: Any) -> Tensor:
    """The mask, one for each item; checks it, and the items as far as it takes no model."""
    if not isinstance(items, Tensor):
        raise ValueError(f"expected a tensor of items, got {type(items).__name__}")
    if items.dim() < 2 or items.numel() == 0:
        raise ValueError(f"expected items of shape (batch, *event_shape), got {tuple(items.shape)}")
    if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
        came = observed.dtype if isinstance(observed, Tensor) else type(observed).__name__
        raise ValueError(f"expected observed to be a tensor of bool, got {came}")
    if observed.shape not in (items.shape, items.shape[1:]):
        raise ValueError(
            f"expected observed of shape {tuple(items.shape[1:])} or {tuple(items.shape)}, "
            f"got {tuple(observed.shape)}"
        )
    observed = observed.to(items.device).expand(items.shape)
    if items.is_floating_point() and not items[observed].isfinite().all():
        raise ValueError(
            f"expected finite numbers where observed, got NaN or infinity in "
            f"{int((~items[observed].isfinite()).sum())} of the entries"
        )
    return observed


def _check_shape(sequence: Sequential, items: Tensor) -> None:
    expected = tuple(getattr(sequence, "event_shape", items.shape[1:]))
    if items.shape[1:] != expected or items[0].numel() != len(sequence.order):
        raise ValueError(f"expected items of shape {expected}, got {tuple(items.shape[1:])}")


def _check_entries(sequence: Sequential, entries: Tensor, observed: Tensor, first_item: int) -> None:
    """Checks observed entries against the support of their sites, by one pass that draws the others."""
    state, num = sequence.initial_state(), len(entries)
    for step, variable in enumerate(sequence.order):
        conditional = sequence.conditional(step, state)
        if conditional.event_shape or conditional.batch_shape not in ((), (1,), (num,)):
            shape = tuple(conditional.batch_shape + conditional.event_shape)
            raise ValueError(
                f"expected x_{variable} to be a number for each of {num} items, got shape {shape}"
            )
        drawn = conditional.expand((num,)).sample()
        if drawn.dtype != entries.dtype:
            raise ValueError(f"expected entries of {drawn.dtype}, got {entries.dtype}")
        held = observed[:, variable]
        value = torch.where(held, entries[:, variable], drawn)
        outside = (held & ~conditional.support.check(value)).nonzero()
        # Bounds that are tensors may depend on what was drawn just now: the weights will tell.
        fixed = not any(isinstance(bound, Tensor) for bound in vars(conditional.support).values())
        if fixed and len(outside):
            item = int(outside[0])
            support = " ".join(str(conditional.support).split())
            raise ValueError(
                f"expected x_{variable} in {support}, got {value[item].item():g} in item {first_item + item}"
            )
        state = sequence.advance(step, state, value)
