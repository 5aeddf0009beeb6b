"""A linear predictor of a sound: what a model of sound has to beat.

    p(x_t | x_<t) = mass of the cell of level x_t under a density of a single shape and scale, centred at
    m_t = Σ_{i=1}^{n} w_i a(x_{t-i}),

where a(x) is the amplitude in the middle of level x, and w are the least squares: Toeplitz equations of the
autocorrelation, with a ridge on its diagonal.

References:
    | Linear prediction: A tutorial review (Makhoul, 1975), section II, the autocorrelation method
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_toeplitz
from scipy.signal import correlate, lfilter
from scipy.special import expit, ndtr
from torch import Tensor

from zoo.data.speech import NUM_LEVELS, inverse_mu_law

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Shares of the mean power that are tried as the ridge."""

DENSITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Gaussian": ndtr,
    "logistic": expit,
    "Laplace": lambda z: 0.5 * np.exp(z),
    "Student-t of 2 degrees": lambda z: 0.5 + 0.5 * z / np.sqrt(2 + z * z),
    "Cauchy": lambda z: 0.5 + np.arctan(z) / np.pi,
}
"""Shapes that are tried for what is left over, from light tails to heavy ones: P(Z < z) for z below 0."""

FAR = 1e9
"""An amplitude that stands for infinity."""

SCALES = np.geomspace(0.02, 2.0, 20)
"""Scales that are tried, in standard deviations of the training residuals."""

LEAST = 1e-12
"""The least mass that a cell is given: a sample beyond every tail shall not cost infinitely much."""


class LinearPredictor(NamedTuple):
    """A fitted predictor.

    Attributes:
        weights: w, of the sample before first, shape ``(n,)``.
        density: A key of `DENSITIES`.
        scale: Of the density, an amplitude.
        num_levels: K.
    """

    weights: np.ndarray
    density: str
    scale: float
    num_levels: int

    def bits(self, sequences: Sequence[Tensor]) -> float:
        """Bits per sample of whole sequences of levels, each ``(samples,)``: -log₂ p, the mean over all.

        As a model is, it is told nothing of what lies before a sequence, and takes it for silence.
        """
        costs = [
            -np.log2(_masses(sequence, _predicted(self.weights, sequence, self.num_levels), self))
            for sequence in sequences
        ]
        return float(np.concatenate(costs).mean())


def fit_linear_predictor(
    train: Sequence[Tensor], valid: Sequence[Tensor], order: int, num_levels: int = NUM_LEVELS
) -> LinearPredictor:
    """Fits a predictor of one order.

    The weights are those of ``train``; the ridge, the shape of the density and its scale are the best of
    `RIDGES`, `DENSITIES` and `SCALES` on ``valid``.

    Args:
        train: Whole sequences of µ-law levels, int64, each of shape ``(samples,)``.
        valid: The same.
        order: n, how many past samples it looks at, at least 1.
        num_levels: K.

    Raises:
        ValueError: If ``order`` is below 1.

    Example:
        >>> from zoo.data import load
        >>> data = load("speech")
        >>> predictor = fit_linear_predictor(data.train.sequences, data.valid.sequences, order=16)
        >>> predictor.density, round(predictor.bits(data.test.sequences), 1)
        ('Cauchy', 4.8)
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    correlation = np.zeros(order + 1)
    for sequence in train:
        x = _amplitudes(sequence, num_levels)
        lags = correlate(x, x, method="fft")[len(x) - 1 :][: order + 1]
        correlation[: len(lags)] += lags
    best, least = None, np.inf
    for ridge in RIDGES:
        column = correlation[:-1].copy()
        column[0] *= 1 + ridge
        weights = solve_toeplitz(column, correlation[1:])
        centres = [_predicted(weights, sequence, num_levels) for sequence in valid]
        left = [_amplitudes(s, num_levels) - _predicted(weights, s, num_levels) for s in train]
        deviation = np.concatenate(left).std()
        for density in DENSITIES:
            for scale in SCALES * deviation:
                tried = LinearPredictor(weights, density, float(scale), num_levels)
                pairs = zip(valid, centres, strict=True)
                cost = -np.concatenate([np.log2(_masses(s, m, tried)) for s, m in pairs]).mean()
                if cost < least:
                    best, least = tried, cost
    assert best is not None
    return best


def _amplitudes(levels: Tensor, num_levels: int) -> np.ndarray:
    return inverse_mu_law(levels, num_levels).numpy()


def _predicted(weights: np.ndarray, levels: Tensor, num_levels: int) -> np.ndarray:
    """What each sample is expected to be: m."""
    return lfilter([0.0, *weights], [1.0], _amplitudes(levels, num_levels))


def _masses(levels: Tensor, centres: np.ndarray, predictor: LinearPredictor) -> np.ndarray:
    """What the density gives to the cell of each sample; the outermost cells reach to infinity."""
    K = predictor.num_levels
    edges = torch.arange(1, K) - 0.5
    bounds = np.concatenate([[-FAR], inverse_mu_law(edges, K).numpy(), [FAR]])
    x = levels.numpy()
    low, high = (bounds[x] - centres) / predictor.scale, (bounds[x + 1] - centres) / predictor.scale
    # As the densities are symmetric, each tail has the mass of the other, and below 0 none is rounded to 1.
    below = DENSITIES[predictor.density]
    left, right = below(-np.abs(low)), below(-np.abs(high))
    return np.maximum(np.where((low < 0) & (high > 0), 1 - left - right, np.abs(left - right)), LEAST)
