"""Restricted Boltzmann machine: visible units, one layer of hidden ones, and no connection within a layer.

    p(v) = exp(-F(v)) / Z,    F(v) = -b·v - Σ_j log(1 + exp(c_j + v·W_j)).

References:
    | Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002)
    | Classification using Discriminative Restricted Boltzmann Machines (Larochelle & Bengio, 2008)
"""

from zoo.undirected.boltzmann import BoltzmannMachine, Visible, is_count

_WINE = {
    "model": {"hidden": 100, "visible": "gaussian", "centred": True},
    "objective": "persistent-contrastive-divergence",
    "objective_arguments": {"sweeps": 5},
    "fit": {"epochs": 100, "lr": 1e-2, "schedule": "cosine"},
}


class RBM(BoltzmannMachine):
    """One hidden layer, so that p(h | v) and p(v | h) are both exact and of independent units.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        hidden: Number of hidden units.
        visible: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones.
        num_classes: Classes of a label unit above the hidden layer; None is none.
        centred: Whether the energy has offsets, the running means of the units.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> import torch
        >>> rbm = RBM((8, 8), hidden=20)
        >>> rbm.free_energy({"v": torch.zeros(5, 8, 8)}).shape
        torch.Size([5])
        >>> rbm.sample(3, sweeps=10).shape
        torch.Size([3, 8, 8])
    """

    recipes = {
        "digits": {
            "model": {"hidden": 200, "centred": True},
            "objective": "persistent-contrastive-divergence",
            "fit": {"epochs": 200, "lr": 1e-2, "schedule": "cosine"},
        },
        "mnist": {
            "model": {"hidden": 500, "centred": True},
            "objective": "persistent-contrastive-divergence",
            "objective_arguments": {"sweeps": 5},
            "fit": {"epochs": 100, "lr": 1e-2, "momentum": 0.9, "schedule": "cosine"},
            "annealing": {"chains": 100, "betas": 20_000},
        },
        "red-wine": _WINE,
        "white-wine": _WINE,
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: int = 100,
        *,
        visible: Visible = "bernoulli",
        num_classes: int | None = None,
        centred: bool = False,
    ) -> None:
        if not is_count(hidden):
            raise ValueError(f"hidden must be a number of units of at least 1, got {hidden!r}")
        super().__init__(event_shape, (hidden,), visible=visible, num_classes=num_classes, centred=centred)
