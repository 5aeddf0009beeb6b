"""Deep Boltzmann machine: layers of hidden units above the visible ones, all connections undirected.

    p(v, h) ∝ exp(Σ_k h_{k-1}·W_k h_k + Σ_k b_k·h_k),    h_0 = v.

References:
    | Deep Boltzmann Machines (Salakhutdinov & Hinton, 2009)
"""

from zoo.undirected.boltzmann import BoltzmannMachine, Visible


class DBM(BoltzmannMachine):
    """Any number of hidden layers; given the even ones the odd ones are independent, and the other way round.

    Args:
        event_shape: Shape of one item, for instance ``(28, 28)``.
        hidden: Units of each hidden layer, from the visible one on.
        visible: ``"bernoulli"`` for entries 0 or 1, ``"gaussian"`` for real ones.
        num_classes: Classes of a label unit above the last hidden layer; None is none.
        centred: Whether the energy has offsets, the running means of the units.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> import torch
        >>> dbm = DBM((8, 8), hidden=(20, 10))
        >>> {name: tuple(mean.shape) for name, mean in dbm.mean_field(torch.zeros(5, 8, 8)).items()}
        {'h_1': (5, 20), 'h_2': (5, 10)}
        >>> dbm.sample(3, sweeps=10).shape
        torch.Size([3, 8, 8])
    """

    recipes = {
        "digits": {
            "model": {"hidden": (200, 100), "centred": True},
            "objective": "persistent-contrastive-divergence",
            "objective_arguments": {"sweeps": 5},
            "fit": {"epochs": 150, "lr": 1e-2, "schedule": "cosine"},
        },
        "mnist": {
            "model": {"hidden": (500, 1000), "centred": True},
            "objective": "persistent-contrastive-divergence",
            "objective_arguments": {"sweeps": 5},
            "fit": {"epochs": 100, "lr": 1e-2, "momentum": 0.9, "schedule": "cosine"},
            "annealing": {"chains": 100, "betas": 20_000},
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: tuple[int, ...] = (200, 100),
        *,
        visible: Visible = "bernoulli",
        num_classes: int | None = None,
        centred: bool = False,
    ) -> None:
        super().__init__(event_shape, hidden, visible=visible, num_classes=num_classes, centred=centred)
