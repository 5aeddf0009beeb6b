"""What the tests of the command share: calling it in this process or another, and small trained runs."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.cli import main

ROOT = Path(__file__).resolve().parents[2]

SMALL = ("--set", "hidden=(8,)", "--epochs", "3", "--accelerator", "cpu")
"""Options of a training that takes a fraction of a second."""

SMALL_SUPERVISED = ("--set", "network=mlp", *SMALL)


def call(*args: object) -> int:
    """Calls the command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    return end.value.code


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def zoo(tmp_path, monkeypatch) -> Callable[..., int]:
    """`call`, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def refused(zoo, capsys) -> Callable[..., str]:
    """Calls the command, which must end with ``code`` and one line on standard error; returns the line."""

    def refused(*args: object, code: int = 2) -> str:
        capsys.readouterr()
        came = zoo(*args)
        printed = capsys.readouterr().err
        assert came == code, printed
        lines = printed.splitlines()
        assert len(lines) == 1, printed
        assert lines[0].startswith("zoo: ")
        return lines[0]

    return refused


def spawn_in(folder: Path, *args: object, code: str | None = None) -> subprocess.CompletedProcess:
    """Runs the command, or Python code that does, in another process and a folder."""
    return subprocess.run(
        [sys.executable, *(("-m", "zoo.cli") if code is None else ("-c", code)), *map(str, args)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def spawn(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """`spawn_in`, in an empty folder."""
    return functools.partial(spawn_in, tmp_path)


@pytest.fixture
def without_pictures(monkeypatch) -> None:
    """Leaves a run without its pictures, which take about as long as a small training."""
    monkeypatch.setattr("zoo.cli.pictures.draw_pictures", lambda model, dataset, run: [])


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Runs that no test may change: ``vae`` and ``supervised-vae``."""
    folder = tmp_path_factory.mktemp("trained")
    assert call("train", "vae", "--out", folder / "vae", *SMALL) == 0
    assert call("train", "supervised-vae", "--out", folder / "supervised-vae", *SMALL_SUPERVISED) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A trained ``vae`` of one's own."""
    return Path(shutil.copytree(trained / "vae", tmp_path / "run"))


@pytest.fixture
def supervised_run(trained, tmp_path) -> Path:
    """A trained ``supervised-vae`` of one's own."""
    return Path(shutil.copytree(trained / "supervised-vae", tmp_path / "supervised"))
