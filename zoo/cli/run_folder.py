"""A run folder: ``config.json``, ``model.safetensors``, ``metrics.json``, ``history.csv`` and pictures."""

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from zoo.model import GenerativeModel


class RunFolder:
    """The files of one run; every one is written whole or not at all.

    Args:
        path: The folder; it need not be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.pt"

    def open(self, config: dict[str, Any]) -> None:
        """Takes the folder for a run of ``config``: a new one, or one that is resumed.

        Raises:
            UsageFault: If it holds something else, or a run of another configuration.
            OSError: If it cannot be written.
        """
        config = json.loads(json.dumps(config))
        if self.path.exists() and not self.path.is_dir():
            raise UsageFault(f"--out expects a folder, got the file {self.path}")
        if (self.path / "config.json").exists():
            before = self.config()
            for name in sorted({*config, *before}):
                if config.get(name) != before.get(name):
                    raise UsageFault(
                        f"{self.path} holds a run with another {name}: asked for {_short(config.get(name))}, there is "
                        f"{_short(before.get(name))}; choose another --out, or delete the folder"
                    )
            return
        if self.path.exists() and any(file for file in self.path.iterdir() if file.suffix != ".part"):
            raise UsageFault(f"{self.path} is no run folder and not empty; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", config)

    def config(self) -> dict[str, Any]:
        """``config.json``.

        Raises:
            UsageFault: If the folder holds no run, or the file is damaged.
        """
        return self._read_json("config.json", required=("model", "data", "event_shape", "arguments", "objective"))

    def metrics(self) -> dict[str, Any]:
        """``metrics.json``, empty where there is none yet."""
        return self._read_json("metrics.json") if (self.path / "metrics.json").exists() else {}

    @property
    def folds(self) -> list["RunFolder"]:
        """The runs of the single folds, where this folder holds a cross-validation."""
        return [RunFolder(path) for path in sorted(self.path.glob("fold-*")) if (path / "config.json").exists()]

    def load_model(self) -> "GenerativeModel":
        """The model with its trained weights.

        Raises:
            UsageFault: If the folder holds no trained model, or the weights are damaged or of another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from zoo.cli.recipe import build_model

        model = build_model(self.config())
        path = self.path / "model.safetensors"
        if not path.exists():
            raise UsageFault(f"{self.path} holds no trained model yet (model.safetensors); finish zoo train first")
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise UsageFault(f"{path} is damaged: {error}") from None
        expected = {name: value.shape for name, value in model.state_dict().items()}
        came = {name: value.shape for name, value in weights.items()}
        if expected != came:
            name = next(iter(sorted(name for name in {*expected, *came} if expected.get(name) != came.get(name))))
            raise UsageFault(
                f"{path} belongs to another model: expected {name} {_shape(expected.get(name))}, "
                f"got {_shape(came.get(name))}"
            )
        model.load_state_dict(weights)
        return model.eval()

    def save_model(self, model: "GenerativeModel") -> None:
        """Writes ``model.safetensors``."""
        from safetensors.torch import save

        self._write("model.safetensors", save({name: v.contiguous() for name, v in model.state_dict().items()}))

    def save_history(self, history: list[dict[str, float]]) -> None:
        """Writes ``history.csv``: a row for each epoch, losses in nats per item."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        self._write("history.csv", text.getvalue().encode())

    def history(self) -> list[dict[str, float]]:
        """``history.csv`` as it was written."""
        with open(self.path / "history.csv", newline="") as file:
            return [
                {name: int(value) if name == "epoch" else float(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON file."""
        self._write(name, (json.dumps(content, indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        from inference.checkpoint import write_atomically

        write_atomically(self.path / name, data)

    def _read_json(self, name: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
        path = self.path / name
        if not self.path.is_dir():
            raise UsageFault(f"there is no run folder {self.path}")
        if not path.exists():
            what = f"; its folds are {self.path}/fold-0 and so on" if self.folds else ""
            raise UsageFault(f"{self.path} is no run folder: it has no {name}{what}")
        try:
            content = json.loads(path.read_text())
        except (ValueError, UnicodeDecodeError) as error:
            raise UsageFault(f"{path} is damaged: {error}") from None
        missing = [key for key in required if not isinstance(content, dict) or key not in content]
        if missing:
            raise UsageFault(f"{path} is damaged: it has no {', '.join(missing)}")
        return content


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _shape(shape: Any) -> str:
    return "not there" if shape is None else str(tuple(shape))
