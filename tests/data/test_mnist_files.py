"""MNIST and Fashion-MNIST: where their files come from, and what is refused. No test leaves this machine."""

import gzip
import hashlib
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from zoo.data import load, mnist

NAMES = tuple(mnist.MNIST.md5)
IMAGES = NAMES[0]
SETS = tuple(mnist.SOURCES)
REAL = Path(os.environ.get("ZOO_DATA_DIR") or "/nowhere")


def is_here(name):
    return any((REAL / name / f"{IMAGES}{end}").is_file() for end in (".gz", ""))


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def small_set(seed):
    """Sixty images and ten to test, and their labels."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(
            0, 256 if "images" in name else 10, (n, 28, 28) if "images" in name else n, np.uint8
        )
        for name, n in zip(NAMES, (60, 60, 10, 10), strict=True)
    }


def compressed(arrays):
    return {f"{name}.gz": gzip.compress(idx(array)) for name, array in arrays.items()}


def mirrors_are(monkeypatch, *mirrors, name="mnist"):
    monkeypatch.setitem(mnist.SOURCES, name, replace(mnist.SOURCES[name], mirrors=mirrors))


@pytest.fixture
def arrays():
    return small_set(0)


@pytest.fixture
def clothes():
    """What takes the place of the files of Fashion-MNIST, which have the same names."""
    return compressed(small_set(1))


@pytest.fixture
def files(arrays, clothes, monkeypatch, tmp_path):
    """Small sets in the place of the two real ones; nothing but `tmp_path` is read or written."""
    digits = compressed(arrays)
    for name, contents in zip(SETS, (digits, clothes), strict=True):
        md5 = {file: hashlib.md5(data).hexdigest() for file, data in unpacked(contents).items()}
        monkeypatch.setitem(mnist.SOURCES, name, replace(mnist.SOURCES[name], md5=md5, mirrors=()))
    monkeypatch.setattr(mnist, "NUM_TRAIN", 50)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return digits


@pytest.fixture
def serve():
    """Starts servers on this machine: each gives the files of a dict, and lists what was asked of it."""
    servers = []

    def start(files):
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.strip("/")
                requests.append(name)
                if name not in files:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(files[name])))
                self.end_headers()
                self.wfile.write(files[name])

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def unpacked(files):
    return {name.removesuffix(".gz"): gzip.decompress(data) for name, data in files.items()}


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_parts_are_the_files_in_order(files, arrays, tmp_path):
    data = load("mnist", folder=write(tmp_path / "here", files))
    assert (data.name, data.event_shape, data.num_classes) == ("mnist", (28, 28), 10)
    assert (data.fold, data.num_folds) == (None, 1)
    images, labels, test_images, test_labels = arrays.values()
    expected = (images[:50], labels[:50]), (images[50:], labels[50:]), (test_images, test_labels)
    for part, (grey, label) in zip((data.train, data.valid, data.test), expected, strict=True):
        assert part.intensities.dtype == torch.uint8
        assert torch.equal(part.intensities, torch.from_numpy(grey))
        assert part.y.dtype == torch.int64 and part.y.tolist() == label.tolist()
        assert part.event_shape == (28, 28) and len(part) == len(grey)
        assert data.support.check(part.x).all()
    assert (data.train.dynamic, data.valid.dynamic, data.test.dynamic) == (True, False, False)
    assert len({part.seed for part in (data.train, data.valid, data.test)}) == 3


def test_levels_are_the_bytes_of_the_same_files_in_the_same_split(files, arrays, tmp_path):
    folder = write(tmp_path / "here", files)
    levels, binary = load("mnist-levels", folder=folder), load("mnist", folder=folder)
    assert (levels.name, levels.event_shape, levels.num_classes) == ("mnist-levels", (28, 28), 10)
    assert (levels.fold, levels.num_folds) == (None, 1)
    assert vars(levels.support) == vars(constraints.integer_interval(0, 255))
    assert levels.description != binary.description
    images, _, test_images, _ = arrays.values()
    expected = images[:50], images[50:], test_images
    for part, other, grey in zip(
        (levels.train, levels.valid, levels.test),
        (binary.train, binary.valid, binary.test),
        expected,
        strict=True,
    ):
        assert part.x.dtype == torch.int64 and part.x.tolist() == grey.tolist()
        assert torch.equal(part.y, other.y) and part.y.dtype == torch.int64
        assert not part.dynamic and part.intensities is None
        index = torch.tensor([3, 0, 3])
        assert torch.equal(part.batch(index), part.x[index])
        assert levels.support.check(part.x).all()
    assert levels.train.x.min() == 0 and levels.train.x.max() == 255


def test_levels_share_mirrors_and_cache_with_the_binary_set(files, serve, tmp_path, monkeypatch):
    mirror, requests = serve(files)
    mirrors_are(monkeypatch, mirror)
    levels = load("mnist-levels")
    assert requests == list(files)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mnist"]
    assert torch.equal(levels.test.y, load("mnist").test.y)
    assert requests == list(files), "no file is fetched twice"


def test_levels_are_of_the_digits_and_not_of_the_clothes(files, clothes, tmp_path):
    with pytest.raises(ValueError, match="of Fashion-MNIST, expected that of MNIST"):
        load("mnist-levels", folder=write(tmp_path / "here", clothes))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("where", ["folder", "data-dir", "data-dir/mnist", "cache"])
def test_files_are_found(where, compressed, files, tmp_path, monkeypatch):
    write(tmp_path / {"cache": "cache/mnist"}.get(where, where), files if compressed else unpacked(files))
    if where.startswith("data-dir"):
        monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data-dir"))
    assert len(load("mnist", folder=tmp_path / "folder" if where == "folder" else None).train) == 50


def test_the_folder_comes_before_the_data_dir_before_the_cache(files, tmp_path, monkeypatch):
    places = [tmp_path / place for place in ("folder", "data-dir/mnist", "data-dir", "cache/mnist")]
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data-dir"))
    for place in reversed(places):
        place.mkdir(parents=True, exist_ok=True)
    for place in reversed(places):  # the first place that has a file is the one that is complained about
        write(place, {f"{IMAGES}.gz": b"wrong"})
        with pytest.raises(ValueError) as caught:
            load("mnist", folder=places[0])
        assert one_line(caught).startswith(f"{place / IMAGES}.gz ")


def test_a_folder_that_is_not_there_is_refused(files, tmp_path):
    with pytest.raises(NotADirectoryError, match="nothing-here"):
        load("mnist", folder=tmp_path / "nothing-here")


def test_downloads_once(files, serve, tmp_path, monkeypatch):
    mirror, requests = serve(files)
    mirrors_are(monkeypatch, mirror)
    first = load("mnist")
    assert requests == list(files)
    cache = tmp_path / "cache" / "mnist"
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == files
    second = load("mnist")
    assert requests == list(files)
    assert torch.equal(first.test.x, second.test.x)


def test_a_download_says_nothing(files, serve, monkeypatch, capfd):
    mirrors_are(monkeypatch, serve(files)[0])
    load("mnist")
    assert capfd.readouterr() == ("", "")


def damaged(kind, data):
    altered = bytearray(gzip.decompress(data))
    altered[-1] ^= 1
    middle = len(data) // 2
    return {
        "truncated": data[:middle],
        "cut short": data[:-1],
        "altered": gzip.compress(bytes(altered)),
        "flipped": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        "not deflated": data[:10] + b"\xff" + data[11:],  # the first block is of a kind that does not exist
        "a page": b"<html>Please log in</html>",
        "empty": b"",
    }[kind]


DAMAGES = ["truncated", "cut short", "altered", "flipped", "not deflated", "a page", "empty"]


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", [IMAGES, NAMES[3]])
def test_a_damaged_file_is_refused(name, kind, files, tmp_path):
    files[f"{name}.gz"] = damaged(kind, files[f"{name}.gz"])
    folder = write(tmp_path / "here", files)
    with pytest.raises(ValueError) as caught:
        load("mnist", folder=folder)
    message = one_line(caught)
    assert message.startswith(f"{folder / name}.gz is ") and "expected" in message and name in message


@pytest.mark.parametrize("kind", [*DAMAGES, "missing"])
def test_a_bad_mirror_is_passed_over(kind, files, serve, tmp_path, monkeypatch):
    name = f"{IMAGES}.gz"
    bad = {other: data for other, data in files.items() if other != name}
    if kind != "missing":
        bad[name] = damaged(kind, files[name])
    (first, asked_first), (second, asked_second) = serve(bad), serve(files)
    mirrors_are(monkeypatch, first, second)
    assert len(load("mnist").train) == 50
    assert asked_first == list(files) and asked_second == [name]
    assert (tmp_path / "cache" / "mnist" / name).read_bytes() == files[name]


@pytest.mark.parametrize("kind", [*DAMAGES, "missing", "unreachable"])
def test_nothing_bad_is_left_in_the_cache(kind, files, serve, tmp_path, monkeypatch):
    name = f"{IMAGES}.gz"
    mirror, _ = serve({} if kind in ("missing", "unreachable") else {name: damaged(kind, files[name])})
    if kind == "unreachable":
        mirror = "http://127.0.0.1:1/"
    mirrors_are(monkeypatch, mirror)
    with pytest.raises(ConnectionError) as caught:
        load("mnist")
    message = one_line(caught)
    assert f"{mirror}{name}" in message and "ZOO_DATA_DIR" in message and str(tmp_path / "cache") in message
    assert list((tmp_path / "cache" / "mnist").iterdir()) == []


def test_an_interrupted_download_leaves_nothing(files, tmp_path, monkeypatch):
    def interrupted(self, url, output_file, pooch):
        Path(output_file).write_bytes(b"some of it")
        raise KeyboardInterrupt

    mirrors_are(monkeypatch, "http://127.0.0.1:1/")
    monkeypatch.setattr(mnist.pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert list((tmp_path / "cache" / "mnist").iterdir()) == []


# The two sets, whose files have the same names


def labels(files):
    """The labels of the test part, which tell the small sets apart."""
    return list(gzip.decompress(files["t10k-labels-idx1-ubyte.gz"])[8:])


def test_each_set_comes_from_its_own_folder(files, clothes, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data-dir"))
    write(tmp_path / "data-dir" / "mnist", files)
    write(tmp_path / "data-dir" / "fashion-mnist", clothes)
    assert labels(files) != labels(clothes)
    for name, expected in zip(SETS, (files, clothes), strict=True):
        data = load(name)
        assert data.name == name and data.description
        assert data.test.y.tolist() == labels(expected)
        assert (data.event_shape, data.num_classes, data.train.dynamic) == ((28, 28), 10, True)
        assert load(name, folder=tmp_path / "data-dir" / name).test.y.tolist() == labels(expected)


def test_each_set_has_its_own_mirrors_and_cache(files, clothes, serve, tmp_path, monkeypatch):
    for name, contents in zip(SETS, (files, clothes), strict=True):
        mirror, requests = serve(contents)
        mirrors_are(monkeypatch, mirror, name=name)
        for _ in range(2):
            assert load(name).test.y.tolist() == labels(contents)
        assert requests == list(contents)
        cache = tmp_path / "cache" / name
        assert {path.name: path.read_bytes() for path in cache.iterdir()} == contents


@pytest.mark.parametrize("name", SETS)
def test_a_data_dir_that_is_the_other_sets_folder_is_looked_past(name, files, clothes, tmp_path, monkeypatch):
    own, others = (files, clothes) if name == "mnist" else (clothes, files)
    write(tmp_path / "data-dir", others)
    write(tmp_path / "cache" / name, own)
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data-dir"))
    assert load(name).test.y.tolist() == labels(own)
    (tmp_path / "data-dir" / IMAGES).write_bytes(
        unpacked(own)[IMAGES]
    )  # behind the other set's compressed one
    (tmp_path / "cache" / name / f"{IMAGES}.gz").unlink()
    assert load(name).test.y.tolist() == labels(own)


def test_what_was_looked_past_is_said_where_there_is_nothing_else(files, clothes, tmp_path, monkeypatch):
    folder = write(tmp_path / "data-dir", files)
    monkeypatch.setenv("ZOO_DATA_DIR", str(folder))
    with pytest.raises(ConnectionError) as caught:
        load("fashion-mnist")
    message = one_line(caught)
    assert f"{folder / IMAGES}.gz is {IMAGES} of MNIST, expected that of Fashion-MNIST" in message
    assert f"{IMAGES}.gz of Fashion-MNIST is in none of" in message


@pytest.mark.parametrize("where", ["folder", "data-dir/fashion-mnist", "cache/fashion-mnist"])
def test_the_other_sets_file_is_refused_where_only_this_one_belongs(where, files, tmp_path, monkeypatch):
    folder = write(tmp_path / where, files)
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data-dir"))
    with pytest.raises(ValueError) as caught:
        load("fashion-mnist", folder=folder if where == "folder" else None)
    assert one_line(caught) == f"{folder / IMAGES}.gz is {IMAGES} of MNIST, expected that of Fashion-MNIST"


def test_a_mirror_that_serves_the_other_set_is_passed_over(files, clothes, serve, tmp_path, monkeypatch):
    (wrong, _), (right, _) = serve(files), serve(clothes)
    mirrors_are(monkeypatch, wrong, right, name="fashion-mnist")
    assert load("fashion-mnist").test.y.tolist() == labels(clothes)
    mirrors_are(monkeypatch, wrong, name="fashion-mnist")
    assert load("fashion-mnist").test.y.tolist() == labels(clothes), "from the cache"


def test_the_two_sets_are_pinned_apart():
    digits, clothes = mnist.SOURCES.values()
    assert list(digits.md5) == list(clothes.md5)
    assert not {*digits.md5.values()} & {*clothes.md5.values()}
    assert not {*digits.mirrors} & {*clothes.mirrors}
    assert all(mirror.endswith("/") for mirror in digits.mirrors + clothes.mirrors)
    assert clothes.mirrors[0].startswith("https://")


# The real files

FIRST_LABELS = {
    "mnist": ([5, 0, 4, 1, 9], [7, 2, 1, 0, 4]),
    "fashion-mnist": ([9, 0, 0, 3, 0], [9, 2, 1, 1, 6]),
}

TEST_BITS = {
    "mnist": "65496e2c574d83e5bad353ce84c447bc8839aae0fb0095096bf0ff8759e11b95",
    "fashion-mnist": "e3e0563d0766baf5282006fa73be64e7446e1898f211c1b47d9a8172b7bfa282",
}


@pytest.mark.parametrize("name", SETS)
def test_the_real_files(name):
    if not is_here(name):
        pytest.skip(f"ZOO_DATA_DIR has no {name}")
    data = load(name)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [50_000, 10_000, 10_000]
    assert (data.train.y[:5].tolist(), data.test.y[:5].tolist()) == FIRST_LABELS[name]
    packed = np.packbits(data.test.x.numpy().astype(np.uint8)).tobytes()
    assert hashlib.sha256(packed).hexdigest() == TEST_BITS[name]
    assert data.support is constraints.boolean and data.support.check(data.valid.x).all()
    index = torch.arange(100)
    batch = data.train.batch(index, torch.Generator().manual_seed(0))
    grey = data.train.intensities[index]
    assert batch[grey == 0].sum() == 0 and batch[grey == 255].all()
    assert batch.mean().item() == pytest.approx(grey.double().mean().item() / 255, abs=0.005)


def test_the_real_levels():
    if not is_here("mnist"):
        pytest.skip("ZOO_DATA_DIR has no mnist")
    data = load("mnist-levels")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [50_000, 10_000, 10_000]
    assert data.test.x.dtype == torch.int64 and (data.test.x.min(), data.test.x.max()) == (0, 255)
    binary = load("mnist")
    for part, other in ((data.train, binary.train), (data.valid, binary.valid), (data.test, binary.test)):
        assert torch.equal(part.x[:100].to(torch.uint8), other.intensities[:100])
        assert torch.equal(part.y, other.y)


def test_a_data_dir_that_is_the_folder_of_one_real_set_never_gives_the_other(monkeypatch, tmp_path):
    if not all(map(is_here, SETS)):
        pytest.skip("ZOO_DATA_DIR has not both sets")
    mirrors_are(monkeypatch, name="fashion-mnist")
    monkeypatch.setenv("ZOO_DATA_DIR", str(REAL / "mnist"))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConnectionError, match="of MNIST, expected that of Fashion-MNIST"):
        load("fashion-mnist")
