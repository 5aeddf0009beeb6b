"""The data sets: small ones embedded in the package, MNIST and Fashion-MNIST downloaded once and kept.

Neither torch nor the data are imported before they are asked for, so that a command line can list the names.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data.dataset import BinarizedSplit, Dataset, Split

__all__ = ["DESCRIPTIONS", "BinarizedSplit", "Dataset", "Split", "load", "names"]

DESCRIPTIONS = {
    "digits": "handwritten digits, 8×8, binary (scikit-learn)",
    "digits-4x4": "handwritten digits averaged down to 4×4, binary: 65,536 possible images (scikit-learn)",
    "digits-levels": "handwritten digits, 8×8, levels 0 to 16 (scikit-learn)",
    "fashion-mnist": "pieces of clothing, 28×28, grey levels binarised at random (Xiao et al., 2017)",
    "mnist": "handwritten digits, 28×28, grey levels binarised at random (LeCun et al., 1998)",
    "mnist-levels": "handwritten digits, 28×28, levels 0 to 255 (LeCun et al., 1998)",
    "names": "English first names, a character each entry (Moby Word II)",
    "red-wine": "11 physico-chemical measurements of red wines, standardised (Cortez et al., 2009)",
    "shakespeare": "texts of Shakespeare, in windows of 100 characters",
    "speech": "read speech, 16 kHz, 256 levels of µ-law: five clips, 25 seconds (LibriVox)",
    "white-wine": "11 physico-chemical measurements of white wines, standardised (Cortez et al., 2009)",
}
"""The data sets by name, and one line on what each is."""


def names() -> tuple[str, ...]:
    """Returns the names that `load` knows, sorted.

    Example:
        >>> names()[:4]
        ('digits', 'digits-4x4', 'digits-levels', 'fashion-mnist')
    """
    return tuple(DESCRIPTIONS)


def load(name: str, *, fold: int | None = None, folder: str | Path | None = None) -> "Dataset":
    """Loads a data set, split into a training, a validation and a test part.

    Args:
        name: One of `names`.
        fold: Which of the ten folds is the test part, 0 to 9, for the wines only; 0 where it is None.
        folder: A folder with the four files of MNIST or of Fashion-MNIST, looked in before the folder that
            ``ZOO_DATA_DIR`` names and before the cache (``ZOO_CACHE_DIR``, or the user's cache folder). Or
            one with all of Shakespeare, of whom a single play is embedded. The other data sets are embedded
            and read no folder.

    Raises:
        ValueError: If the name is unknown, if there is no such fold, or if a file that was found has wrong
            content.
        OSError: If the files of MNIST or Fashion-MNIST are in no folder and cannot be downloaded.

    Example:
        >>> data = load("digits")
        >>> data.event_shape, len(data.train), len(data.valid), len(data.test)
        (torch.Size([8, 8]), 1297, 250, 250)
        >>> load("red-wine", fold=3).test.x.shape
        torch.Size([160, 11])
    """
    if name not in DESCRIPTIONS:
        close = difflib.get_close_matches(str(name).lower(), DESCRIPTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(DESCRIPTIONS)}{hint}")
    if name.endswith("-wine"):
        from zoo.data import wine

        return wine.load(name, fold=0 if fold is None else fold)
    if fold is not None:
        raise ValueError(f"data set {name!r} has no folds, got fold={fold}")
    if "mnist" in name:
        from zoo.data import mnist

        return mnist.load(name, folder)
    if name in ("shakespeare", "names"):
        from zoo.data import text

        return text.load(name, folder)
    if name == "speech":
        from zoo.data import speech

        return speech.load()
    from zoo.data import digits

    return digits.load(name)


def __getattr__(attribute: str) -> Any:
    if attribute in ("BinarizedSplit", "Dataset", "Split"):
        from zoo.data import dataset

        return getattr(dataset, attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
