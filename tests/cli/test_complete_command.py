"""``zoo complete``: what it hides, what it draws, what it says of it, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import get_args

import matplotlib.image
import numpy as np
import pytest
import torch

import inference
from inference.completion import Method
from tests.cli.conftest import call, contents
from zoo.cli.complete import METHODS, MOST_ROWS, OCCLUSIONS, shown
from zoo.cli.pictures import GAP_COLOUR, HIDDEN_COLOUR, completions
from zoo.cli.run_folder import RunFolder
from zoo.data import load

QUICK = ("--items", 3, "--num", 4, "--particles", 20, "--sweeps", 8)


@pytest.fixture(scope="session")
def fvsbn(tmp_path_factory) -> Path:
    """A trained run that no test may change."""
    folder = tmp_path_factory.mktemp("complete") / "fvsbn"
    assert call("train", "fvsbn", "--epochs", "1", "--accelerator", "cpu", "--out", folder) == 0
    return folder


@pytest.fixture
def own_run(fvsbn, tmp_path) -> Path:
    """One of one's own."""
    return Path(shutil.copytree(fvsbn, tmp_path / "run"))


def printed(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_the_picture_is_in_the_run_folder_and_the_draws_are_exact(zoo, own_run, capsys):
    before = contents(own_run)
    assert zoo("complete", own_run, "--seed", 3) == 0
    said = printed(capsys)
    assert "8 completions of each of 8 test images, without the lower half ancestral: exact" in said
    assert said.count("32 pixels 8.0 independent") == 8 and "±" not in said
    assert said.endswith(f"wrote 64 completions to {own_run}/completions.png")
    after = contents(own_run)
    assert after.pop("completions.png").startswith(b"\x89PNG") and after == before


@pytest.mark.parametrize("occlude", OCCLUSIONS)
def test_numbers_are_completions_of_the_test_items(zoo, fvsbn, tmp_path, occlude):
    out = tmp_path / "draws.npy"
    assert zoo("complete", fvsbn, "--occlude", occlude, *QUICK, "--seed", 7, "--out", out) == 0
    draws = torch.from_numpy(np.load(out))
    x = load("digits").test.x[:3]
    observed = shown(occlude, x, 7)
    assert draws.shape == (4, 3, 8, 8)
    assert torch.equal(draws[:, observed], x[observed].expand(4, -1))
    expected = inference.complete(
        RunFolder(fvsbn).load_model(), x, observed, num=4, particles=20, seed=7, progress=False
    )
    assert torch.equal(draws, expected.draws)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("ancestral", "each completion on its own"),
        ("smc", "20 particles of each image"),
        ("gibbs", "8 times through the hidden pixels"),
        ("left-to-right", "biased"),
    ],
)
def test_every_method_says_what_it_is(zoo, fvsbn, tmp_path, capsys, method, said):
    out = tmp_path / "picture.png"
    where = "bottom" if method == "ancestral" else "top"
    assert zoo("complete", fvsbn, "--method", method, "--occlude", where, *QUICK, "--out", out) == 0
    line = printed(capsys)
    assert f"{method}: " in line and said in line
    assert ("independent" in line) == (method != "left-to-right")
    assert ("±" in line) == (method in ("smc", "gibbs"))
    assert matplotlib.image.imread(out).shape[0] > 50


def test_a_lack_of_independent_completions_is_said_with_a_way_out(zoo, fvsbn, tmp_path, capsys):
    options = ("--occlude", "top", "--items", MOST_ROWS + 2, "--out", tmp_path / "some.npy")
    assert zoo("complete", fvsbn, *options, "--particles", 1) == 0
    said = printed(capsys)
    assert "1.0 independent" in said and "± unknown" in said
    assert "and 2 more; at the least they are worth 1.0" in said
    assert "try more --particles, or --method gibbs" in said
    assert zoo("complete", fvsbn, *options, "--particles", 1, "--sweeps", 1, "--method", "gibbs") == 0
    assert "try more --sweeps" in printed(capsys)
    assert zoo("complete", fvsbn, *options) == 0
    assert "try more" not in printed(capsys)


def test_methods_are_those_of_inference():
    assert get_args(Method) == METHODS


# What is hidden


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 7, 9), (5, 1, 28, 28), (5, 3, 6, 4)])
@pytest.mark.parametrize("occlude", OCCLUSIONS)
def test_about_half_is_hidden_and_all_channels_of_a_pixel(shape, occlude):
    observed = shown(occlude, torch.zeros(shape), seed=0)
    assert observed.shape == shape and observed.dtype == torch.bool
    share = (~observed).float().flatten(1).mean(1)
    assert ((share > 0.45) & (share < 0.6)).all()
    pixels = observed.reshape(5, -1, *shape[-2:])
    assert (pixels == pixels[:, :1]).all()
    alike = (observed == observed[:1]).all()
    assert alike == (occlude != "random")


def test_every_part_is_where_its_name_says():
    hidden = {occlude: ~shown(occlude, torch.zeros(1, 4, 6), 0)[0] for occlude in OCCLUSIONS}
    rows, columns = torch.arange(4)[:, None].expand(4, 6), torch.arange(6).expand(4, 6)
    assert torch.equal(hidden["top"], rows < 2) and torch.equal(hidden["bottom"], rows >= 2)
    assert torch.equal(hidden["left"], columns < 3) and torch.equal(hidden["right"], columns >= 3)
    middle = hidden["centre"]
    assert middle.sum() == 3 * 4 and torch.equal(middle, middle.flip(1)) and not middle[:, 0].any()
    assert hidden["random"].sum() == 12
    images = torch.zeros(1, 4, 6)
    assert torch.equal(shown("random", images, 5), shown("random", images, 5))
    assert not torch.equal(shown("random", images, 5), shown("random", images, 6))


# The picture


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (3, 2, 3)])
def test_a_row_is_the_occluded_image_its_completions_and_the_original(shape):
    x, draws = torch.zeros(2, *shape), torch.ones(3, 2, *shape)
    observed = torch.zeros(2, *shape, dtype=torch.bool)
    observed[..., 0, :] = True
    figure = completions(x, observed, draws, name="FVSBN")
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert image.shape == (2 * 2 + 1, 5 * 3 + 4, 3)
    zero, one = (0.0, 1.0) if len(shape) == 3 and shape[0] == 3 else (1.0, 0.0)
    for top in (0, 3):
        assert (image[top, :3] == zero).all() and np.allclose(image[top + 1, :3], HIDDEN_COLOUR)
        tiles = [image[top : top + 2, left : left + 3] for left in (4, 8, 12, 16)]
        assert [tile.mean() for tile in tiles] == [one, one, one, zero]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1"]
    faint = np.asarray(completions(x, observed, draws, name="", highest=2).axes[0].images[0].get_array())
    ink = 0.5 if len(shape) == 3 and shape[0] == 3 else 1 - 0.5
    assert set(faint[:2, 4:7].flat) <= {ink, zero, one} and ink in faint[:2]
    for colour in (HIDDEN_COLOUR, GAP_COLOUR):
        assert colour.max() - colour.min() > 0.15, "no grey, which may be image"


# What is refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--occlude", "botom"], ["unknown part to hide 'botom'", "did you mean bottom?"]),
        (["--method", "mcmc"], ["unknown method 'mcmc'", ", ".join(METHODS)]),
        (["--method", "ancestral", "--occlude", "top"], ["scan order", "smc and gibbs take any mask"]),
        (["--items", 251], ["at most the 250 test items, got 251"]),
        (["--items", 100, "--num", 39], ["at most 4,096 images", "--out FILE.npy"]),
        (["--items", 0], ["--items"]),
        (["--num", 0], ["--num"]),
        (["--particles", 0], ["--particles"]),
        (["--sweeps", 0], ["--sweeps"]),
        (["--seed", -1], ["--seed"]),
        (["--out", "draws.pt"], [".png or .npy", "draws.pt"]),
        (["--out", "nowhere/draws.npy"], ["a folder that is there", "nowhere/draws.npy"]),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(refused, fvsbn, tmp_path, args, said):
    before = contents(fvsbn)
    line = refused("complete", fvsbn, *args)
    assert [words for words in said if words not in line] == [], line
    assert contents(fvsbn) == before and not list(tmp_path.iterdir())


def test_a_model_that_does_not_draw_pixel_by_pixel_is_refused(refused, trained):
    line = refused("complete", trained / "vae")
    assert "as the autoregressive ones have, got z, x" in line
    assert not (trained / "vae" / "completions.png").exists()


def test_vectors_are_refused_with_what_takes_them(refused, own_run):
    config = json.loads((own_run / "config.json").read_text())
    config |= {"model": "rnade", "data": "red-wine", "fold": 0, "event_shape": [11]}
    (own_run / "config.json").write_text(json.dumps(config))
    line = refused("complete", own_run)
    assert "items of red-wine are vectors" in line and "inference.complete" in line


def test_a_folder_without_a_run_is_refused(refused, tmp_path):
    assert "no run folder" in refused("complete", tmp_path / "nowhere")
