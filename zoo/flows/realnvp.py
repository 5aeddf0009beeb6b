"""RealNVP: affine coupling layers; on images, with masks for their grid and several scales.

    x_a = z_a,    x_b = z_b ⊙ exp(-h(z_a)) + g(z_a).

On vectors, the entries shown alternate. On images, checkerboards alternate, then 2×2 squares become channels
and halves of those alternate; half of the channels are latents as they are, and the others go on to the next
scale.

References:
    | Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017)
    | https://arxiv.org/abs/1605.08803
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.flows.coupling import AffineCoupling
from zoo.flows.flow import Flow, Prior
from zoo.flows.networks import MLP, ResidualNetwork
from zoo.flows.squeeze import MultiScale, Squeeze
from zoo.flows.transform import Composed, FlowTransform
from zoo.model import checked_shape

# One white wine of the test parts is so far from all others that a Gaussian prior gives it -64,000,000 nats.
_WINE_TAILS = {"limit": 1.0, "prior": "logistic"}
_WINE_FIT = {"batch_size": 50, "lr": 3e-3, "schedule": "cosine", "weight_decay": 1.0, "clip_norm": 20.0}


class RealNVP(Flow):
    """Affine couplings: perceptrons on vectors, residual networks of convolutions on images.

    Args:
        event_shape: Shape of one item: ``(n,)``, ``(height, width)`` or ``(channels, height, width)``.
        layers: Couplings of a vector; on an image, those of each kind of mask on each scale. At least 1.
        hidden: Widths of a perceptron's hidden layers; on images, the channels of each residual
            block, all alike.
        scales: Of images: how many, at least 1; height and width must be divisible by 2 to the power of
            ``scales - 1``, and the last scale must have at least 2 pixels.
        dropout: Share of hidden units, or channels, that is dropped in training.
        limit: Largest |h|: a small one keeps an item far from all others from being scaled out of all bounds.
        num_levels: K, for integer entries 0 … K - 1; None for real ones.
        offset: Of the logit between levels and the real line; None scales them only.
        prior: ``"gaussian"`` or ``"logistic"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> RealNVP((11,)).sample(3).shape
        torch.Size([3, 11])
        >>> RealNVP((8, 8), layers=2, hidden=(16,), scales=2, num_levels=17).sample(3).shape
        torch.Size([3, 8, 8])
    """

    recipes = {
        "digits-levels": {
            "model": {"num_levels": 17, "offset": 0.01, "layers": 3, "hidden": (32, 32), "dropout": 0.1},
            "objective": "elbo",
            "fit": {
                "epochs": 60,
                "batch_size": 50,
                "lr": 3e-3,
                "schedule": "cosine",
                "weight_decay": 1.0,
                "clip_norm": 50.0,
            },
            "particles": 10,
            "bound": "elbo",
        },
        "mnist-levels": {
            "model": {
                "num_levels": 256,
                "offset": 1e-6,
                "layers": 3,
                "hidden": (32, 32),
                "scales": 3,
                "prior": "logistic",
            },
            "objective": "elbo",
            "fit": {
                "epochs": 11,
                "batch_size": 100,
                "lr": 3e-3,
                "schedule": "cosine",
                "clip_norm": 100.0,
                "precision": "bf16-mixed",
            },
            "particles": 10,
            "bound": "elbo",
        },
        "red-wine": {
            "model": {"layers": 8, "hidden": (64, 64), "dropout": 0.2, **_WINE_TAILS},
            "objective": "maximum-likelihood",
            "fit": {**_WINE_FIT, "epochs": 100},
        },
        "white-wine": {  # three times as many wines
            "model": {"layers": 8, "hidden": (128, 128), "dropout": 0.1, **_WINE_TAILS},
            "objective": "maximum-likelihood",
            "fit": {**_WINE_FIT, "epochs": 60},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: int = 4,
        *,
        hidden: Sequence[int] = (64, 64),
        scales: int = 2,
        dropout: float = 0.0,
        limit: float = 3.0,
        num_levels: int | None = None,
        offset: float | None = None,
        prior: Prior = "gaussian",
    ) -> None:
        event_shape = checked_shape(event_shape)
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden must be widths of at least 1, got {tuple(hidden)}")
        if len(event_shape) == 1:
            transform = Composed(_of_vectors(event_shape[0], layers, hidden, dropout, limit))
        else:
            shape = (1, *event_shape) if len(event_shape) == 2 else event_shape
            if len(set(hidden)) > 1:
                raise ValueError(f"hidden must be of one width on images, got {tuple(hidden)}")
            transform = _of_images(shape, layers, hidden, scales, dropout, limit)
        super().__init__(event_shape, transform, num_levels=num_levels, offset=offset, prior=prior)


def _of_vectors(
    num: int, layers: int, hidden: Sequence[int], dropout: float, limit: float
) -> list[FlowTransform]:
    if num < 2:
        raise ValueError(f"RealNVP expects vectors of at least 2 entries, got {num}")
    couplings = []
    for layer in range(layers):
        shown = torch.arange(num) % 2 == layer % 2
        num_shown = int(shown.sum())
        network = MLP(num_shown, hidden, 2 * (num - num_shown), dropout=dropout)
        couplings.append(AffineCoupling(shown, network, limit=limit))
    return couplings


def _of_images(
    event_shape: tuple[int, ...],
    layers: int,
    hidden: Sequence[int],
    scales: int,
    dropout: float,
    limit: float,
) -> FlowTransform:
    """Read from the data: checkerboards, squeeze, channels, on each scale; at last checkerboards alone."""
    channels, height, width = event_shape if len(event_shape) == 3 else (0, 0, 0)
    halves = 2 ** max(scales - 1, 0)
    if scales < 1 or height % halves or width % halves or height * width < 2 * halves**2:
        raise ValueError(
            "RealNVP expects images whose sides are divisible by 2 to the power of scales - 1, with at least "
            f"2 pixels on the last scale, got {tuple(event_shape)} and scales={scales}"
        )

    def couplings(masks: list[Tensor]) -> list[FlowTransform]:
        parts = []
        for mask in masks:
            num_in = int(mask.sum()) if mask.dim() == 1 else channels
            num_out = 2 * (channels - num_in) if mask.dim() == 1 else 2 * channels
            network = ResidualNetwork(num_in, hidden[0], num_out, blocks=len(hidden), dropout=dropout)
            parts.append(AffineCoupling(mask, network, event_dim=3, limit=limit))
        return parts

    levels: list[FlowTransform] = []
    for scale in range(scales):
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        boards = [((rows + columns) % 2 == layer % 2).expand(channels, -1, -1) for layer in range(layers)]
        parts = couplings(boards)
        if scale < scales - 1:
            channels, height, width = 4 * channels, height // 2, width // 2
            split = [torch.arange(channels) % 2 == layer % 2 for layer in range(layers)]
            parts = [*couplings(split), Squeeze().inv, *parts]
            channels //= 2
        levels.append(Composed(parts))
    return MultiScale(levels, event_shape)
