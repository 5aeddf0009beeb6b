"""PixelCNN: a network of masked convolutions, whose every output sees the pixels before its own alone.

Gated, two stacks of layers (* is a convolution, · one of 1×1):

    v_l = W_v * v_{l-1},              over the rows above; of v, which knows of no more, the own row too,
    h_l = W_h * h_{l-1} + U · v_l,    along the row, up to the pixel,
    v ← tanh(v_a) ⊙ σ(v_b),    h ← h + R · (tanh(h_a) ⊙ σ(h_b)),

so that nothing above a pixel is hidden from it. Plain, a single stack of residual blocks:

    h ← h + W_3 · relu(W_2 * relu(W_1 · relu(h))),

which never see a wedge of pixels to the right above: the blind spot. Both end in two convolutions of 1×1.

Beyond the papers, the convolutions may be dilated, so that few layers see far, and every pixel may have a
bias of its own. On MNIST each was worth three nats after 500 steps of training.

References:
    | Conditional image generation with PixelCNN decoders (van den Oord et al., 2016), section 2: gated
    | https://arxiv.org/abs/1606.05328
    | Pixel recurrent neural networks (van den Oord, Kalchbrenner & Kavukcuoglu, 2016): plain
    | https://arxiv.org/abs/1601.06759
    | Multi-Scale Context Aggregation by Dilated Convolutions (Yu & Koltun, 2016), section 2
    | https://arxiv.org/abs/1511.07122
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.autoregressive.masked_convolution import MaskedConv2d, Weights
from zoo.autoregressive.pixel_stacks import GatedStack, ResidualStack
from zoo.autoregressive.pixels import Output, Pixels


class PixelCNN(Pixels):
    """Masked convolutions over images, binary or of levels, with colours, and with labels if asked for.

    Args:
        event_shape: ``(height, width)``, or ``(colours, height, width)``.
        hidden: Feature maps; of a plain block, in its middle: there are twice as many between the blocks.
        layers: Gated layers, or residual blocks, at least 1.
        kernel_size: Of their convolutions, odd.
        dilations: Of these, in turn: pixels from one weight to the next, each at least 1. ``(2, 4, 8)`` sees
            far in few layers.
        first_kernel_size: Of the convolution of the pixels themselves, odd, at least 3.
        gated: Whether there are two gated stacks, or a plain one.
        num_levels: 2 for pixels 0. or 1.; more for levels 0 … num_levels - 1, int64.
        output: Of more than two levels, ``"softmax"`` or ``"logistic"``.
        components: Of a mixture of logistics.
        num_classes: Labels y that an image can be asked for by; None is none.
        dropout: Share of the features of a layer that are dropped while training.
        untied_bias: Whether every pixel has a bias of its own after the first convolution. Images that lie
            alike, as centred digits do, then cost less training.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> cnn = PixelCNN((8, 8), hidden=8, layers=2, num_classes=10)
        >>> cnn.sample(3, y=7).shape
        torch.Size([3, 8, 8])
        >>> PixelCNN((3, 4, 4), hidden=6, layers=1, num_levels=256, output="logistic").sample(2).dtype
        torch.int64
    """

    recipes = {
        "digits": {
            "model": {"hidden": 32, "layers": 8, "dropout": 0.3},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 40, "batch_size": 50, "lr": 4e-3, "schedule": "cosine"},
        },
        "mnist": {
            "model": {"hidden": 32, "layers": 6, "dilations": (2, 4, 8, 4, 2), "untied_bias": True},
            "objective": "maximum-likelihood",
            "fit": {
                **{"epochs": 12, "batch_size": 50, "lr": 4e-3, "schedule": "cosine", "clip_norm": 10.0},
                "precision": "bf16-mixed",
            },
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: int = 32,
        layers: int = 8,
        *,
        kernel_size: int = 3,
        dilations: tuple[int, ...] = (1,),
        first_kernel_size: int = 7,
        gated: bool = True,
        num_levels: int = 2,
        output: Output = "softmax",
        components: int = 10,
        num_classes: int | None = None,
        dropout: float = 0.0,
        untied_bias: bool = False,
    ) -> None:
        super().__init__(
            event_shape, num_levels=num_levels, output=output, components=components, num_classes=num_classes
        )
        self.check_network(hidden, layers, first_kernel_size, kernel_size, dropout)
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must hold one or more of at least 1, got {tuple(dilations)}")
        self.gated = gated
        stack = GatedStack if gated else ResidualStack
        size = (self.height, self.width) if untied_bias else None
        self.stack = stack(
            *(size, self.colours, hidden, layers, kernel_size, tuple(dilations), first_kernel_size),
            *(num_classes or 0, dropout),
        )
        width = hidden if gated else 2 * hidden
        self.head = nn.ModuleList(
            [
                MaskedConv2d(width, width, colours=self.colours),
                MaskedConv2d(width, self.colours * self.num_params, colours=self.colours),
            ]
        )

    def outputs(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        """The whole network, on channels-last maps: the layout that convolutions on a CPU are fastest in."""
        h = self.stack(maps.contiguous(memory_format=torch.channels_last), y)
        for convolution in self.head:
            h = convolution(h.relu())
        return h

    def begin(self, y: Tensor | None = None) -> tuple[Any, Any]:
        """The stack's cache, and the weights of the head."""
        return self.stack.begin(self.width, y), Weights(self.head)

    def look(self, row: int, column: int, cache: tuple[Any, Any], pixel: Tensor) -> tuple[Tensor, Any]:
        """All layers at one pixel."""
        of_stack, head = cache
        h, features = self.stack.look(row, column, of_stack, pixel)
        for _, own, bias in head:
            h = torch.relu(h) @ own + bias
        return h, features

    def keep(
        self, row: int, column: int, cache: tuple[Any, Any], pixel: Tensor, features: Any
    ) -> tuple[Any, Any]:
        """The stack's, one pixel further."""
        of_stack, head = cache
        return self.stack.keep(column, of_stack, pixel, features), head
