"""Images with fewer pixels and more channels, and latents that leave the image on the way.

References:
    | Density estimation using Real NVP (Dinh, Sohl-Dickstein & Bengio, 2017), sections 3.5 and 3.6
"""

from collections.abc import Sequence

import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from zoo.flows.transform import FlowTransform, call_and_log_det, inverse_and_log_det, named


class Squeeze(FlowTransform):
    """Each 2×2 square of pixels becomes one pixel of four times the channels; log |det| = 0.

    Example:
        >>> Squeeze()(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 4, 4, 4])
    """

    def __init__(self) -> None:
        super().__init__(3)

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fewer pixels, more channels; 0."""
        if x.dim() < 3 or x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ValueError(f"Squeeze expects images of even height and width, got {tuple(x.shape)}")
        squares = x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).movedim((-3, -1), (-4, -3))
        return squares.flatten(-5, -3), x.new_zeros(x.shape[:-3])

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """More pixels, fewer channels; 0."""
        if y.dim() < 3 or y.shape[-3] % 4:
            raise ValueError(f"Squeeze expects channels in fours to undo, got {tuple(y.shape)}")
        squares = y.unflatten(-3, (-1, 2, 2)).movedim((-4, -3), (-3, -1))
        return squares.flatten(-2).flatten(-3, -2), y.new_zeros(y.shape[:-3])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape with a quarter of the pixels."""
        *batch, channels, height, width = shape
        return torch.Size((*batch, 4 * channels, height // 2, width // 2))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape with four times the pixels."""
        *batch, channels, height, width = shape
        return torch.Size((*batch, channels // 4, 2 * height, 2 * width))


class MultiScale(FlowTransform):
    """From a flat z to an image, where half of the channels leave on each scale but the last.

    Read from the image: the inverse of ``scales[0]``, then half of the channels go into z as they are, the
    inverse of ``scales[1]`` acts on the others, and so on. z holds what left last first: coarse before fine.

    Args:
        scales: Transforms of images, from latent to data, finest first.
        event_shape: Shape of an image, ``(channels, height, width)``.

    Raises:
        ValueError: If a scale but the last leaves a single channel, which has no half.
    """

    def __init__(self, scales: Sequence[FlowTransform], event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.codomain = constraints.independent(constraints.real, 3)
        self.scales = nn.ModuleList(scales)
        self.event_shape = torch.Size(event_shape)
        self.kept, self.left = [], []  # shapes of what goes on, and of what leaves, after each scale
        shape = self.event_shape
        for number, scale in enumerate(scales):
            shape = scale.inverse_shape(shape)
            leaving = 0 if number == len(scales) - 1 else shape[0] // 2
            if shape[0] < 2 and number < len(scales) - 1:
                raise ValueError(f"MultiScale expects scales of at least 2 channels, got {tuple(shape)}")
            self.left.append(torch.Size((leaving, *shape[1:])))
            shape = torch.Size((shape[0] - leaving, *shape[1:]))
            self.kept.append(shape)

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image of z."""
        sizes = [self.kept[-1].numel(), *(shape.numel() for shape in self.left[-2::-1])]
        parts = list(x.split(sizes, dim=-1))
        h = parts.pop(0).unflatten(-1, self.kept[-1])
        total = x.new_zeros(x.shape[:-1])
        for number, scale in reversed(list(enumerate(self.scales))):
            if number < len(self.scales) - 1:
                h = torch.cat([h, parts.pop(0).unflatten(-1, self.left[number])], dim=-3)
            with named(f"scale {number}"):
                h, log_det = call_and_log_det(scale, h)
            total = total + log_det
        return h, total

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The z of an image."""
        parts: list[Tensor] = []
        total = y.new_zeros(y.shape[:-3])
        for number, scale in enumerate(self.scales):
            with named(f"scale {number}"):
                y, log_det = inverse_and_log_det(scale, y)
            total = total + log_det
            y, leaving = y.split([self.kept[number][0], self.left[number][0]], dim=-3)
            parts.insert(0, leaving.flatten(-3))
        return torch.cat([y.flatten(-3), *parts], dim=-1), total

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the image."""
        return torch.Size((*shape[:-1], *self.event_shape))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of z."""
        return torch.Size((*shape[:-3], self.event_shape.numel()))
