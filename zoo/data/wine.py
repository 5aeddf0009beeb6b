"""Wine quality: eleven physico-chemical measurements of 1,599 red and 4,898 white wines, in ten folds.

References:
    | Modeling wine preferences by data mining from physicochemical properties (Cortez et al., 2009)
    | RNADE: The real-valued neural autoregressive density-estimator (Uria et al., 2013)
"""

from importlib import resources

import numpy as np
import torch
from torch.distributions import constraints

from zoo.data import DESCRIPTIONS
from zoo.data.dataset import Dataset, Split

NUM_FOLDS = 10


def load(name: str = "red-wine", fold: int = 0) -> Dataset:
    """Loads the wines of one colour, standardised.

    The test part is one fold of ten. The other nine are standardised to mean 0 and variance 1, and their last
    tenth is the validation part; the test part is shifted and scaled by the same numbers. Items have shape
    ``(11,)``, float32; labels are the quality, a score of 0 to 10.

    Args:
        name: ``red-wine`` or ``white-wine``.
        fold: Which fold is the test part, 0 to 9.

    Raises:
        ValueError: If there is no such fold.

    Example:
        >>> data = load("red-wine", fold=9)
        >>> len(data.train), len(data.valid), len(data.test)
        (1296, 144, 159)
    """
    if fold not in range(NUM_FOLDS):
        raise ValueError(f"fold must be 0 to {NUM_FOLDS - 1} for {name!r}, got {fold!r}")
    colour = name.removesuffix("-wine")
    with (
        resources.files("zoo.data")
        .joinpath("files", f"winequality-{colour}.csv")
        .open(encoding="ascii") as file
    ):
        table = np.loadtxt(file, delimiter=";", skiprows=1)
    folds = np.array_split(np.random.default_rng(0).permutation(len(table)), NUM_FOLDS)
    test = folds.pop(int(fold))
    learn = np.concatenate(folds)
    features, quality = table[:, :-1], table[:, -1]
    features = (features - features[learn].mean(0)) / features[learn].std(0)

    def split(rows: np.ndarray) -> Split:
        return Split(torch.from_numpy(features[rows]).float(), torch.from_numpy(quality[rows]).long())

    num_valid = len(learn) // 10
    return Dataset(
        name=name,
        event_shape=torch.Size([features.shape[1]]),
        support=constraints.real,
        train=split(learn[:-num_valid]),
        valid=split(learn[-num_valid:]),
        test=split(test),
        fold=int(fold),
        num_folds=NUM_FOLDS,
        description=DESCRIPTIONS[name],
    )
