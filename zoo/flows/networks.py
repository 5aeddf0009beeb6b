"""Networks that tell a coupling how to move what it hides."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU between; the last starts at zero, so that a coupling starts as the identity.

    Args:
        num_inputs: Length of the vectors that it is given.
        hidden: Widths of the hidden layers.
        num_outputs: Length of the vectors that it answers with.
        dropout: Share of each hidden layer that is dropped in training.
    """

    def __init__(
        self, num_inputs: int, hidden: Sequence[int], num_outputs: int, *, dropout: float = 0.0
    ) -> None:
        if not all(width >= 1 for width in hidden):
            raise ValueError(f"hidden must be widths of at least 1, got {tuple(hidden)}")
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(num_inputs, width), nn.ReLU(inplace=True)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            num_inputs = width
        last = nn.Linear(num_inputs, num_outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(*layers, last)


class ResidualBlock(nn.Module):
    """h + W_2 ReLU(W_1 ReLU(h)), with 3×3 convolutions."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """The block's output, of the same shape."""
        inner = self.first(h.relu()).relu()
        return h + self.second(self.dropout(inner))


class ResidualNetwork(nn.Module):
    """3×3 convolutions with residual blocks; the last layer starts at zero.

    Args:
        num_inputs: Channels that it is given.
        width: Channels inside.
        num_outputs: Channels that it answers with.
        blocks: Residual blocks.
        dropout: Share of the channels that a block drops in training.
    """

    def __init__(
        self, num_inputs: int, width: int, num_outputs: int, *, blocks: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        last = nn.Conv2d(width, num_outputs, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Conv2d(num_inputs, width, 3, padding=1),
            *(ResidualBlock(width, dropout) for _ in range(blocks)),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Answers of shape ``(..., num_outputs, height, width)``."""
        result = self.layers(x.reshape(-1, *x.shape[-3:]))
        return result.reshape(*x.shape[:-3], *result.shape[1:])
