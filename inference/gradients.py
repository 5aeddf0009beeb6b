"""How good estimators of a gradient are: bias and variance of each, against the exact one."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from inference.program import Batch, arguments, check_counts, forked_rng, restored_modes
from inference.progress import progress as show_progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM_UP = 10
"""Draws that are not counted: a baseline has then seen something, and what runs once has run."""


@dataclass(frozen=True)
class GradientEstimate:
    """One estimator of a gradient, over many draws.

    Attributes:
        name: What it was called.
        mean: Its mean, all the parameters in one vector, float64; nats per unit of a parameter.
        coordinate_variance: The variance of each entry.
        exact: The exact gradient, None where it was not given.
        repeats: How many draws.
        seconds: Time for one, forward and backward.
        bias: Why it is biased where it says so of itself, else None.
        resolution: Differences that rounding alone may make.
        entry: Which entry was kept of every draw, and its name.
        draws: That entry, shape ``(repeats,)``.
    """

    name: str
    mean: Tensor
    coordinate_variance: Tensor
    exact: Tensor | None
    repeats: int
    seconds: float
    bias: str | None
    resolution: float
    entry: tuple[int, str]
    draws: Tensor

    @property
    def variance(self) -> float:
        """Trace of the covariance, in nats²."""
        return self.coordinate_variance.sum().item()

    @property
    def standard_error(self) -> Tensor:
        """Of each entry of the mean."""
        return (self.coordinate_variance / self.repeats).sqrt()

    @property
    def bias_norm(self) -> float:
        """‖mean - exact‖, the error of the mean included; NaN where the exact one is not known."""
        return math.nan if self.exact is None else (self.mean - self.exact).norm().item()

    @property
    def deviation(self) -> float:
        """Largest |mean - exact| of an entry, in its standard errors; NaN without the exact one."""
        if self.exact is None:
            return math.nan
        error = (self.standard_error.square() + self.resolution**2).sqrt()
        return ((self.mean - self.exact).abs() / error).max().item()

    @property
    def signal_to_noise(self) -> float:
        """‖mean‖ over the root of `variance`; infinite where each draw is the same."""
        return self.mean.norm().item() / math.sqrt(self.variance) if self.variance else math.inf


@dataclass(frozen=True)
class GradientComparison(Sequence[GradientEstimate]):
    """What `gradient_variance` found, in the order asked for; also by name, and as a table by ``print``."""

    estimates: tuple[GradientEstimate, ...]

    @overload
    def __getitem__(self, key: int | str) -> GradientEstimate: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[GradientEstimate, ...]: ...

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return {estimate.name: estimate for estimate in self.estimates}[key]
        return self.estimates[key]

    def __len__(self) -> int:
        return len(self.estimates)

    def __iter__(self) -> Iterator[GradientEstimate]:
        return iter(self.estimates)

    def __str__(self) -> str:
        rows = [("", "variance, nats²", "signal/noise", "|bias|", "largest, SE", "ms", "")]
        for estimate in self.estimates:
            known = estimate.exact is not None
            rows.append(
                (
                    estimate.name,
                    f"{estimate.variance:.3g}",
                    f"{estimate.signal_to_noise:.3g}",
                    f"{estimate.bias_norm:.2g}" if known else "-",
                    f"{estimate.deviation:.1f}" if known else "-",
                    f"{1000 * estimate.seconds:.2f}",
                    f"biased: {estimate.bias}" if estimate.bias else "",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def draw(self) -> "Figure":
        """Draws of one entry of the gradient beside each other, and the variances on a logarithmic scale."""
        import numpy as np
        from matplotlib.figure import Figure

        names = [estimate.name for estimate in self.estimates]
        index, entry = self.estimates[0].entry
        figure = Figure(figsize=(10.0, 1.4 + 0.5 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        ends = [torch.quantile(e.draws, torch.tensor([0.005, 0.995]).double()) for e in self.estimates]
        low, high = min(end[0].item() for end in ends), max(end[1].item() for end in ends)
        margin = 0.05 * (high - low) or 1.0
        edges = np.linspace(low - margin, high + margin, 121)
        for place, estimate in enumerate(self.estimates):
            counts, _ = np.histogram(estimate.draws.clamp(low, high).numpy(), edges)
            half = 0.42 * np.append(counts, 0) / max(counts.max(), 1)
            left.fill_between(edges, place - half, place + half, step="post", color=f"C{place % 10}")
        if self.estimates[0].exact is not None:
            exact = self.estimates[0].exact[index].item()
            left.axvline(exact, color="black", linewidth=1, linestyle="dashed", label="exact")
            left.legend(fontsize=8)
        left.set(xlabel=f"∂ loss / ∂ {entry}", title="one entry of the gradient, draw by draw")
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()

        variances = [estimate.variance for estimate in self.estimates]
        positive = [value for value in variances if value > 0] or [1.0]
        floor = min(positive) / 3
        colours = [f"C{place % 10}" for place in range(len(names))]
        right.barh(range(len(names)), [max(value, floor) for value in variances], color=colours)
        right.set(xscale="log", xlabel="nats²", title="variance of the gradient, all entries")
        right.set_xlim(floor, 6 * max(positive))
        for place, value in enumerate(variances):
            text = f" {value:.2g}" if value else " none"
            right.text(max(value, floor), place, text, va="center", fontsize=8)
        return figure


def gradient_variance(
    objectives: Mapping[str, nn.Module],
    batch: Batch,
    *,
    exact: nn.Module | Callable[[Batch], Tensor] | None = None,
    repeats: int = 1000,
    seed: int = 0,
    params: Sequence[str] | None = None,
    progress: bool = True,
) -> GradientComparison:
    """Measures mean and variance of several gradient estimators on one batch, at the parameters as they are.

    Each draws from the same seed. Parameters, their ``.grad``, buffers, modes and torch's generators are left
    as they were; objectives are in training mode while they are measured.

    Args:
        objectives: By name, over the same parameters: those of the same modules or ``pyro.param`` statements.
        batch: As the programs take it.
        exact: What the mean should be the gradient of: an objective without randomness, for instance
            ``ELBO(…, gradient="enumerated")``, or a function of the batch that gives the loss in closed form
            from the parameters of the first objective. None measures no bias.
        repeats: Draws of each, at least 2.
        seed: Seed of the draws.
        params: Names of the parameters whose gradient counts, without those of the modules that they are in
            (``"decoder.weight"``, or the name in ``pyro.param``); None is all.
        progress: Whether to show a bar.

    Raises:
        ValueError: If there are no objectives, their parameters differ, one alternates between parameters, a
            gradient is not finite, or an argument is out of its range.

    References:
        | Monte Carlo Gradient Estimation in Machine Learning (Mohamed, Rosca, Figurnov & Mnih, 2020)

    Example:
        >>> import inference, zoo
        >>> x = zoo.load("digits").train.x[:8]
        >>> vae = zoo.VAE((8, 8), latent_dim=2, hidden=(8,))
        >>> found = gradient_variance(
        ...     {name: inference.ELBO(vae, gradient=name) for name in ("reparameterized", "score-function")},
        ...     x,
        ...     repeats=20,
        ...     progress=False,
        ... )
        >>> found["reparameterized"].variance < found["score-function"].variance
        True
    """
    check_counts(repeats=repeats)
    if repeats < 2 or not objectives:
        raise ValueError(f"expected objectives and at least 2 repeats, got {len(objectives)} and {repeats}")
    device = arguments(batch)[0].device
    with forked_rng(device):
        torch.manual_seed(seed)
        modules = [*objectives.values(), *([exact] if isinstance(exact, nn.Module) else [])]
        for objective in modules:
            if getattr(objective, "alternates", False):
                raise ValueError(
                    f"expected objectives whose steps move all parameters, got {type(objective).__name__}"
                )
            if hasattr(objective, "prepare"):
                objective.prepare(batch)
        names = _shared_parameters(objectives, params)
        target = None
        if exact is not None:
            first = next(iter(objectives.values()))
            owned = named_parameters(exact if isinstance(exact, nn.Module) else first)
            missing = [name for name in names if name not in owned]
            if missing:
                raise ValueError(f"expected an exact gradient of all parameters, got none of {missing[0]}")
            target = _gradient(exact, batch, [owned[name] for name in names])
        estimates: list[GradientEstimate] = []
        with show_progress("drawing gradients", len(objectives) * repeats, enabled=progress) as bar:
            for name, objective in objectives.items():
                of_all = named_parameters(objective)
                leaves = [of_all[name] for name in names]
                kept = {key: value.clone() for key, value in objective.state_dict().items()}
                torch.manual_seed(seed)
                with restored_modes(objective):
                    objective.train()
                    warm = [_gradient(objective, batch, leaves) for _ in range(WARM_UP)]
                    if estimates:
                        index = estimates[0].entry[0]
                    else:
                        index = int((sum(warm) if target is None else target).abs().argmax())
                    mean, squares = torch.zeros_like(warm[0]), torch.zeros_like(warm[0])
                    draws = torch.empty(repeats, dtype=torch.float64)
                    seconds = 0.0
                    for number in range(repeats):
                        started = time.perf_counter()
                        gradient = _gradient(objective, batch, leaves)
                        seconds += time.perf_counter() - started
                        draws[number] = gradient[index]
                        # Welford's: no more memory for more draws, and no cancellation.
                        difference = gradient - mean
                        mean = mean + difference / (number + 1)
                        squares = squares + difference * (gradient - mean)
                        bar.advance(name)
                with torch.no_grad():
                    for key, value in objective.state_dict().items():
                        value.copy_(kept[key])
                if not mean.isfinite().all():
                    raise ValueError(f"the gradient of {name} is not finite")
                size = max(1.0, mean.abs().max().item())
                estimates.append(
                    GradientEstimate(
                        name=name,
                        mean=mean,
                        coordinate_variance=squares / (repeats - 1),
                        exact=target,
                        repeats=repeats,
                        seconds=seconds / repeats,
                        bias=getattr(objective, "bias", None),
                        resolution=10 * size * torch.finfo(leaves[0].dtype).eps,
                        entry=(index, _entry_name(dict(zip(names, leaves, strict=True)), index)),
                        draws=draws,
                    )
                )
    return GradientComparison(tuple(estimates))


def named_parameters(objective: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of an objective by the names that its programs have for them."""
    program = getattr(objective, "program", None)
    if program is None:
        return {name: param for name, param in objective.named_parameters() if param.requires_grad}
    named: dict[str, nn.Parameter] = {}
    single = len(program.owners) == 1
    for name, param in program.owners.named_parameters():
        named[name.partition(".")[2] if single else name] = param
    named |= dict(zip(program._free_names, program.free_parameters, strict=True))
    return {name: param for name, param in named.items() if param.requires_grad}


def _shared_parameters(objectives: Mapping[str, nn.Module], params: Sequence[str] | None) -> list[str]:
    """The names of the parameters, the same in all of the objectives."""
    (first, of_first), *others = [(name, named_parameters(value)) for name, value in objectives.items()]
    for name, of_other in others:
        same = of_first.keys() == of_other.keys() and all(
            param is of_other[key] or torch.equal(param, of_other[key]) for key, param in of_first.items()
        )
        if not same:
            raise ValueError(f"expected objectives over the same parameters, and {first} and {name} differ")
    unknown = [name for name in params or () if name not in of_first]
    if unknown or not of_first or (params is not None and not params):
        known = ", ".join(of_first) or "none there is"
        raise ValueError(f"params must be some of {known}, got {', '.join(unknown) or 'none'}")
    return list(of_first if params is None else params)


def _gradient(loss: Callable[[Batch], Tensor], batch: Batch, params: Sequence[nn.Parameter]) -> Tensor:
    """The gradient as one vector, float64, 0 where it does not reach."""
    grads = torch.autograd.grad(loss(batch), params, allow_unused=True)
    found = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
    return torch.cat([value.detach().double().cpu().flatten() for value in found])


def _entry_name(params: Mapping[str, Tensor], index: int) -> str:
    for name, param in params.items():
        if index < param.numel():
            place = torch.unravel_index(torch.tensor(index), param.shape) if param.dim() else ()
            return f"{name}[{', '.join(str(int(at)) for at in place)}]" if place else name
        index -= param.numel()
    raise IndexError(index)
