"""The comparison that several tests of the headline figures look at: every recipe for the digits, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import main


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes test, one of them makes the comparison, and has all that look at it."""
    for item in items:
        if "comparison" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("comparison"))


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``zoo compare --data digits``: what `make demo` runs."""
    out = tmp_path_factory.mktemp("comparison") / "digits"
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--data", "digits", "--out", str(out)])
    assert ended.value.code == 0
    return out


@pytest.fixture
def trained_on_digits(comparison: Path) -> Callable[[str], dict[str, Any]]:
    """The metrics of a model's row, which is what ``zoo train`` gives as well."""

    def metrics(model: str) -> dict[str, Any]:
        found = json.loads((comparison / model / "metrics.json").read_text())
        return found | {"command": f"zoo train {model} --data digits"}

    return metrics
