"""MNIST and Fashion-MNIST: 70,000 images each, 28×28, grey levels as they are or made binary at random.

The files are looked for in the folders that the user names, then in the cache, and else downloaded. Whichever
way a file came, its decompressed content must have the known MD5 (compressed ones differ between mirrors),
which also tells whose it is: the two sets' files have the same names.

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998)
    | Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms (Xiao et al., 2017)
"""

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.data import DESCRIPTIONS
from zoo.data.dataset import BinarizedSplit, Dataset, Split
from zoo.data.local_files import data_dir, unpacked


@dataclass(frozen=True)
class Source:
    """Where the four files of a set come from, and how they are known.

    Args:
        name: The name that `load` takes, and the folder of the files, in the cache and in ``ZOO_DATA_DIR``.
        title: What people call it.
        mirrors: Addresses of folders that have the files, compressed.
        md5: Of the decompressed content of each file: training images and labels, test images and labels.
    """

    name: str
    title: str
    mirrors: tuple[str, ...]
    md5: dict[str, str]


MNIST = Source(
    name="mnist",
    title="MNIST",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    title="Fashion-MNIST",
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        # The address that its authors give, and torchvision's: the same bucket as a web site, without TLS.
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}

NUM_TRAIN = 50_000  # of the 60,000 in the training files; the others are for validation


class OtherSetError(ValueError):
    """A file is sound, and belongs to the other set, whose files have the same names."""


def load(name: str = "mnist", folder: str | Path | None = None) -> Dataset:
    """Loads one of the two sets, of shape ``(28, 28)``; labels are the ten classes.

    Binary ones are float32: ``train.batch`` binarises afresh at each call; ``valid`` and ``test`` have one
    fixed binarisation each.

    Args:
        name: ``mnist`` for handwritten digits, ``fashion-mnist`` for pieces of clothing; ``mnist-levels`` for
            the digits' levels 0 to 255, int64.
        folder: A folder with the four files, compressed or not, to look in first.

    Raises:
        ValueError: If a file that was found has the wrong content. A file of the other set is passed over in
            the folder that ``ZOO_DATA_DIR`` names, which may be that set's own, and refused anywhere else.
        OSError: If a file was not found and cannot be downloaded, or ``folder`` does not exist.
    """
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise NotADirectoryError(f"folder {str(folder)!r} does not exist or is not a folder")
    source = SOURCES[name.removesuffix("-levels")]
    images, labels, test_images, test_labels = (
        _tensor(_content(source, file, folder)) for file in source.md5
    )
    parts = (
        (images[:NUM_TRAIN], labels[:NUM_TRAIN].long()),
        (images[NUM_TRAIN:], labels[NUM_TRAIN:].long()),
        (test_images, test_labels.long()),
    )
    binary = name in SOURCES
    if binary:
        train, valid, test = (
            BinarizedSplit(grey, y, seed=seed, dynamic=seed == 0) for seed, (grey, y) in enumerate(parts)
        )
    else:
        train, valid, test = (Split(grey.long(), y) for grey, y in parts)
    return Dataset(
        name=name,
        event_shape=images.shape[1:],
        support=constraints.boolean if binary else constraints.integer_interval(0, 255),
        train=train,
        valid=valid,
        test=test,
        num_classes=10,
        description=DESCRIPTIONS[name],
    )


def _tensor(idx: bytes) -> Tensor:
    """Reads the idx format: 00 00 08, the number of dimensions, each as big-endian int32, then the bytes."""
    num_dims = idx[3]
    shape = np.frombuffer(idx, ">i4", num_dims, offset=4)
    return torch.from_numpy(np.frombuffer(idx, np.uint8, offset=4 + 4 * num_dims).reshape(shape).copy())


def _content(source: Source, name: str, folder: str | Path | None) -> bytes:
    """Returns the verified, decompressed content of one of the files."""
    places = _folders(source, folder)
    passed_over = []
    for place in places:
        for path in (place / f"{name}.gz", place / name):
            if not path.is_file():
                continue
            try:
                return _verified(path, source, name)
            except OtherSetError as error:
                if place != data_dir():
                    raise
                passed_over.append(str(error))
    return _download(source, name, places, passed_over)


def _folders(source: Source, folder: str | Path | None) -> list[Path]:
    places = [] if folder is None else [Path(folder).expanduser().absolute()]
    if root := data_dir():
        places += [root / source.name, root]
    return [*places, _cache(source)]


def _cache(source: Source) -> Path:
    root = Path(os.environ.get("ZOO_CACHE_DIR") or pooch.os_cache("pyro-zoo"))
    return root.expanduser().absolute() / source.name


def _verified(path: Path, source: Source, name: str) -> bytes:
    content = unpacked(path, name)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 == source.md5[name]:
        return content
    for other in SOURCES.values():
        if md5 == other.md5[name]:
            raise OtherSetError(f"{path} is {name} of {other.title}, expected that of {source.title}")
    raise ValueError(
        f"{path} is not {name} of {source.title}: its content has MD5 {md5}, expected {source.md5[name]}"
    )


def _download(source: Source, name: str, places: list[Path], passed_over: list[str]) -> bytes:
    """Downloads one file into the cache, where it gets its name only once its content is verified."""
    cache = _cache(source)
    cache.mkdir(parents=True, exist_ok=True)
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)
    reasons = list(passed_over)
    for mirror in source.mirrors:
        url = f"{mirror}{name}.gz"
        with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
            path = Path(scratch) / f"{name}.gz"
            try:
                fetch(url, str(path), None)
                content = _verified(path, source, name)
            except (OSError, ValueError) as error:
                reasons.append(f"{url}: {' '.join(str(error).split()).replace(str(path), 'the file')}")
                continue
            os.replace(path, cache / path.name)
            return content
    raise ConnectionError(
        f"{name}.gz of {source.title} is in none of {', '.join(map(str, places))} and could not be "
        f"downloaded ({'; '.join(reasons)}); set ZOO_DATA_DIR to a folder that has it"
    )
