"""MNIST: 70,000 handwritten digits, 28×28, grey levels made binary at random.

The files are looked for in the folders that the user names, then in the cache, and else downloaded. Whichever
way a file came, its decompressed content must have the known MD5 (compressed ones differ between mirrors).

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998)
"""

import gzip
import hashlib
import os
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.data import DESCRIPTIONS
from zoo.data.dataset import BinarizedSplit, Dataset

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

NUM_TRAIN = 50_000  # of the 60,000 in the training files; the others are for validation


def load(folder: str | Path | None = None) -> Dataset:
    """Loads MNIST, of shape ``(28, 28)``, binary, float32; labels are the digits.

    ``train.batch`` binarises afresh at each call; ``valid`` and ``test`` have one fixed binarisation each.

    Args:
        folder: A folder with the four files, compressed or not, to look in first.

    Raises:
        ValueError: If a file that was found has the wrong content.
        OSError: If a file was not found and cannot be downloaded, or ``folder`` does not exist.
    """
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise NotADirectoryError(f"folder {str(folder)!r} does not exist or is not a folder")
    images, labels, test_images, test_labels = (_tensor(_content(name, folder)) for name in MD5)
    return Dataset(
        name="mnist",
        event_shape=images.shape[1:],
        support=constraints.boolean,
        train=BinarizedSplit(images[:NUM_TRAIN], labels[:NUM_TRAIN].long(), seed=0, dynamic=True),
        valid=BinarizedSplit(images[NUM_TRAIN:], labels[NUM_TRAIN:].long(), seed=1),
        test=BinarizedSplit(test_images, test_labels.long(), seed=2),
        num_classes=10,
        description=DESCRIPTIONS["mnist"],
    )


def _tensor(idx: bytes) -> Tensor:
    """Reads the idx format: 00 00 08, the number of dimensions, each as big-endian int32, then the bytes."""
    num_dims = idx[3]
    shape = np.frombuffer(idx, ">i4", num_dims, offset=4)
    return torch.from_numpy(np.frombuffer(idx, np.uint8, offset=4 + 4 * num_dims).reshape(shape).copy())


def _content(name: str, folder: str | Path | None) -> bytes:
    """Returns the verified, decompressed content of one of the files."""
    places = _folders(folder)
    for place in places:
        for path in (place / f"{name}.gz", place / name):
            if path.is_file():
                return _verified(path, name)
    return _download(name, places)


def _folders(folder: str | Path | None) -> list[Path]:
    places = [] if folder is None else [Path(folder)]
    if data_dir := os.environ.get("ZOO_DATA_DIR"):
        places += [Path(data_dir) / "mnist", Path(data_dir)]
    return [*(place.expanduser().absolute() for place in places), _cache()]


def _cache() -> Path:
    root = Path(os.environ.get("ZOO_CACHE_DIR") or pooch.os_cache("pyro-zoo"))
    return root.expanduser().absolute() / "mnist"


def _verified(path: Path, name: str) -> bytes:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} is a truncated or damaged gzip file ({error}), expected {name}"
            ) from None
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise ValueError(f"{path} is not {name} of MNIST: its content has MD5 {md5}, expected {MD5[name]}")
    return content


def _download(name: str, places: list[Path]) -> bytes:
    """Downloads one file into the cache, where it gets its name only once its content is verified."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)
    reasons = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
            path = Path(scratch) / f"{name}.gz"
            try:
                fetch(url, str(path), None)
                content = _verified(path, name)
            except (OSError, ValueError) as error:
                reasons.append(f"{url}: {' '.join(str(error).split()).replace(str(path), 'the file')}")
                continue
            os.replace(path, cache / path.name)
            return content
    raise ConnectionError(
        f"{name}.gz is in none of {', '.join(map(str, places))} and could not be downloaded "
        f"({'; '.join(reasons)}); set ZOO_DATA_DIR to a folder that has it"
    )
