"""Discriminator of adversarial training: a perceptron that says how real an item looks."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from inference.program import check_counts


class Discriminator(nn.Module):
    """A perceptron with leaky rectifiers, from an item to one number.

    Trained with a cross-entropy the number is a logit, and tends to log p_data(x) / p_model(x); trained as a
    Wasserstein critic it is a height without a zero of its own.

    Args:
        event_shape: Shape of one item.
        hidden: Widths of the hidden layers.
        spectral: Whether each layer is divided by its largest singular value, so that the whole changes by no
            more than the item does (is 1-Lipschitz).

    Shape:
        ``(batch, *event_shape)`` to ``(batch,)``.

    Raises:
        ValueError: If ``hidden`` holds a width below 1.

    References:
        | Generative Adversarial Nets (Goodfellow et al., 2014), section 3
        | https://arxiv.org/abs/1406.2661
        | Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), section 2.1

    Example:
        >>> Discriminator((8, 8), hidden=(32,))(torch.zeros(5, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self, event_shape: tuple[int, ...], hidden: tuple[int, ...] = (128, 128), *, spectral: bool = False
    ) -> None:
        super().__init__()
        for width in hidden:
            check_counts(width=width)
        widths = [torch.Size(event_shape).numel(), *hidden, 1]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(widths):
            layer = nn.Linear(fan_in, fan_out)
            layers += [spectral_norm(layer) if spectral else layer, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """How real each item looks."""
        return self.layers(x).squeeze(-1)
