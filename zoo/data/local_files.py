"""Files of data sets that the user has already: where they are looked for, and how they are unpacked."""

import gzip
import os
import zlib
from pathlib import Path


def data_dir() -> Path | None:
    """The folder that ``ZOO_DATA_DIR`` names, if any."""
    named = os.environ.get("ZOO_DATA_DIR")
    return Path(named).expanduser().absolute() if named else None


def unpacked(path: Path, name: str) -> bytes:
    """The content of a file, decompressed where it is compressed by gzip.

    Args:
        path: The file.
        name: What it should be, for the message.

    Raises:
        ValueError: If it is damaged.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a truncated or damaged gzip file ({error}), expected {name}") from None
