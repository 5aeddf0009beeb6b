"""Masked convolutions with a triangular Jacobian of positive diagonal.

    f(x) = t ⊙ x + W_3 ψ(W_2 ψ(W_1 x + b_1) + b_2) + b_3.

Along the scan (rows from the top, pixels from the left, channels in their order), W_1, W_2 and W_3 see only
what came before an entry and, by weights above 0, the entry itself. ψ rises everywhere and t is above 0, so
∂f/∂x is triangular, and its diagonal, t plus products of what is not negative, is above 0 by construction:

    ∂f_i/∂x_i = t_i + Σ_jk (W_3)_ik ψ'(·)_k (W_2)_kj ψ'(·)_j (W_1)_ji,    all for the same entry i.

References:
    | MintNet: Building invertible neural networks with masked convolutions (Song, Meng & Ermon, 2019)
    | https://arxiv.org/abs/1907.07945
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, softplus

from zoo.flows.fixed_point import Inversion, implicit, invert
from zoo.flows.transform import FlowTransform


class _Masked(nn.Module):
    """A causal 3×3 convolution of groups of units, one group of `inner` or `outer` for each channel.

    The kernel has two rows: the third, which lies ahead in the scan, would be zero.
    """

    def __init__(self, channels: int, num_in: int, num_out: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.channels, self.num_in, self.num_out = channels, num_in, num_out
        fan_in = channels * num_in
        self.weight = nn.Parameter(torch.randn(channels * num_out, fan_in, 2, 3) / (3 * fan_in) ** 0.5)
        self.diagonal = nn.Parameter(torch.randn(channels, num_out, num_in))  # before softplus
        self.bias = nn.Parameter(torch.zeros(channels * num_out, *shape))
        before = torch.ones(channels, num_out, channels, num_in, 2, 3)
        before[..., 1, 2] = 0  # to the right
        earlier = torch.ones(channels, channels).tril(-1)
        before[..., 1, 1] = earlier[:, None, :, None]
        self.register_buffer("mask", before.reshape(self.weight.shape), persistent=False)

    def on_diagonal(self) -> Tensor:
        """The weights of an entry on itself, above 0, shape ``(channels, num_out, num_in)``."""
        return softplus(self.diagonal) / self.num_in

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x + b, and the weights on the diagonal."""
        own = self.on_diagonal()
        centre = torch.block_diag(*own)
        weight = self.weight * self.mask + pad(centre[:, :, None, None], (1, 1, 1, 0))
        return conv2d(pad(x, (1, 1, 1, 0)), weight) + self.bias, own


class MaskedConvolution(FlowTransform):
    """y = f(x) as above, for images with channels; its inverse is a fixed-point iteration.

    Args:
        event_shape: ``(channels, height, width)``.
        hidden: Units of each hidden layer for each channel, at least 2.
        reverse: Whether the scan runs backwards: from the last pixel, and from the last channel.
        tolerance: Of the inverse: largest |f(x) - y| of an entry, above 0; None is 8 units in
            the last place.

    Raises:
        ValueError: If an argument is none of the above.
        ConvergenceError: From the inverse, if items do not come within the tolerance; it names them.

    Example:
        >>> transform = MaskedConvolution((1, 4, 4), hidden=8)
        >>> y, log_det = transform.call_and_log_det(torch.randn(5, 1, 4, 4))
        >>> y.shape, log_det.shape
        (torch.Size([5, 1, 4, 4]), torch.Size([5]))
        >>> bool(transform.invert(y).residual.max() < 1e-4)
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        hidden: int = 16,
        *,
        reverse: bool = False,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(3)
        if len(event_shape) != 3 or min(event_shape) < 1 or hidden < 2:
            raise ValueError(
                "MaskedConvolution expects (channels, height, width) and at least 2 hidden units, got "
                f"{tuple(event_shape)} and {hidden}"
            )
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}")
        channels, *shape = event_shape
        self.event_shape = torch.Size(event_shape)
        self.hidden, self.reverse, self.tolerance = hidden, reverse, tolerance
        self.first = _Masked(channels, 1, hidden, shape)
        self.second = _Masked(channels, hidden, hidden, shape)
        self.third = _Masked(channels, hidden, 1, shape)
        self.log_t = nn.Parameter(torch.zeros(self.event_shape))
        signs = torch.ones(channels * hidden, 1, 1)
        signs[1::2] = -1
        self.register_buffer("signs", signs, persistent=False)
        with torch.no_grad():
            self.third.weight *= 0.1

    def value_and_diagonal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and the diagonal of ∂f/∂x, both of shape ``(batch, channels, height, width)``."""
        if self.reverse:
            x = x.flip(-3, -2, -1)
        u, own = self.first(x)
        h, slope = self._activation(u)
        slopes = (slope.unflatten(1, own.shape[:2]), own[:, :, 0, None, None])
        slopes = slopes[0] * slopes[1]  # of each unit by its own channel, (batch, channels, hidden, ...)
        u, own = self.second(h)
        h, slope = self._activation(u)
        slopes = torch.einsum("bcj...,ckj->bck...", slopes, own) * slope.unflatten(1, own.shape[:2])
        u, own = self.third(h)
        t = self.log_t.exp()
        diagonal = t + torch.einsum("bck...,ck->bc...", slopes, own[:, 0])
        value = t * x + u
        if self.reverse:
            value, diagonal = value.flip(-3, -2, -1), diagonal.flip(-3, -2, -1)
        return value, diagonal

    def _activation(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """ψ(u) and ψ'(u): ELU for every second unit, for the others its mirror image -ELU(-u)."""
        signed = u * self.signs
        slope = (-(-signed).relu()).exp()
        return (signed.relu() + slope - 1) * self.signs, slope

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x), and the sum of the logarithms of the diagonal."""
        value, diagonal = self.value_and_diagonal(x.flatten(0, -4) if x.dim() > 3 else x.unsqueeze(0))
        return value.reshape(x.shape), diagonal.log().sum((-3, -2, -1)).reshape(x.shape[:-3])

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Found by `invert`, with the gradient of the implicit-function theorem."""
        x = self.invert(y.reshape(-1, *self.event_shape)).x
        if torch.is_grad_enabled():
            x = implicit(self.value_and_diagonal, y.reshape(x.shape), x)
        x = x.reshape(y.shape)
        return x, -self.call_and_log_det(x)[1]

    def invert(self, y: Tensor, *, tolerance: float | None = None, max_iterations: int = 500) -> Inversion:
        """Finds x with f(x) = y, ``(batch, channels, height, width)``, and reports how: see `Inversion`."""
        with torch.autocast(y.device.type, enabled=False):  # half precision would never come within it
            return invert(
                self.value_and_diagonal,
                y,
                tolerance=self.tolerance if tolerance is None else tolerance,
                max_iterations=max_iterations,
            )
