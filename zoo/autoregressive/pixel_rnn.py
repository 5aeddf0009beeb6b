"""PixelRNN: LSTMs that go over an image, each output seeing all pixels before its own.

    u_0 = W_A * x,    u_l = u_{l-1} + U_l · h_l,    params = V_2 · relu(V_1 · relu(u_L)),

where h_l are the states of an LSTM with the gates

    [o, f, i] = σ(K_i * u_{l-1} + K_s * h_prev),    g = tanh(K_i * u_{l-1} + K_s * h_prev),
    c = f ⊙ c_prev + i ⊙ g,                         h_l = o ⊙ tanh(c).

Row LSTM: "prev" is the row above, of which K_s sees k columns; a pixel's states see a triangle above it.
Diagonal BiLSTM: "prev" is the pixel on the left and the one above; a second LSTM from right to left is
added a row further down, so that together they see all there is. For that its images have a column more, of
no pixels: without, nobody could tell the second LSTM of the last pixel of a row, whose own features may not
hold it.

References:
    | Pixel recurrent neural networks (van den Oord, Kalchbrenner & Kavukcuoglu, 2016), sections 3.1 to 3.3,
      equation 3
    | https://arxiv.org/abs/1601.06759
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.autoregressive.lstm_layers import DiagonalBiLSTM, LayerCache, RowLSTM, one_by_one
from zoo.autoregressive.masked_convolution import (
    Columns,
    MaskedConv2d,
    UntiedBias,
    Weights,
    affine,
    at_pixel,
    row_of,
    windows,
)
from zoo.autoregressive.pixels import Output, Pixels

Layer = Literal["row-lstm", "diagonal-bilstm"]
"""How the states go over the image."""


class RecurrentCache(NamedTuple):
    """What a `PixelRNN` knows of the pixels before.

    Attributes:
        weights: Of the first convolution and of the head, taken apart.
        rows: The last rows of pixels above.
        above: What these add to the first convolution in every column, with its bias.
        along: The pixels of the row so far.
        layers: The cache of each layer.
    """

    weights: Weights
    rows: Columns
    above: Columns
    along: Columns
    layers: tuple[LayerCache, ...]


class PixelRNN(Pixels):
    """LSTM layers over images, binary or of levels, with colours, and with labels if asked for.

    Args:
        event_shape: ``(height, width)``, or ``(colours, height, width)``.
        layer: ``"row-lstm"`` or ``"diagonal-bilstm"``.
        hidden: Feature maps of a state, at least 1 for each colour; between the layers there are twice as
            many.
        layers: How many, at least 1.
        first_kernel_size: Size of the convolution of the pixels themselves, odd, at least 3.
        kernel_size: k, of a Row LSTM, odd.
        num_levels: 2 for pixels 0. or 1.; more for levels 0 … num_levels - 1, int64.
        output: Of more than two levels, ``"softmax"`` or ``"logistic"``.
        components: Of a mixture of logistics.
        num_classes: Labels y that an image can be asked for by; None is none.
        dropout: Share of the states that are dropped while training.
        untied_bias: Whether every pixel has a bias of its own after the first convolution.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> rnn = PixelRNN((8, 8), layer="diagonal-bilstm", hidden=8)
        >>> rnn.sample(3).shape
        torch.Size([3, 8, 8])
        >>> PixelRNN((3, 4, 4), layer="row-lstm", hidden=6, num_levels=256).sample(2).dtype
        torch.int64
    """

    recipes = {
        "digits": {
            "model": {"layer": "diagonal-bilstm", "hidden": 24, "layers": 2, "dropout": 0.5},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 40, "batch_size": 50, "lr": 5e-3, "schedule": "cosine", "weight_decay": 1e-2},
        },
        "mnist": {
            "model": {"layer": "diagonal-bilstm", "hidden": 16, "layers": 2, "untied_bias": True},
            "objective": "maximum-likelihood",
            "fit": {"epochs": 25, "batch_size": 32, "lr": 4e-3, "schedule": "cosine", "clip_norm": 10.0},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        layer: Layer = "diagonal-bilstm",
        hidden: int = 32,
        layers: int = 1,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
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
        if layer not in get_args(Layer):
            raise ValueError(f"layer must be one of {', '.join(get_args(Layer))}, got {layer!r}")
        self.check_network(hidden, layers, first_kernel_size, kernel_size, dropout)
        self.first = MaskedConv2d(
            self.colours, 2 * hidden, (first_kernel_size, first_kernel_size), "A", colours=self.colours
        )
        options: dict[str, Any] = {"num_classes": num_classes or 0, "dropout": dropout}
        if layer == "row-lstm":
            options["kernel_size"] = kernel_size
        kind = RowLSTM if layer == "row-lstm" else DiagonalBiLSTM
        self.columns = self.width + (layer == "diagonal-bilstm")
        self.untied = UntiedBias((self.height, self.columns), 2 * hidden) if untied_bias else None
        self.layers = nn.ModuleList(kind(hidden, self.colours, **options) for _ in range(layers))
        self.head = nn.ModuleList(
            MaskedConv2d(2 * hidden, width, colours=self.colours)
            for width in (2 * hidden, self.colours * self.num_params)
        )

    def outputs(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        """The whole network; the batch lies last from the first convolution on."""
        maps = pad(maps, (0, self.columns - self.width))
        u = self.first(maps)
        u = u if self.untied is None else self.untied(u)
        u = u.permute(1, 2, 3, 0).contiguous()
        for layer in self.layers:
            u = layer(u, y)
        u = u[:, :, : self.width]
        for convolution in self.head:
            u = one_by_one(convolution, u.relu())
        return u.permute(3, 0, 1, 2)

    def begin(self, y: Tensor | None = None) -> RecurrentCache:
        """The caches of the layers, and that of the first convolution."""
        weights = Weights([self.first, *self.head])
        layers = tuple(layer.begin(self.columns, y) for layer in self.layers)
        return RecurrentCache(weights, (), (self.first.bias,) * self.columns, (), layers)

    def look(
        self, row: int, column: int, cache: RecurrentCache, pixel: Tensor
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """All layers at one pixel."""
        first, *head = cache.weights
        u, features = at_pixel(cache.along, pixel, first[1], cache.above[column]), []
        u = u if self.untied is None else u + self.untied.at(row, column)
        for layer, of_layer in zip(self.layers, cache.layers, strict=True):
            u, found = layer.look(column, of_layer, u)
            features.append(found)
        for _, W, b in head:
            u = affine(u.relu(), W, b)
        return u, tuple(features)

    def keep(
        self,
        row: int,
        column: int,
        cache: RecurrentCache,
        pixel: Tensor,
        features: tuple[tuple[Tensor, ...], ...],
    ) -> RecurrentCache:
        """The caches one pixel further; at the end of a row, what it adds to the next."""
        layers = tuple(
            layer.keep(column, of_layer, found)
            for layer, of_layer, found in zip(self.layers, cache.layers, features, strict=True)
        )
        cache = cache._replace(along=(*cache.along, pixel), layers=layers)
        if column + 1 < self.columns:
            if column + 1 < self.width:
                return cache
            none = torch.zeros_like(pixel)
            return self.keep(row, column + 1, cache, none, self.look(row, column + 1, cache, none)[1])
        rows = (*cache.rows, row_of(cache.along))
        rows = rows[-self.first.rows_above :]
        above = affine(windows(rows, self.first.width), cache.weights[0][0], self.first.bias).unbind(-2)
        return cache._replace(rows=rows, above=above, along=())
