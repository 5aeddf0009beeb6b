"""How draws compare with real items where there is no likelihood to compare.

Each figure sees another fault, and none sees all: the Fréchet distance the mean and the covariance of
features, the two-sample test whatever its classifier can tell, precision the draws that are like no real
item, recall the real items that no draw is like, the covered modes what a collapsed generator has left out.
The maximum mean discrepancy is in `inference.mmd`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inference.mmd import median_distance
from inference.program import check_counts

RIDGE = 0.1
"""Of the two-sample test: what kernel ridge regression takes from the weights."""

AT_A_TIME = 1000
"""Items whose distances to all the others are held at once."""


@dataclass(frozen=True)
class TwoSampleTest:
    """What a classifier makes of two sets of items, on items that it was not fitted on.

    Attributes:
        accuracy: Share whose set it tells: 0.5 where it cannot, 1 where it always can.
        standard_error: Of the accuracy, as that of so many independent answers.
        p_value: How often labels dealt out at random would be told as well or better. It is at least
            1 / (1 + permutations).
    """

    accuracy: float
    standard_error: float
    p_value: float


class PrecisionRecall(NamedTuple):
    """``precision``: share of draws among the real items; ``recall``: share of real items among the draws."""

    precision: float
    recall: float


@dataclass(frozen=True)
class ModeCoverage:
    """Which modes of a mixture the draws come from.

    Attributes:
        covered: Modes that have draws enough.
        share_of_good_draws: Share of the draws that lie near a mode, in 0 to 1.
        counts: Draws near each mode, int64, shape ``(modes,)``.
    """

    covered: int
    share_of_good_draws: float
    counts: Tensor


@torch.no_grad()
def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians that have the means and covariances of two sets.

        |μ_x - μ_y|² + tr(Σ_x + Σ_y - 2 (Σ_x Σ_y)^½)

    With Σ_x = R_xᵀ R_x the trace of the root is the sum of the singular values of R_x R_yᵀ, so that no root
    of a matrix is taken and a covariance without full rank does no harm.

    It is biased upwards, by about (1/n + 1/m) (d + 5) / 4 · σ² d for round Gaussians, and so above 0 for two
    sets of one law: compare figures of equal n and m only, and with that of real items against real ones.

    Args:
        x: Features of some items, shape ``(n, d)``; what has more dimensions is made flat.
        y: Of others, shape ``(m, d)``.

    Returns:
        The distance, in the square of the features' unit; 0 or more.

    Raises:
        ValueError: If the shapes do not match, a set has fewer than 2 items, or an entry is no finite number.

    References:
        | GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al.,
          2017), equation 6
        | The Fréchet distance between multivariate normal distributions (Dowson & Landau, 1982)

    Example:
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0])), 3)
        25.0
    """
    x, y = _two_sets(x, y, least=2)
    return _frechet(x, y)


@torch.no_grad()
def frechet_error(x: Tensor, y: Tensor, *, groups: int = 25) -> float:
    """Standard error of `frechet_distance`, by the jackknife: what leaving out a group of items changes.

        σ̂² = Σ_sets (g - 1)/g Σ_i (d_i - d̄)²,    d_i without the i-th of g groups of a set.

    It says how far the figure scatters from set to set; the bias is no part of it. Where both sets are of one
    law it is about half too large, as the figure is then a square.

    Args:
        x: Features of some items, shape ``(n, d)``, in no particular order: neighbours form a group.
        y: Of others, shape ``(m, d)``.
        groups: g, at least 2; of a set with fewer items, as many as it has.

    Raises:
        ValueError: If the shapes do not match, a set has fewer than 4 items, an entry is no finite number, or
            ``groups`` is below 2.

    References:
        | The jackknife estimate of variance (Efron & Stein, 1981), which shows that it is not too small

    Example:
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> 0.1 < frechet_error(x[:500], x[500:] + 3.0) < 1.0
        True
    """
    x, y = _two_sets(x, y, least=4)
    if groups < 2:
        raise ValueError(f"groups must be at least 2, got {groups}")
    variance = 0.0
    for changed, other in ((x, y), (y, x)):
        parts = torch.arange(len(changed)).tensor_split(min(groups, len(changed)))
        kept = torch.ones(len(parts), len(changed), dtype=torch.bool)
        for row, part in zip(kept, parts, strict=True):
            row[part] = False
        distances = torch.tensor([_frechet(changed[row], other) for row in kept], dtype=torch.float64)
        variance += (len(parts) - 1) * distances.var(correction=0).item()
    return variance**0.5


@torch.no_grad()
def classifier_two_sample_test(
    x: Tensor, y: Tensor, *, seed: int = 0, folds: int = 5, permutations: int = 1000
) -> TwoSampleTest:
    """Whether two sets of items come from one law, by whether a classifier can tell them apart.

    The classifier is kernel ridge regression on the labels ±1, with a Gaussian kernel of the median distance;
    each item is classified by a fit on the other folds. As those fits are linear in the labels, one pass does
    them for every permutation of the labels as well, and the p-value is exact for any number of items: the
    binomial one is not, since the folds' answers hang together.

    Args:
        x: Items of one set, shape ``(n, ...)``.
        y: Of the other, shape ``(m, ...)``; of the larger set as many are taken at random as the smaller has.
        seed: Of that choice, of the folds, and of the permutations.
        folds: Of the cross-validation, at least 2.
        permutations: Of the labels, within each fold, at least 1.

    Raises:
        ValueError: If the shapes do not match, a set has fewer items than there are folds, an entry is no
            finite number, or a number is out of range.

    References:
        | Revisiting classifier two-sample tests (Lopez-Paz & Oquab, 2017), section 3

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> test = classifier_two_sample_test(x[:100], x[100:] + 2.0, seed=0)
        >>> test.accuracy > 0.8, test.p_value < 0.01
        (True, True)
    """
    import numpy as np
    from sklearn.kernel_ridge import KernelRidge

    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    check_counts(permutations=permutations)
    x, y = _two_sets(x, y, least=folds)
    rng = np.random.default_rng(seed)
    num = min(len(x), len(y))
    sets = [items.numpy()[rng.permutation(len(items))[:num]] for items in (x, y)]
    items, labels = np.concatenate(sets), np.repeat([1.0, -1.0], num)
    fold_of = np.tile(np.arange(num) % folds, 2)  # each has as many of both

    dealt = np.tile(labels[:, None], 1 + permutations)  # the first column stays as it is
    for fold in range(folds):
        inside = np.flatnonzero(fold_of == fold)
        dealt[inside, 1:] = rng.permuted(dealt[inside, 1:], axis=0)
    gamma = 0.5 / median_distance(x, y) ** 2
    right = np.zeros(1 + permutations)
    for fold in range(folds):
        learn, told = fold_of != fold, fold_of == fold
        classifier = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=gamma)
        scores = classifier.fit(items[learn], dealt[learn]).predict(items[told])
        right += np.where(scores == 0, 0.5, scores * dealt[told] > 0).sum(0)
    accuracy = float(right[0]) / (2 * num)
    return TwoSampleTest(
        accuracy=accuracy,
        standard_error=(accuracy * (1 - accuracy) / (2 * num)) ** 0.5,
        p_value=float(1 + (right[1:] >= right[0]).sum()) / (1 + permutations),
    )


@torch.no_grad()
def precision_recall(real: Tensor, drawn: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Share of draws that are like real items, and share of real items that draws are like.

    A set's manifold is the union of balls around its items, each as far as its k-th nearest neighbour in the
    set. Precision is the share of draws in that of the real items, recall that of real items in the draws'.

    Args:
        real: Features of real items, shape ``(n, d)``; what has more dimensions is made flat.
        drawn: Of draws, shape ``(m, d)``; m = n is fair, since a manifold grows with the items.
        k: Which neighbour, at least 1.

    Raises:
        ValueError: If the shapes do not match, a set has no more than ``k`` items, an entry is no finite
            number, or ``k`` is below 1.

    References:
        | Improved precision and recall metric for assessing generative models (Kynkäänniemi et al., 2019),
          equations 1 and 2

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> precision, recall = precision_recall(x, 0.1 * x)  # a collapsed generator: all good, few covered
        >>> precision > 0.95, recall < 0.2
        (True, True)
    """
    check_counts(k=k)
    real, drawn = _two_sets(real, drawn, least=k + 1, names=("real", "drawn"))
    return PrecisionRecall(_share_inside(drawn, real, k), _share_inside(real, drawn, k))


@torch.no_grad()
def modes_covered(
    draws: Tensor, modes: Tensor, scale: float, *, radius: float = 3.0, least_share: float = 0.0
) -> ModeCoverage:
    """Which modes of a mixture of round Gaussians the draws come from.

    A draw is good where it lies within ``radius`` standard deviations of the mode that is nearest to it. A
    mode is covered where it has a good draw, and its good draws are at least ``least_share`` of all draws.

    Args:
        draws: Shape ``(num, d)``.
        modes: Their means, shape ``(modes, d)``.
        scale: Standard deviation of each entry around its mode, above 0.
        radius: In standard deviations, above 0.
        least_share: Of all draws, in 0 to 1.

    Raises:
        ValueError: If the shapes do not match, a set is empty, an entry is no finite number, or a number is
            out of range.

    References:
        | VEEGAN: reducing mode collapse in GANs using implicit variational learning (Srivastava et al.,
          2017), section 4.1

    Example:
        >>> modes = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        >>> modes_covered(torch.tensor([[0.1, 0.0], [2.0, 0.0]]), modes, scale=0.1)
        ModeCoverage(covered=1, share_of_good_draws=0.5, counts=tensor([1, 0]))
    """
    if not (0 < scale < float("inf") and 0 < radius < float("inf")):
        raise ValueError(f"scale and radius must be above 0 and finite, got {scale} and {radius}")
    if not 0 <= least_share <= 1:
        raise ValueError(f"least_share must lie in 0 to 1, got {least_share}")
    draws, modes = _two_sets(draws, modes, least=1, names=("draws", "modes"))
    distances, nearest = zip(
        *(_distances(some, modes).min(1) for some in draws.split(AT_A_TIME)), strict=True
    )
    good = torch.cat(distances) <= radius * scale
    counts = torch.cat(nearest)[good].bincount(minlength=len(modes))
    covered = (counts > 0) & (counts >= least_share * len(draws))
    return ModeCoverage(int(covered.sum()), good.double().mean().item(), counts)


def _frechet(x: Tensor, y: Tensor) -> float:
    means, factors, total = [], [], 0.0
    for items in (x, y):
        mean = items.mean(0)
        factor = torch.linalg.qr(items - mean, mode="r").R / (len(items) - 1) ** 0.5
        means.append(mean)
        factors.append(factor)
        total += factor.square().sum().item()
    overlap = torch.linalg.svdvals(factors[0] @ factors[1].T).sum().item()
    return max(0.0, (means[0] - means[1]).square().sum().item() + total - 2 * overlap)


def _share_inside(items: Tensor, manifold: Tensor, k: int) -> float:
    """Share of items that lie in a ball around one of ``manifold``, as far as its k-th neighbour there."""
    radii = torch.cat(
        # the nearest of all is itself
        [_distances(some, manifold).kthvalue(k + 1, dim=1).values for some in manifold.split(AT_A_TIME)]
    )
    inside = [(_distances(some, manifold) <= radii).any(1) for some in items.split(AT_A_TIME)]
    return torch.cat(inside).double().mean().item()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Without the shortcut by a product of matrices, which would make items differ from themselves."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _two_sets(
    x: Tensor, y: Tensor, *, least: int, names: tuple[str, str] = ("x", "y")
) -> tuple[Tensor, Tensor]:
    """Both sets as float64 vectors on the CPU, where they are sets of one shape and of numbers.

    Raises:
        ValueError: If they are not, or one has fewer than ``least`` items.
    """
    sets = []
    for name, items in zip(names, (x, y), strict=True):
        if not isinstance(items, Tensor) or items.dim() < 2:
            came = tuple(items.shape) if isinstance(items, Tensor) else type(items).__name__
            raise ValueError(f"{name} must be a tensor of shape (items, entries), got {came}")
        if len(items) < least:
            raise ValueError(f"{name} must have at least {least} items, got {len(items)}")
        vectors = items.detach().to("cpu", torch.float64).flatten(1)
        wrong = int((~vectors.isfinite()).sum())
        if wrong:
            raise ValueError(f"{name} must hold finite numbers, got {wrong} NaN or infinite entries")
        sets.append(vectors)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have items of one shape, "
            f"got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}"
        )
    return sets[0], sets[1]
