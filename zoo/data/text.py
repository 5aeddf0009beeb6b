"""Texts, a character for each entry: Shakespeare in windows, and English first names, one an item.

References:
    | The works of William Shakespeare, as Project Gutenberg has typed them
    | Moby Word II (Grady Ward, 1996), its lists of names
"""

import hashlib
import re
from importlib import resources
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.data.dataset import Dataset, Split
from zoo.data.local_files import data_dir, unpacked
from zoo.data.sequences import SequenceSplit

ALPHABET = f"\n !\"&'()*,-./{digits}:;?@{ascii_uppercase}[]_{ascii_lowercase}{{}}"
"""What the 36 texts to learn from hold; those held out hold nothing else."""

WINDOW = 100
"""Characters of an item of ``shakespeare``."""

COMPLETE = "shakespeare-complete.txt"
"""All 42 texts, one after the other; compressed, it has ``.gz`` behind its name."""

SHA256 = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
"""Of its content, decompressed."""

TITLE = re.compile(r"(?:THE END)?([A-Z][A-Z';, ]+)\n\n?by William Shakespeare\n")
"""How each text begins: in the line where the one before it ends, which may say so."""

VALID = ("AS YOU LIKE IT", "JULIUS CAESAR", "KING JOHN")
"""The texts to stop by and to choose by: a comedy, a tragedy and a history."""

TEST = ("TWELFTH NIGHT; OR, WHAT YOU WILL", "MACBETH", "THE TRAGEDY OF KING RICHARD THE SECOND")
"""The texts to report on: the same."""

END = "\n"
"""What ends a name, and fills it up."""

NAME_ALPHABET = f"{END}-{ascii_uppercase}{ascii_lowercase}"

HELD_OUT_NAMES = 800
"""In the validation part, and as many in the test part."""


def load(name: str = "shakespeare", folder: str | Path | None = None) -> Dataset:
    """Loads Shakespeare or the names.

    ``shakespeare``: where all 42 texts are found, in ``folder``, in the folder that ``ZOO_DATA_DIR`` names or
    in its folder ``text``, `VALID` and `TEST` are held out, and the 36 others are to learn from. Else it is
    *Coriolanus* alone, which is embedded: acts I to III (with the list of persons) to learn from, act IV for
    validation, act V for the test. Nothing is changed in a text; upper and lower case differ. The alphabet is
    that of the 36 texts either way, so that a run on the one can read the other. Items are windows of 100
    characters, shape ``(100,)``; the whole texts are the ``sequences`` of each part.

    ``names``: 8,422 first names from a list of women's and one of men's, each once, in a permutation of seed
    0: 6,822 to learn from, 800 for validation, 800 for the test; no part has a name of another. Items have
    shape ``(16,)``: a name, and the end symbol, entry 0, until they are full. Labels are 0 for names of the
    women's list alone, 1 of the men's alone, 2 of both.

    Entries are integers, int64, that number the characters of ``Dataset.alphabet``.

    Args:
        name: ``shakespeare`` or ``names``.
        folder: Where all of Shakespeare is looked for first.

    Raises:
        ValueError: If a file that was found has wrong content.
        OSError: If ``folder`` is none, or has no such file.

    Example:
        >>> data = load("names")
        >>> data.event_shape, len(data.train), len(data.alphabet)
        (torch.Size([16]), 6822, 54)
        >>> data.decode(data.train.x[0]).rstrip()
        'Lucilia'
    """
    return _names() if name == "names" else _shakespeare(folder)


def _shakespeare(folder: str | Path | None) -> Dataset:
    whole = _complete(folder)
    if whole is None:
        train, valid, test = _acts(_embedded("coriolanus.txt"))
        description = "Coriolanus, acts I to III to learn from, in windows of 100 characters"
    else:
        texts = _texts(whole)
        held_out = {*VALID, *TEST}
        train = [text for title, text in texts.items() if title not in held_out]
        valid, test = ([texts[title] for title in titles] for titles in (VALID, TEST))
        description = f"Shakespeare, {len(train)} texts to learn from, in windows of 100 characters"
    return _dataset(
        "shakespeare",
        ALPHABET,
        description,
        *(
            SequenceSplit([_entries(text, ALPHABET) for text in part], WINDOW)
            for part in (train, valid, test)
        ),
    )


def _names() -> Dataset:
    women, men = (set(_embedded(f"first-names-{sex}.txt").split()) for sex in ("female", "male"))
    names = sorted(women | men)
    length = max(map(len, names)) + 1
    x = _entries("".join(name.ljust(length, END) for name in names), NAME_ALPHABET).view(-1, length)
    y = torch.tensor([2 if name in women & men else int(name in men) for name in names])
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(names)))
    sizes = (len(names) - 2 * HELD_OUT_NAMES, HELD_OUT_NAMES, HELD_OUT_NAMES)
    return _dataset(
        "names",
        NAME_ALPHABET,
        "English first names, a character each entry",
        *(Split(x[index], y[index]) for index in order.split(sizes)),
        num_classes=3,
    )


def _dataset(
    name: str,
    alphabet: str,
    description: str,
    train: Split,
    valid: Split,
    test: Split,
    num_classes: int | None = None,
) -> Dataset:
    return Dataset(
        name=name,
        event_shape=train.event_shape,
        support=constraints.integer_interval(0, len(alphabet) - 1),
        train=train,
        valid=valid,
        test=test,
        num_classes=num_classes,
        description=description,
        alphabet=alphabet,
    )


def _entries(text: str, alphabet: str) -> Tensor:
    numbers = np.zeros(128, dtype=np.int64)
    numbers[[ord(character) for character in alphabet]] = np.arange(len(alphabet))
    return torch.from_numpy(numbers[np.frombuffer(text.encode("ascii"), np.uint8)])


def _texts(whole: str) -> dict[str, str]:
    """The texts by their titles."""
    titles = list(TITLE.finditer(whole))
    ends = [title.start(1) for title in titles[1:]] + [len(whole)]
    return {title[1]: whole[title.start(1) : end] for title, end in zip(titles, ends, strict=True)}


def _acts(play: str) -> tuple[list[str], list[str], list[str]]:
    """A play's first three acts as one text, its fourth, its fifth."""
    fourth, fifth = play.index("\nACT IV.") + 1, play.index("\nACT V.") + 1
    return [play[:fourth]], [play[fourth:fifth]], [play[fifth:]]


def _embedded(name: str) -> str:
    return resources.files("zoo.data").joinpath("files", name).read_text(encoding="ascii")


def _complete(folder: str | Path | None) -> str | None:
    """All texts, where they are found."""
    places = []
    if folder is not None:
        places.append(Path(folder).expanduser().absolute())
        if not places[0].is_dir():
            raise NotADirectoryError(f"folder {str(folder)!r} does not exist or is not a folder")
    if root := data_dir():
        places += [root / "text", root]
    for place in places:
        for path in (place / f"{COMPLETE}.gz", place / COMPLETE):
            if path.is_file():
                return _verified(path)
        if place == places[0] and folder is not None:
            raise FileNotFoundError(
                f"{place} has no {COMPLETE}.gz; without a folder, one embedded play is loaded"
            )
    return None


def _verified(path: Path) -> str:
    content = unpacked(path, COMPLETE)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != SHA256:
        raise ValueError(f"{path} is not the {COMPLETE} expected: it has SHA-256 {sha256}, expected {SHA256}")
    return content.decode("ascii")
