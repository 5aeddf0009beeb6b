"""Maximum mean discrepancy: how far two sets of items lie apart, seen through a kernel."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.program import check_counts

KernelFunction = Callable[[Tensor, Tensor], Tensor]
"""k(x, y) of items ``(n, d)`` and ``(m, d)``: a tensor ``(n, m)``, symmetric and positive definite."""

MEDIAN_OF = 1000
"""Items of each set, evenly spaced, whose distances the median heuristic looks at."""

ROWS = 2_000_000
"""Entries of the kernel matrix that are held at a time where there is no gradient."""


@dataclass(frozen=True)
class _RadialKernel:
    scale: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        scales = self._scales()
        if self.scale is not None and (not scales or not all(0 < s < math.inf for s in scales)):
            raise ValueError(
                f"{type(self).__name__} expects scale to be None, a number above 0 or several of them, got "
                f"{self.scale!r}"
            )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The kernel of every pair, shape ``(n, m)``, for items ``(n, d)`` and ``(m, d)``."""
        if self.scale is None:
            return self.settled(x, y)(x, y)
        squares = squared_distances(x, y)
        scales = self._scales()
        total = self._of(squares / scales[0] ** 2)
        for scale in scales[1:]:
            total = total + self._of(squares / scale**2)
        return total / len(scales)

    def settled(self, x: Tensor, y: Tensor) -> "_RadialKernel":
        """The same kernel, its scale settled by the median heuristic where it has none yet."""
        return self if self.scale is not None else type(self)(median_distance(x, y))

    def _scales(self) -> tuple[float, ...]:
        return tuple(self.scale) if isinstance(self.scale, Sequence) else (self.scale or 0.0,)

    def _of(self, squares: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class RBF(_RadialKernel):
    """Gaussian kernel: k(x, y) = exp(-‖x - y‖² / 2s²).

    Args:
        scale: s, in the units of the items; several give the mean of their kernels; None the median distance
            between the items of both sets.

    Raises:
        ValueError: If a scale is not above 0.

    References:
        | A Kernel Two-Sample Test (Gretton et al., 2012), section 8 for the median heuristic

    Example:
        >>> RBF(scale=1.0)(torch.zeros(1, 2), torch.ones(3, 2)).shape
        torch.Size([1, 3])
    """

    def _of(self, squares: Tensor) -> Tensor:
        return (-squares / 2).exp()


@dataclass(frozen=True)
class InverseMultiquadratic(_RadialKernel):
    """Inverse multiquadratic kernel: k(x, y) = s² / (s² + ‖x - y‖²).

    Its tails are heavier than a Gaussian's: an item far from all others still feels which way they are, so
    that codes which start far from the prior find to it.

    Args:
        scale: s, in the units of the items; several give the mean of their kernels; None the median distance
            between the items of both sets.

    Raises:
        ValueError: If a scale is not above 0.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly & Schölkopf, 2018), section 4: C = s²
        | https://arxiv.org/abs/1711.01558

    Example:
        >>> InverseMultiquadratic(scale=1.0)(torch.zeros(1, 2), torch.ones(1, 2)).item()
        0.3333...
    """

    def _of(self, squares: Tensor) -> Tensor:
        return 1 / (1 + squares)


KERNELS: dict[str, Callable[..., KernelFunction]] = {
    "rbf": RBF,
    "inverse-multiquadratic": InverseMultiquadratic,
}
"""The kernels by the names that a recipe has for them."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i - y_j‖² of items ``(n, d)`` and ``(m, d)``, shape ``(n, m)``, in float64."""
    middle = y.detach().mean(0).double()  # keeps the squares small, so that little cancels
    x, y = x.double() - middle, y.double() - middle
    return (x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T).clamp(min=0)


@torch.no_grad()
def median_distance(x: Tensor, y: Tensor) -> float:
    """Median distance between the items of both sets: the mean where that is 0, and 1 where all coincide."""
    both = torch.cat([values[:: -(-len(values) // MEDIAN_OF)] for values in (x, y)])
    first, second = torch.triu_indices(len(both), len(both), offset=1, device=both.device)
    distances = squared_distances(both, both)[first, second].sqrt()
    return distances.median().item() or distances.mean().item() or 1.0


def mmd2(x: Tensor, y: Tensor, kernel: KernelFunction) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy between what two sets were drawn from.

        1/n(n-1) Σ_{i≠j} k(x_i, x_j) + 1/m(m-1) Σ_{i≠j} k(y_i, y_j) - 2/nm Σ_{ij} k(x_i, y_j)

    It is differentiable, and below 0 about half the time where the two are the same. A kernel's value has no
    unit, and neither has this. A scale that is the median of both sets leaves the mean at 0 there, because it
    does not know which item is in which set.

    Args:
        x: Items, ``(n, *event_shape)``, at least 2.
        y: Others, ``(m, *event_shape)``, at least 2.
        kernel: k; `RBF`, `InverseMultiquadratic`, or any other.

    Returns:
        A number, in the type of ``x``; summed in float64.

    Raises:
        ValueError: If the sets are too small or their items differ in shape.

    References:
        | A Kernel Two-Sample Test (Gretton et al., 2012), lemma 6
        | https://jmlr.org/papers/v13/gretton12a.html

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> mmd2(x[:250], x[250:], RBF(1.0)).abs().item() < 0.01
        True
        >>> mmd2(x[:250], x[250:] + 1, RBF(1.0)).item() > 0.1
        True
    """
    n, m = check_pair(x, y, at_least=2)
    flat_x, flat_y = x.flatten(1), y.flatten(1)
    kernel = _settled(kernel, flat_x, flat_y)
    within = _off_diagonal(kernel(flat_x, flat_x)) / (n * (n - 1))
    within = within + _off_diagonal(kernel(flat_y, flat_y)) / (m * (m - 1))
    return (within - 2 * kernel(flat_x, flat_y).double().mean()).to(x.dtype)


@dataclass(frozen=True)
class MMDEstimate:
    """What `maximum_mean_discrepancy` returns.

    Attributes:
        value: The unbiased estimate of MMD², without a unit; it may lie below 0.
        standard_error: Its standard deviation, estimated.
        p_value: Share of the permutations, itself among them, whose MMD² is as large: how probable it would
            be if both sets came from the same distribution. None where no permutation was asked for.
    """

    value: float
    standard_error: float
    p_value: float | None = None

    def __str__(self) -> str:
        tested = "" if self.p_value is None else f" (p = {self.p_value:.3g})"
        return f"MMD² {self.value:.4g} ± {self.standard_error:.2g}{tested}"


@torch.no_grad()
def maximum_mean_discrepancy(
    x: Tensor,
    y: Tensor,
    kernel: KernelFunction | None = None,
    *,
    permutations: int = 0,
    seed: int = 0,
) -> MMDEstimate:
    """Squared maximum mean discrepancy of two sets of items, with its error and a permutation test.

    With a(x) = E k(x, X') - E k(x, Y), b(y) likewise, and k̃ what is left of a kernel less its conditional
    means, the variance of the unbiased estimate is, at any n and m,

        4/n Var a(X) + 4/m Var b(Y) + 2/n(n-1) Var k̃(X, X') + 2/m(m-1) Var k̃(Y, Y') + 4/nm Var k̃(X, Y).

    Each is estimated without bias, from sums over distinct items. Where both sets are of one distribution the
    first two vanish, and an estimate of them that falls below 0 is taken for 0: the variance is then some
    60 % too large on average, rather than nothing at all now and then.

    Args:
        x: Items, ``(n, *event_shape)``, at least 4.
        y: Others, ``(m, *event_shape)``, at least 4.
        kernel: k; None is `RBF` with the median distance as its scale.
        permutations: How often the items are dealt out anew to the two sets, for the p-value; 0 does not.
        seed: Seed of the permutations.

    Raises:
        ValueError: If the sets are too small, their items differ in shape or are not finite, or
            ``permutations`` is below 0.

    References:
        | A Kernel Two-Sample Test (Gretton et al., 2012), lemma 6, section 6 for the test
        | Unbiased estimators for the variance of MMD estimators (Sutherland & Deka, 2019), for n = m
        | https://arxiv.org/abs/1906.02104

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> estimate = maximum_mean_discrepancy(x[:200], x[200:] + 1, permutations=99)
        >>> estimate.value > 5 * estimate.standard_error, estimate.p_value
        (True, 0.01)
    """
    n, m = check_pair(x, y, at_least=4)
    if permutations:
        check_counts(permutations=permutations)
    for values in (x, y):
        if not values.isfinite().all():
            raise ValueError("the maximum mean discrepancy expects finite items, got NaN or infinity")
    items = torch.cat([x.flatten(1), y.flatten(1).to(x)])
    kernel = _settled(RBF() if kernel is None else kernel, items[:n], items[n:])

    # Who is in the first set: as given, and in every permutation.
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(1 + permutations, n + m, dtype=torch.float64)
    first[0, :n] = 1
    for row in first[1:]:
        row[torch.randperm(n + m, generator=generator)[:n]] = 1
    first = first.to(items.device)
    among, from_first = first.new_zeros(2, 1 + permutations)  # Σ k within the first set, and from it to all
    sums, squares = first.new_zeros(2, n + m, 2)  # of the kernel of each item with those of x and of y
    for rows in torch.arange(n + m, device=items.device).split(max(1, ROWS // (n + m))):
        k = kernel(items[rows], items).double()
        k[torch.arange(len(rows), device=k.device), rows] = 0  # an item's with itself
        sums[rows] = torch.stack([k[:, :n].sum(1), k[:, n:].sum(1)], dim=1)
        squares[rows] = torch.stack([k[:, :n].square().sum(1), k[:, n:].square().sum(1)], dim=1)
        among += ((k @ first.T).T * first[:, rows]).sum(1)
        from_first += first[:, rows] @ k.sum(1)
    across = from_first - among
    among_second = sums.sum() - 2 * from_first + among
    values = among / (n * (n - 1)) + among_second / (m * (m - 1)) - 2 * across / (n * m)
    variance = _variance(sums[:n], squares[:n], sums[n:].flip(1), squares[n:].flip(1))
    p_value = None
    if permutations:
        # What differs by rounding alone is as large.
        as_large = values[1:] >= values[0] - 1e-12
        p_value = (1 + as_large.sum().item()) / (1 + permutations)
    return MMDEstimate(values[0].item(), math.sqrt(variance), p_value)


def _variance(x_sums: Tensor, x_squares: Tensor, y_sums: Tensor, y_squares: Tensor) -> float:
    """Variance of the estimate, from each item's kernel sums with its own set and with the other.

    Args:
        x_sums: ``(n, 2)``: Σ_j k(x_i, x_j) without j = i, and Σ_j k(x_i, y_j).
        x_squares: The same of k².
        y_sums: ``(m, 2)``: with its own set, and with that of x.
        y_squares: The same of k².
    """
    n, m = len(x_sums), len(y_sums)
    across, across_squares = x_sums[:, 1].sum(), x_squares[:, 1].sum()
    x_lines, y_lines = x_sums[:, 1].square().sum(), y_sums[:, 1].square().sum()
    # E k(x, y) k(x, y'), E k(x, y) k(x', y) and (E k(x, y))², of distinct items.
    by_x = (x_lines - across_squares) / (n * m * (m - 1))
    by_y = (y_lines - across_squares) / (m * n * (n - 1))
    mean_squared = (across**2 - x_lines - y_lines + across_squares) / (n * (n - 1) * m * (m - 1))
    linear, rest = across.new_zeros(2)
    for sums, squares, size, other, by_own in (
        (x_sums, x_squares, n, m, by_x),
        (y_sums, y_squares, m, n, by_y),
    ):
        total, own_squares, lines = sums[:, 0].sum(), squares[:, 0].sum(), sums[:, 0].square().sum()
        pairs = size * (size - 1)
        shared = (lines - own_squares) / (pairs * (size - 2))  # E k(x, x') k(x, x'')
        own_squared = (total**2 - 4 * lines + 2 * own_squares) / (pairs * (size - 2) * (size - 3))
        meeting = (sums[:, 0] * sums[:, 1]).sum()  # k(x, x') k(x, y)
        mixed = meeting / (pairs * other)
        means = (total * across - 2 * meeting) / (pairs * (size - 2) * other)
        linear += 4 / size * ((shared - own_squared) + (by_own - mean_squared) - 2 * (mixed - means))
        rest += 2 / pairs * (own_squares / pairs - 2 * shared + own_squared).clamp(min=0)
    rest += 4 / (n * m) * (across_squares / (n * m) - by_x - by_y + mean_squared).clamp(min=0)
    return (linear.clamp(min=0) + rest).item()


def check_pair(x: Any, y: Any, *, at_least: int) -> tuple[int, int]:
    """The sizes of two sets of items that can be compared.

    Raises:
        ValueError: If they are no tensors of items of one shape, or one is too small.
    """
    for values in (x, y):
        if not isinstance(values, Tensor) or values.dim() < 2 or not values.is_floating_point():
            came = f"{values.dtype} of {tuple(values.shape)}" if isinstance(values, Tensor) else type(values)
            raise ValueError(
                f"expected two floating-point tensors of items, (number, *shape of one), got {came}"
            )
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"expected two sets of items of one shape, got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}"
        )
    if min(len(x), len(y)) < at_least:
        raise ValueError(f"expected at least {at_least} items in each set, got {len(x)} and {len(y)}")
    return len(x), len(y)


def _settled(kernel: KernelFunction, x: Tensor, y: Tensor) -> KernelFunction:
    return kernel.settled(x, y) if isinstance(kernel, _RadialKernel) else kernel


def _off_diagonal(k: Tensor) -> Tensor:
    return k.double().sum() - k.double().diagonal().sum()
