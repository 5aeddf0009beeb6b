"""A run folder: ``config.json``, ``model.safetensors``, ``metrics.json``, ``history.csv`` and pictures."""

import csv
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from zoo.model import GenerativeModel


TEST_FIGURES = dict.fromkeys(("nats_per_item", "standard_error", "bits_per_dim", "kind"))
"""What the ``test`` of a ``metrics.json`` holds at least."""


class RunFolder:
    """The files of one run; every one is written whole or not at all.

    Args:
        path: The folder; it need not be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.pt"

    def open(self, config: dict[str, Any]) -> bool:
        """Takes the folder for a run of ``config``; returns whether the run is new, and not one that goes on.

        Raises:
            UsageFault: If it holds something else, or a run of another configuration.
            OSError: If it cannot be written.
        """
        config = json.loads(json.dumps(config))
        self.check_free(allowed=("config.json",))
        if not (self.path / "config.json").exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
            return True
        before = self.config()
        asked, there = _flat(config), _flat(before)
        for name in sorted({*asked, *there}):
            if asked.get(name) != there.get(name):
                raise UsageFault(
                    f"{self.path} holds a run with another {name}: asked for {_short(asked.get(name))}, "
                    f"there is {_short(there.get(name))}; choose another --out, or delete the folder"
                )
        return False

    def check_free(self, allowed: tuple[str, ...]) -> None:
        """Checks that a run may be written here: into no folder yet, an empty one, or one that runs left.

        Args:
            allowed: Patterns of the file names that mark what a run left.

        Raises:
            UsageFault: If this is a file, or a folder that holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageFault(f"--out expects a folder, got the file {self.path}")
        ours = any(next(self.path.glob(pattern), None) for pattern in allowed)
        if self.path.exists() and not ours and any(file.suffix != ".part" for file in self.path.iterdir()):
            raise UsageFault(f"{self.path} is not empty and holds no such run; choose another --out")

    def discard(self) -> None:
        """Takes back what `open` wrote for a new run, of which nothing else is there."""
        (self.path / "config.json").unlink()
        with suppress(OSError):  # there may be something else in it
            self.path.rmdir()

    def config(self) -> dict[str, Any]:
        """``config.json``.

        Raises:
            UsageFault: If the folder holds no run, or the file is damaged.
        """
        from zoo.cli.recipe import BOUNDS, check_config

        config = self._read_json("config.json")
        config.setdefault("bound", BOUNDS[0])  # runs from before there was a choice
        config.setdefault("annealing", {})
        if isinstance(config.get("fit"), dict) and config.get("objective") != "em":
            config["fit"].setdefault("weight_decay", 0.0)  # runs from before there was one had none
            config["fit"].setdefault("momentum", None)
            config["fit"].setdefault("betas", [0.9, 0.999])
        check_config(config, self.path / "config.json")
        return config

    def metrics(self) -> dict[str, Any]:
        """``metrics.json``, empty where there is none yet.

        Raises:
            UsageFault: If the file is damaged.
        """
        path = self.path / "metrics.json"
        metrics = self._read_json("metrics.json") if path.exists() else {}
        if metrics and not metrics.keys() >= {
            "model",
            "data",
            "objective",
            "epochs",
            "seconds",
            "parameters",
            "seed",
        }:
            raise UsageFault(f"{path} is damaged: it does not hold the figures of a training")
        test = metrics.get("test", TEST_FIGURES)
        if not isinstance(test, dict) or not test.keys() >= TEST_FIGURES.keys():
            raise UsageFault(f"{path} is damaged: its test must hold {', '.join(TEST_FIGURES)}")
        return metrics

    @property
    def is_finished(self) -> bool:
        """Whether a training ended here, and what it gave is there."""
        metrics = self.metrics()
        return (
            bool(metrics.get("finished")) and "test" in metrics and (self.path / "model.safetensors").exists()
        )

    @property
    def folds(self) -> list["RunFolder"]:
        """The runs of the single folds, where this folder holds a cross-validation."""
        return [
            RunFolder(path) for path in sorted(self.path.glob("fold-*")) if (path / "config.json").exists()
        ]

    def load_model(self) -> "GenerativeModel":
        """The model with its trained weights.

        Raises:
            UsageFault: If the folder holds no trained model, or the weights are damaged or of another model.
        """
        from zoo.cli.recipe import build_model

        model = build_model(self.config())
        self.load_weights(model)
        return model.eval()

    def load_weights(self, model: "GenerativeModel") -> None:
        """Gives a model the trained weights.

        Raises:
            UsageFault: If the folder holds none, or they are damaged or of another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path / "model.safetensors"
        if not self.path.is_dir():
            raise UsageFault(f"there is no run folder {self.path}")
        if not path.exists():
            raise UsageFault(
                f"{self.path} holds no trained model yet (model.safetensors); finish zoo train first"
            )
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise UsageFault(f"{path} is damaged: {error}") from None
        expected = {name: value.shape for name, value in model.state_dict().items()}
        came = {name: value.shape for name, value in weights.items()}
        for name in sorted({*expected, *came}):
            if expected.get(name) != came.get(name):
                raise UsageFault(
                    f"{path} belongs to another model: {name} should be {_shape(expected.get(name))}, "
                    f"and is {_shape(came.get(name))}"
                )
        model.load_state_dict(weights)

    def save_model(self, model: "GenerativeModel") -> None:
        """Writes ``model.safetensors``."""
        from safetensors.torch import save

        self._write(
            "model.safetensors", save({name: v.contiguous() for name, v in model.state_dict().items()})
        )

    def save_history(self, history: list[dict[str, float]]) -> None:
        """Writes ``history.csv``: a row for each epoch, losses in nats per item."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(history)
        self._write("history.csv", text.getvalue().encode())

    def history(self) -> list[dict[str, float]]:
        """``history.csv`` as it was written, empty where there is none.

        Raises:
            UsageFault: If the file is damaged.
        """
        path = self.path / "history.csv"
        if not path.exists():
            return []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if any("epoch" not in row for row in rows):
                raise ValueError("no epoch")
            return [
                {name: int(value) if name == "epoch" else float(value) for name, value in row.items()}
                for row in rows
            ]
        except (ValueError, TypeError, csv.Error):  # no number, a row too short or too long, no text at all
            raise UsageFault(f"{path} is damaged: expected a table of numbers") from None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON file."""
        self._write(name, (json.dumps(content, indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        from inference.checkpoint import write_atomically

        write_atomically(self.path / name, data)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not self.path.is_dir():
            raise UsageFault(f"there is no run folder {self.path}")
        if not path.exists():
            what = f"; its folds are {self.path}/fold-0 and so on" if self.folds else ""
            raise UsageFault(f"{self.path} is no run folder: it has no {name}{what}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageFault(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise UsageFault(f"{path} is damaged: expected a JSON object, got {_short(content)}")
        return content


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full name, as in ``fit.epochs``."""
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _shape(shape: Any) -> str:
    return "absent" if shape is None else str(tuple(shape))
