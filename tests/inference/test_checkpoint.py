"""`inference.checkpoint`: whole files or none, and nothing in them is run."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from inference.checkpoint import load_checkpoint, save_checkpoint, write_atomically


def test_write_replaces_the_content_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, lambda: b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_leftover_part_of_a_killed_process_is_overwritten(tmp_path):
    path = tmp_path / "file"
    (tmp_path / "file.part").write_bytes(b"half of something far longer than the content")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt(), RuntimeError()]
)
def test_failure_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, function, error):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_that_cannot_be_made_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda: bytes(1 // 0))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(("fsync", os.fstat(fd).st_size)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", b)), replace(a, b)))
    write_atomically(tmp_path / "file", b"12345")
    assert calls == [("fsync", 5), ("replace", tmp_path / "file")]


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"a": torch.arange(3), "b": [{"c": 1.5}], "d": {"e": (1, "f")}, 0: None}
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("a"), state.pop("a"))
    assert loaded == state


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        flipped,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint at all"),
        lambda path: path.write_bytes(path.read_bytes()[:10]),
        lambda path: path.write_bytes(pickle.dumps({"a": object})),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save(torch.nn.Linear(1, 1), path),
    ],
)
def test_damaged_file_is_refused_in_one_line(tmp_path, spoil):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.arange(1000)})
    spoil(path)
    with pytest.raises(ValueError, match="checkpoint.pt is no checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, dump):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was-run"),)

    dump({"settings": Malicious()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="is no checkpoint that can be read safely"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "was-run").exists()


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none")
