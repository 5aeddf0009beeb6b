"""NICE: additive coupling layers and a diagonal scaling.

    x = f_1(… f_L(s ⊙ z)),    f_l: x_a = z_a,  x_b = z_b + g(z_a),    log |det ∂x/∂z| = Σ log s,

where a and b swap roles from layer to layer. With ``coupling="affine"``, x_b = z_b ⊙ exp(-h(z_a)) + g(z_a).

References:
    | NICE: Non-linear independent components estimation (Dinh, Krueger & Bengio, 2015)
    | https://arxiv.org/abs/1410.8516
"""

from collections.abc import Sequence
from typing import Literal

import torch

from zoo.flows.coupling import AdditiveCoupling, AffineCoupling
from zoo.flows.flow import Flow, Prior
from zoo.flows.linear import DiagonalScaling
from zoo.flows.networks import MLP
from zoo.flows.transform import Composed
from zoo.model import checked_shape

Coupling = Literal["additive", "affine"]


class NICE(Flow):
    """Couplings between the even and the odd entries of a vector, by multilayer perceptrons.

    Args:
        event_shape: Shape of one item, of at least 2 entries.
        layers: L, couplings, at least 1.
        hidden: Widths of a perceptron's hidden layers.
        coupling: ``"additive"``, or ``"affine"``, which also scales.
        dropout: Share of each hidden layer that is dropped in training.
        num_levels: K, for integer entries 0 … K - 1; None for real ones.
        offset: Of the logit between levels and the real line; None scales them only.
        prior: ``"logistic"``, the paper's choice, or ``"gaussian"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> nice = NICE((8, 8), num_levels=17)
        >>> nice.sample(3).shape
        torch.Size([3, 8, 8])
    """

    recipes = {
        "digits-levels": {
            "model": {"num_levels": 17, "offset": 0.01, "layers": 8, "dropout": 0.1},
            "objective": "elbo",
            "fit": {
                "epochs": 100,
                "batch_size": 50,
                "lr": 3e-3,
                "schedule": "cosine",
                "weight_decay": 1.0,
                "clip_norm": 50.0,
            },
            "particles": 10,
            "bound": "elbo",
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        layers: int = 4,
        *,
        hidden: Sequence[int] = (256, 256),
        coupling: Coupling = "additive",
        dropout: float = 0.0,
        num_levels: int | None = None,
        offset: float | None = None,
        prior: Prior = "logistic",
    ) -> None:
        num = checked_shape(event_shape).numel()
        if num < 2 or layers < 1:
            raise ValueError(f"NICE expects at least 2 entries and 1 layer, got {num} and {layers}")
        if coupling not in ("additive", "affine"):
            raise ValueError(f"coupling must be one of additive, affine, got {coupling!r}")
        even = torch.arange(num) % 2 == 0
        parts = [DiagonalScaling((num,))]
        for layer in range(layers):
            shown = even if layer % 2 == 0 else ~even
            kind, each = (AdditiveCoupling, 1) if coupling == "additive" else (AffineCoupling, 2)
            num_shown = int(shown.sum())
            network = MLP(num_shown, hidden, each * (num - num_shown), dropout=dropout)
            parts.append(kind(shown, network))
        super().__init__(event_shape, Composed(parts), num_levels=num_levels, offset=offset, prior=prior)
