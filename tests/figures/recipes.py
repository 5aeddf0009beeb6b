"""What the tests of the headline figures share: a recipe run from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from zoo.cli import main

RESULTS = Path(__file__).parents[2] / "results"


def run(arguments: str, out: Path) -> dict[str, Any]:
    """Runs ``zoo train``, and returns the metrics that it wrote."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments.split(), "--out", str(out)])
    assert ended.value.code == 0
    return json.loads((out / "metrics.json").read_text()) | {"command": f"zoo train {arguments}"}


def anomalies(run: Path) -> dict[str, Any]:
    """Runs ``zoo anomaly`` on a run folder, and returns the figures that it wrote."""
    with pytest.raises(SystemExit) as ended:
        main(["anomaly", str(run)])
    assert ended.value.code == 0
    return json.loads((run / "anomaly.json").read_text())


def recorded(name: str) -> dict[str, Any]:
    """The record of a run that takes too long to be repeated here: it holds the command that made it."""
    return json.loads((RESULTS / f"{name}.json").read_text())
