"""The comparison that several tests of the headline figures look at: every recipe for the digits, once."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import main


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``zoo compare --data digits``: what `make demo` runs.

    Where several processes test, one makes it, and the others wait for it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the one that they share
    with open(folder / "comparison.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "comparison" / "report.html").exists():
            with pytest.raises(SystemExit) as ended:
                main(["compare", "--data", "digits", "--out", str(folder / "comparison")])
            assert ended.value.code == 0
    return folder / "comparison"


@pytest.fixture
def trained_on_digits(comparison: Path) -> Callable[[str], dict[str, Any]]:
    """The metrics of a model's row, which is what ``zoo train`` gives as well."""

    def metrics(model: str) -> dict[str, Any]:
        found = json.loads((comparison / model / "metrics.json").read_text())
        return found | {"command": f"zoo train {model} --data digits"}

    return metrics
