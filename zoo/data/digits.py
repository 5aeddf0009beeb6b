"""Handwritten digits, 8×8, as scikit-learn carries them: 1,797 images of 17 levels.

References:
    | Optical recognition of handwritten digits (Alpaydin & Kaynak, 1998), UCI Machine Learning Repository
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.distributions import constraints

from zoo.data import DESCRIPTIONS
from zoo.data.dataset import Dataset, Split

NUM_TRAIN, NUM_VALID = 1297, 250  # and 250 to test


def load(name: str = "digits") -> Dataset:
    """Loads the digits, in one of three forms; labels are the digits, and the split is the same for all.

    Args:
        name: ``digits`` for binary pixels (level 8 and above is 1), float32, shape ``(8, 8)``;
            ``digits-levels`` for the levels 0 to 16, int64, of the same shape;
            ``digits-4x4`` for blocks of 2×2 pixels, 1 where their mean level is 8 or above, float32, shape
            ``(4, 4)``: few enough variables for a table of all 65,536 images, so that a model can be compared
            with the exact joint distribution, and every estimate with a sum. Of the 1,797 images 228 differ.

    Example:
        >>> load("digits-levels").test.x.max()
        tensor(16)
        >>> load("digits-4x4").test.x[0].int().tolist()
        [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]]
    """
    source = load_digits()
    order = np.random.default_rng(0).permutation(len(source.images))
    levels = torch.from_numpy(source.images[order]).long()
    labels = torch.from_numpy(source.target[order]).long()
    binary = name != "digits-levels"
    if name == "digits-4x4":
        levels = levels.unflatten(1, (4, 2)).unflatten(3, (4, 2)).double().mean((2, 4))
    items = (levels >= 8).float() if binary else levels
    parts = np.split(np.arange(len(order)), [NUM_TRAIN, NUM_TRAIN + NUM_VALID])
    train, valid, test = (Split(items[part], labels[part]) for part in parts)
    return Dataset(
        name=name,
        event_shape=train.event_shape,
        support=constraints.boolean if binary else constraints.integer_interval(0, 16),
        train=train,
        valid=valid,
        test=test,
        num_classes=10,
        description=DESCRIPTIONS[name],
    )
