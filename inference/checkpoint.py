"""Files that are there whole or not at all, and are read without running code."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch


@contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside the file's, to write to; what is there at the end takes the file's place at once.

    Args:
        path: Of the file; its folder must exist.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the old file is still there.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write_atomically(path: str | os.PathLike[str], data: bytes | Callable[[], bytes]) -> None:
    """Writes a file so that a reader, or a crash at any moment, finds the old or the new, never a part.

    Args:
        path: Where to; its folder must exist.
        data: The content, or what makes it.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the old file is still there.
    """
    with replaced_atomically(path) as part:
        part.write_bytes(data() if callable(data) else data)


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes tensors, numbers, strings and containers of them, atomically.

    Raises:
        OSError: As `write_atomically`.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote; nothing in the file can run code.

    Raises:
        ValueError: If the file is damaged, or holds anything but tensors, numbers, strings and containers.
        OSError: If it cannot be read.
    """
    content = Path(path).read_bytes()  # apart from the reading of it: torch raises OSError for a bad file too
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a different kind for every way in which a file can be bad
        raise ValueError(
            f"{path} is no checkpoint that can be read safely ({type(error).__name__}): it is damaged, or "
            "no training wrote it; delete it to start anew"
        ) from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint: expected a dict, got {type(state).__name__}")
    return state


def check_settings(path: str | os.PathLike[str], state: dict[str, Any], settings: dict[str, Any]) -> None:
    """Checks that a checkpoint was left by a training with the same ``settings``.

    Raises:
        ValueError: If it holds none, or others.
    """
    if not isinstance(state.get("settings"), dict):
        raise ValueError(f"{path} is no checkpoint of a training")
    for name, value in settings.items():
        before = state["settings"].get(name)
        if before != value:
            raise ValueError(
                f"{path} belongs to a training with another {name}: expected {value}, got {before}"
            )
