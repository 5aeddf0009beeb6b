"""MintNet: masked convolutions in both directions.

    z = f_L(… f_1(x)),    f_l(x) = t ⊙ x + W_3 ψ(W_2 ψ(W_1 x + b_1) + b_2) + b_3,

each with a triangular Jacobian of positive diagonal, along the scan for one layer, against it for the next.
Scoring is one pass; drawing inverts the layers by a fixed-point iteration.

References:
    | MintNet: Building invertible neural networks with masked convolutions (Song, Meng & Ermon, 2019)
    | https://arxiv.org/abs/1907.07945
"""

from torch import Tensor

from zoo.flows.fixed_point import Inversion
from zoo.flows.flow import Flow, Prior
from zoo.flows.masked_convolution import MaskedConvolution
from zoo.flows.squeeze import Squeeze
from zoo.flows.transform import Composed
from zoo.model import checked_shape


class MintNet(Flow):
    """Blocks of masked convolutions on images.

    Args:
        event_shape: Shape of one item: ``(height, width)`` or ``(channels, height, width)``.
        layers: L, at least 1.
        hidden: Units of a layer's two hidden layers, for each channel, at least 2.
        squeezes: How often 2×2 squares of pixels become channels first: fewer and wider steps.
        num_levels: K, for integer entries 0 … K - 1; None for real ones.
        offset: Of the logit between levels and the real line; None scales them only.
        prior: ``"gaussian"`` or ``"logistic"``.

    Raises:
        ValueError: If an argument is none of the above.
        ConvergenceError: From drawing, if the inverse does not come within its tolerance.

    Example:
        >>> mintnet = MintNet((8, 8), num_levels=17)
        >>> mintnet.sample(3).shape
        torch.Size([3, 8, 8])
        >>> [found.x.shape for found in mintnet.invert(mintnet.prior().sample((2,)))][0]
        torch.Size([2, 1, 8, 8])
    """

    recipes = {
        "digits-levels": {
            "model": {"num_levels": 17, "offset": 0.01, "layers": 6, "hidden": 16},
            "objective": "elbo",
            "fit": {"epochs": 100, "batch_size": 50, "lr": 1e-2, "schedule": "cosine", "clip_norm": 50.0},
            "particles": 10,
            "bound": "elbo",
        },
        "mnist-levels": {
            "model": {"num_levels": 256, "offset": 1e-6, "layers": 6, "hidden": 16, "prior": "logistic"},
            "objective": "elbo",
            "fit": {"epochs": 20, "batch_size": 100, "lr": 1.5e-2, "schedule": "cosine", "clip_norm": 100.0},
            "particles": 10,
            "bound": "elbo",
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: int = 6,
        *,
        hidden: int = 16,
        squeezes: int = 0,
        num_levels: int | None = None,
        offset: float | None = None,
        prior: Prior = "gaussian",
    ) -> None:
        shape = checked_shape(event_shape)
        shape = (1, *shape) if len(shape) == 2 else tuple(shape)
        if len(shape) != 3 or layers < 1:
            raise ValueError(
                "MintNet expects items of shape (height, width) or (channels, height, width) and at least 1 "
                f"layer, got {tuple(event_shape)} and {layers}"
            )
        if squeezes < 0 or any(side % 2**squeezes for side in shape[1:]):
            raise ValueError(
                f"squeezes expects sides divisible by 2 to its power, got {squeezes} and {tuple(event_shape)}"
            )
        squeeze = [Squeeze() for _ in range(squeezes)]
        shape = (shape[0] * 4**squeezes, shape[1] // 2**squeezes, shape[2] // 2**squeezes)
        convolutions = [MaskedConvolution(shape, hidden, reverse=layer % 2 == 1) for layer in range(layers)]
        transform = Composed([*squeeze, *convolutions]).inv
        super().__init__(event_shape, transform, num_levels=num_levels, offset=offset, prior=prior)

    @property
    def convolutions(self) -> list[MaskedConvolution]:
        """The layers, from x to z."""
        parts = self.transform.parts[0].transform.parts
        return [part for part in parts if isinstance(part, MaskedConvolution)]

    def invert(
        self, z: Tensor, *, tolerance: float | None = None, max_iterations: int = 500
    ) -> list[Inversion]:
        """Undoes layer after layer, from the last to the first, and reports on each.

        Args:
            z: Shape ``(batch, channels, height, width)``.
            tolerance: Largest |f_l(x) - y| of an entry; None is that of the layers.
            max_iterations: For a layer, at least 1.

        Returns:
            A report for each layer, in the order in which they are undone; the ``x`` of the last is what the
            network makes z from.

        Raises:
            ConvergenceError: If items do not come within the tolerance; the message names them.
        """
        found: list[Inversion] = []
        for layer in reversed(self.convolutions):
            y = found[-1].x if found else z
            found.append(layer.invert(y, tolerance=tolerance, max_iterations=max_iterations))
        return found
