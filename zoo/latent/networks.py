"""Encoder and decoder networks of the latent-variable models: perceptrons and convolutions.

Both carry through whatever stands to the left of an item's own dimensions: batch, particles, enumerated
labels. What they return has the type of what they were given, so that under autocast only the networks run in
bfloat16 and every density is summed in full precision.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Network = Literal["mlp", "conv"]
Activation = Literal["relu", "silu", "tanh"]

_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Encoder(nn.Module):
    """From an item, and optionally a condition such as a one-hot label, to a vector of features.

    Args:
        event_shape: Shape of one item.
        out_features: Length of the vector that comes out.
        network: ``"mlp"``, or ``"conv"`` (3×3 convolutions of stride 2, then one dense layer) for images of
            shape ``(height, width)`` or ``(channels, height, width)``.
        hidden: Widths of the hidden layers; for ``"conv"`` the channels of the convolutions.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.
        condition_dim: Length of the condition; 0 for none.
        dropout: Share of the hidden units that are dropped while training.

    Shape:
        ``(..., *event_shape)`` and ``(..., condition_dim)`` to ``(..., out_features)``.

    Raises:
        ValueError: If ``network``, ``activation`` or ``hidden`` is none of the above, or ``event_shape`` does
            not suit the network.

    Example:
        >>> encoder = Encoder((8, 8), 6, network="conv", hidden=(16, 32), condition_dim=10)
        >>> encoder(torch.zeros(5, 1, 8, 8), torch.zeros(3, 10)).shape
        torch.Size([5, 3, 6])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        out_features: int,
        *,
        network: Network = "mlp",
        hidden: tuple[int, ...] = (200,),
        activation: Activation = "relu",
        condition_dim: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(network, hidden, activation)
        self.event_shape = torch.Size(event_shape)
        act = _ACTIVATIONS[activation]
        if network == "mlp":
            self.trunk: nn.Module | None = None
            widths = [self.event_shape.numel() + condition_dim, *hidden, out_features]
        else:
            sizes = _image_sizes(self.event_shape, hidden)
            self.trunk = nn.Sequential(
                nn.Flatten(),
                nn.Unflatten(1, sizes[0]),
                *(
                    layer
                    for before, after in pairwise(sizes)
                    for layer in (
                        nn.Conv2d(before[0], after[0], 3, stride=2, padding=1),
                        act(),
                        *_dropout(dropout),
                    )
                ),
                nn.Flatten(),
            )
            widths = [sizes[-1].numel() + condition_dim, 4 * hidden[-1], out_features]
        self.head = _perceptron(widths, act, dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features of the items ``x``, under the condition where there is one."""
        return self.head(self._seen(x, condition)).to(x.dtype)

    def with_hidden(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The last hidden layer, for a network that goes on from there, and the features made of it."""
        *layers, last = self.head
        hidden = self._seen(x, condition)
        for layer in layers:
            hidden = layer(hidden)
        return hidden.to(x.dtype), last(hidden).to(x.dtype)

    def _seen(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """What the dense layers are given."""
        if self.trunk is None:
            features = x.flatten(-len(self.event_shape))
        else:
            batch_shape = x.shape[: x.dim() - len(self.event_shape)]
            features = self.trunk(x.reshape(-1, *self.event_shape))
            features = features.reshape(*batch_shape, features.shape[-1])
        return features if condition is None else _join(features, condition)


class Decoder(nn.Module):
    """From a latent vector, and optionally a condition, to parameters for every entry of an item.

    Args:
        latent_dim: Length of the latent vector.
        event_shape: Shape of one item.
        num_params: Parameters for each entry: 1 for Bernoulli logits, 2 for a location and a scale.
        network: ``"mlp"``, or ``"conv"``: the mirror image of the `Encoder`'s.
        hidden: Widths or channels as the encoder has them; the decoder runs through them backwards.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.
        condition_dim: Length of the condition; 0 for none.

    Shape:
        ``(..., latent_dim)`` and ``(..., condition_dim)`` to ``(num_params, ..., *event_shape)``.

    Raises:
        ValueError: As `Encoder`.

    Example:
        >>> decoder = Decoder(10, (28, 28), num_params=1, hidden=(64, 32))
        >>> decoder(torch.zeros(5, 3, 10)).shape
        torch.Size([1, 5, 3, 28, 28])
    """

    def __init__(
        self,
        latent_dim: int,
        event_shape: tuple[int, ...],
        *,
        num_params: int,
        network: Network = "mlp",
        hidden: tuple[int, ...] = (200,),
        activation: Activation = "relu",
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        _check(network, hidden, activation)
        self.params_shape = torch.Size((num_params, *event_shape))
        act = _ACTIVATIONS[activation]
        if network == "mlp":
            widths = [latent_dim + condition_dim, *reversed(hidden), self.params_shape.numel()]
            self.layers = _perceptron(widths, act)
        else:
            sizes = _image_sizes(torch.Size(event_shape), hidden)[::-1]
            ends = [*sizes[:-1], torch.Size((num_params * sizes[-1][0], *sizes[-1][1:]))]
            upsampling: list[nn.Module] = []
            for before, after in pairwise(ends):
                odd = [1 - side % 2 for side in after[1:]]
                upsampling += [
                    act(),
                    nn.ConvTranspose2d(before[0], after[0], 3, stride=2, padding=1, output_padding=odd),
                ]
            self.layers = nn.Sequential(
                _perceptron([latent_dim + condition_dim, 4 * hidden[-1], sizes[0].numel()], act),
                nn.Unflatten(1, sizes[0]),
                *upsampling,
            )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z), under the condition where there is one."""
        code = z if condition is None else _join(z, condition)
        params = self.layers(code.reshape(-1, code.shape[-1])).to(z.dtype)
        num_params, *event_shape = self.params_shape
        if num_params == 1:
            return params.reshape(1, *code.shape[:-1], *event_shape)
        return params.reshape(*code.shape[:-1], *self.params_shape).movedim(code.dim() - 1, 0)


def _check(network: str, hidden: tuple[int, ...], activation: str) -> None:
    for what, value, allowed in (
        ("network", network, ("mlp", "conv")),
        ("activation", activation, tuple(_ACTIVATIONS)),
    ):
        if value not in allowed:
            raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must hold one or more widths of at least 1, got {tuple(hidden)}")


def _image_sizes(event_shape: torch.Size, channels: tuple[int, ...]) -> list[torch.Size]:
    """``(channels, height, width)`` of an image, and after each convolution of stride 2."""
    if len(event_shape) not in (2, 3):
        raise ValueError(
            "network 'conv' expects items of shape (height, width) or (channels, height, width), "
            f"got {tuple(event_shape)}"
        )
    sizes = [event_shape if len(event_shape) == 3 else torch.Size((1, *event_shape))]
    for width in channels:
        sizes.append(torch.Size((width, *((side + 1) // 2 for side in sizes[-1][1:]))))
    return sizes


def _perceptron(widths: list[int], act: type[nn.Module], dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        if layers:
            layers += [act(), *_dropout(dropout)]
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []


def _join(features: Tensor, condition: Tensor) -> Tensor:
    """Joins the last dimensions; the others broadcast."""
    shape = torch.broadcast_shapes(features.shape[:-1], condition.shape[:-1])
    return torch.cat([features.expand(*shape, -1), condition.expand(*shape, -1)], dim=-1)
