"""``zoo anomaly``: the area under the curve, the anomalies it is of, and what is written and refused."""

import itertools
import json
import os
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from tests.cli.conftest import call, contents
from zoo.cli.anomaly import ALTERATIONS, _anomalies, _fitting, _in_words, area_under_curve
from zoo.cli.pictures import log_prob_histograms
from zoo.cli.run_folder import RunFolder
from zoo.data import load

REAL = Path(os.environ.get("ZOO_DATA_DIR") or "nowhere")
QUICK = ("--epochs", "10", "--lr", "0.01", "--accelerator", "cpu")


def read(folder):
    return json.loads((folder / "anomaly.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs that no test may change: of images with and without dependence, and of vectors, one fold."""
    folder = tmp_path_factory.mktemp("runs")
    assert call("train", "fvsbn", "--out", folder / "fvsbn", *QUICK) == 0
    assert call("train", "independent", "--out", folder / "independent", *QUICK) == 0
    wine = ("--data", "red-wine", "--fold", "3", "--set", "hidden=10", "--set", "components=3")
    assert call("train", "rnade", *wine, "--out", folder / "rnade", *QUICK) == 0
    return folder


@pytest.fixture
def own(runs, tmp_path):
    """Copies a run to where a test may change it."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


# The area under the curve


def counted_area(test, anomalous):
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(test, anomalous)]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize(
    ("test", "anomalous", "expected"),
    [
        ([3.0, 4.0], [1.0, 2.0, 0.0], 1.0),
        ([1.0, 2.0], [3.0, 4.0, 5.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
        ([1.0, 3.0], [2.0, 2.0], 0.5),
        ([4.0, 2.0, 2.0], [1.0, 2.0, 3.0], (3 + 1.5 + 1.5) / 9),
        ([-1000.0, -999.0], [-1001.0, -998.5], 0.5),
    ],
)
def test_the_area_is_the_share_of_pairs_in_order(test, anomalous, expected):
    area, _ = area_under_curve(torch.tensor(test), torch.tensor(anomalous))
    assert area == pytest.approx(expected)
    assert area == pytest.approx(counted_area(test, anomalous))


def test_the_standard_error_is_that_worked_out_by_hand():
    # The shares on the right side: of test items 1, 1/2 and 1/2; of anomalies 1, 2/3 and 1/3.
    area, error = area_under_curve(torch.tensor([4.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert area == pytest.approx(2 / 3)
    assert error**2 == pytest.approx((1 / 12) / 3 + (1 / 9) / 3)


@pytest.mark.parametrize("paired", [False, True])
def test_the_standard_error_is_the_spread_of_the_area_over_draws(paired):
    generator = torch.Generator().manual_seed(0)
    areas, errors = [], []
    for _ in range(300):
        test = torch.randn(60, generator=generator)
        noise = torch.randn(60, generator=generator)
        found = area_under_curve(
            test, 0.8 * test + 0.6 * noise - 0.7 if paired else noise - 0.7, paired=paired
        )
        areas.append(found[0])
        errors.append(found[1])
    spread = np.std(areas, ddof=1)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.12)
    if paired:  # what the items share takes from the spread, as the other formula does not know
        unpaired = area_under_curve(test, 0.8 * test + 0.6 * noise - 0.7)[1]
        assert errors[-1] < 0.75 * unpaired


@pytest.mark.parametrize(
    ("auc", "error", "words"),
    [
        (0.52, 0.02, "cannot tell"),
        (0.3, 0.02, "takes the anomalies for likelier"),
        (0.6, 0.02, "tells some"),
        (0.8, 0.02, "tells most"),
        (0.99, 0.001, "tells nearly all"),
        (1.0, 0.0, "tells all"),
    ],
)
def test_an_area_in_plain_words(auc, error, words):
    assert _in_words(auc, error) == words


# The anomalies


def made(name, data, items=None, seed=0):
    dataset = load(data)
    return dataset, _anomalies(name, dataset, dataset.test.x, items, seed)


@pytest.mark.parametrize(
    ("data", "fitting"),
    [
        ("digits", ["transposed", "noise", "shuffled"]),
        ("digits-levels", ["transposed", "noise", "shuffled"]),
        ("red-wine", ["shuffled"]),
    ],
)
def test_what_fits_the_data(data, fitting):
    dataset = load(data)
    assert _fitting(dataset) == fitting
    for name in fitting:
        altered = made(name, data)[1].x
        assert altered.shape == dataset.test.x.shape and altered.dtype == dataset.test.x.dtype
        assert dataset.support.check(altered).all()
        assert not torch.equal(altered, dataset.test.x)


def test_transposed_images_are_transposed_each():
    dataset, anomalies = made("transposed", "digits")
    assert torch.equal(anomalies.x[7], dataset.test.x[7].T) and anomalies.paired


def test_noise_flips_a_tenth_of_the_binary_entries():
    dataset, anomalies = made("noise", "digits")
    flipped = (anomalies.x != dataset.test.x).double()
    assert flipped.mean().item() == pytest.approx(0.1, abs=0.01)  # 16,000 entries: ± 0.0024
    for value in (0, 1):
        assert flipped[dataset.test.x == value].mean().item() == pytest.approx(0.1, abs=0.015)
    assert anomalies.paired and "10% of the entries flipped" in anomalies.description


def test_noise_sets_a_tenth_of_the_levels_to_any():
    dataset, anomalies = made("noise", "digits-levels")
    changed = anomalies.x != dataset.test.x
    assert changed.double().mean().item() == pytest.approx(0.1 * 16 / 17, abs=0.01)
    shares = anomalies.x[changed].bincount(minlength=17) / changed.sum()
    assert len(shares) == 17 and shares.min() > 0.02
    assert "10% of the entries set to any level" in anomalies.description


@pytest.mark.parametrize("data", ["digits", "red-wine"])
def test_shuffling_keeps_margins_and_nothing_else(data):
    dataset, anomalies = made("shuffled", data)
    items, altered = dataset.test.x.flatten(1), anomalies.x.flatten(1)
    assert torch.equal(altered.sort(0).values, items.sort(0).values)
    assert not anomalies.paired
    if data == "red-wine":
        correlation = torch.corrcoef(items.T).abs().triu(1)
        assert correlation.max() > 0.6 and torch.corrcoef(altered.T).abs().triu(1).max() < 0.35


def test_the_seed_decides_the_anomalies():
    for name in ("noise", "shuffled"):
        first, again, other = (made(name, "digits", seed=seed)[1].x for seed in (4, 4, 5))
        assert torch.equal(first, again) and not torch.equal(first, other)


# The command


def test_a_model_of_digits_tells_them_from_all_three(zoo, own, capsys):
    run = own("fvsbn")
    assert zoo("anomaly", run) == 0
    figures = read(run)
    assert list(figures["against"]) == list(ALTERATIONS)
    for name, least in (("transposed", 0.99), ("noise", 0.9), ("shuffled", 0.85)):
        assert least < figures["against"][name]["auc"] <= 1
        assert figures["against"][name]["nats_per_item"] > figures["nats_per_item"] + 5
    assert 0 < figures["against"]["noise"]["standard_error"] < 0.02
    expected = {"model": "fvsbn", "data": "digits", "fold": None, "kind": "exact", "items": 250, "seed": 0}
    assert figures.items() >= expected.items()
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert figures["nats_per_item"] == pytest.approx(test["nats_per_item"])
    printed = capsys.readouterr().out
    assert "tells nearly all" in printed and "per item, exact" in printed and "10% of the" in printed
    assert matplotlib.image.imread(run / "anomaly.png").shape[0] > 500


def test_the_area_is_of_the_log_probabilities_of_the_items(zoo, own):
    run = own("fvsbn")
    assert zoo("anomaly", run, "--against", "transposed") == 0
    model, x = RunFolder(run).load_model(), load("digits").test.x
    with torch.no_grad():
        scores = model.log_prob(x).tolist(), model.log_prob(x.mT).tolist()
    assert read(run)["against"]["transposed"]["auc"] == pytest.approx(counted_area(*scores), abs=1e-6)


def test_a_model_without_dependence_cannot_tell_what_keeps_the_margins(zoo, own, capsys):
    run = own("independent")
    assert zoo("anomaly", run, "--against", "shuffled") == 0
    found = read(run)["against"]["shuffled"]
    assert abs(found["auc"] - 0.5) < 4 * found["standard_error"]
    assert "tells" not in capsys.readouterr().out.partition("AUC: ")[0]


def test_particles_bound_the_density_of_a_latent_variable_model(zoo, run, capsys):
    nats = []
    for particles in (2, 200):
        assert zoo("anomaly", run, "--against", "noise", "--particles", particles) == 0
        figures = read(run)
        assert (figures["kind"], figures["particles"]) == ("lower bound", particles)
        assert f"bounded from below by {particles} importance samples" in capsys.readouterr().out
        nats.append(figures["nats_per_item"])
        assert figures["against"]["noise"]["auc"] > 0.6
    assert nats[1] < nats[0] - 0.05, "more particles bound more tightly"
    assert zoo("anomaly", run, "--against", "noise", "--items", 10) == 0
    assert read(run)["particles"] == json.loads((run / "config.json").read_text())["particles"]


def test_vectors_of_a_fold_are_shuffled_or_compared_with_others_of_that_fold(zoo, own, capsys):
    run = own("rnade")
    assert zoo("anomaly", run, "--against", "white-wine", "--against", "shuffled") == 0
    figures = read(run)
    assert figures["fold"] == 3 and list(figures["against"]) == ["white-wine", "shuffled"]
    assert figures["against"]["shuffled"]["auc"] > 0.8
    white = load("white-wine", fold=3).test.x
    model = RunFolder(run).load_model()
    with torch.no_grad():
        nats = -model.log_prob(white).mean().item()
    assert figures["against"]["white-wine"]["nats_per_item"] == pytest.approx(nats, rel=1e-4)
    assert figures["against"]["white-wine"]["items"] == len(white)
    assert "white wines" in " ".join(capsys.readouterr().out.split())


def test_fewer_items_are_chosen_by_the_seed(zoo, own):
    run = own("fvsbn")
    found = {}
    for seed, items in ((0, 40), (1, 40), (0, 5000)):
        assert zoo("anomaly", run, "--items", items, "--seed", seed, "--against", "noise") == 0
        found[seed, items] = read(run)
    assert [figures["items"] for figures in found.values()] == [40, 40, 250]
    assert [figures["against"]["noise"]["items"] for figures in found.values()] == [40, 40, 250]
    assert len({figures["nats_per_item"] for figures in found.values()}) == 3


def test_the_same_command_writes_the_same_bits(zoo, own):
    run = own("fvsbn")
    written = []
    for _ in range(2):
        assert zoo("anomaly", run, "--seed", 3, "--out", "seen.png") == 0
        written.append((run / "anomaly.json").read_bytes())
    assert written[0] == written[1]
    assert not (run / "anomaly.png").exists() and Path("seen.png").exists()


def test_the_figures_go_into_a_file_of_results_too(zoo, refused, own):
    run = own("fvsbn")
    assert zoo("anomaly", run, "--against", "noise", "--items", 10, "--result", "figures.json") == 0
    assert Path("figures.json").read_bytes() == (run / "anomaly.json").read_bytes()
    line = refused("anomaly", run, "--against", "noise", "--result", "nowhere/figures.json")
    assert "--result expects a file in a folder that is there" in line


def test_a_name_given_twice_is_one_kind(zoo, own):
    run = own("fvsbn")
    assert zoo("anomaly", run, "--against", "noise", "--against", "noise") == 0
    assert list(read(run)["against"]) == ["noise"]


def test_the_picture_shows_both_sets_of_every_kind():
    test, lower = torch.linspace(-2, 0, 50).double(), torch.linspace(-30, -20, 40).double()
    figure = log_prob_histograms(test, {"a: AUC 1": lower, "b: AUC 0": test + 5})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a: AUC 1", "b: AUC 0"]
    assert figure.axes[-1].get_xlabel() == "log p(x), nats"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "test items",
        "anomalies",
    ]
    for axes, least in zip(figure.axes, (-30, 3), strict=True):
        test_bars, anomaly_bars = ([bar for bar in group if bar.get_height()] for group in axes.containers)
        assert -2.8 < test_bars[0].get_x() and test_bars[-1].get_x() < 0
        assert anomaly_bars[0].get_x() == pytest.approx(least, abs=0.8)


def test_a_picture_of_one_value_is_drawn():
    log_prob_histograms(torch.zeros(3).double(), {"same": torch.zeros(3).double()})


@pytest.mark.skipif(
    not all((REAL / name).is_dir() for name in ("mnist", "fashion-mnist")),
    reason="ZOO_DATA_DIR has not both sets",
)
def test_clothes_are_no_digits(zoo, tmp_path):
    run = tmp_path / "run"
    small = ("--epochs", "1", "--batch-size", "1000", "--lr", "0.01", "--accelerator", "cpu")
    assert zoo("train", "independent", "--data", "mnist", "--out", run, *small) == 0
    assert zoo("anomaly", run, "--against", "fashion-mnist", "--items", 200) == 0
    found = read(run)["against"]["fashion-mnist"]
    assert found["auc"] > 0.9 and found["items"] == 200


# What is refused


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("fvsbn", ("--against", "nois"), ["'nois'", "did you mean noise?", "transposed", "fashion-mnist"]),
        ("fvsbn", ("--against", "digits"), ["--against digits", "trained on"]),
        ("fvsbn", ("--against", "digits-levels"), ["another kind", "IntegerInterval", "Boolean"]),
        ("fvsbn", ("--against", "digits-4x4"), ["another kind", "(4, 4)", "(8, 8)"]),
        ("fvsbn", ("--against", "red-wine"), ["another kind", "(11,)"]),
        ("rnade", ("--against", "noise"), ["binary entries or levels", "red-wine has not"]),
        ("rnade", ("--against", "transposed"), ["square images", "red-wine has not"]),
        ("fvsbn", ("--items", "1"), ["--items"]),
        ("fvsbn", ("--particles", "0"), ["--particles"]),
        ("fvsbn", ("--seed", "-1"), ["--seed"]),
        ("fvsbn", ("--out", "seen.txt"), ["--out", ".png"]),
        ("fvsbn", ("--out", "folder.png"), ["--out", ".png"]),
        ("fvsbn", ("--out", "nowhere/seen.png"), ["--out", "a folder that is there"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(refused, own, tmp_path, name, words, said):
    (tmp_path / "folder.png").mkdir()
    run = own(name)
    before = contents(tmp_path)
    line = refused("anomaly", run, *words)
    assert [part for part in said if part not in line] == [], line
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("density", "said"),
    [
        ("none", "zoo anomaly expects a model with a likelihood, and fvsbn has none"),
        ("unnormalized", "FVSBN has no likelihood to estimate: its density is 'unnormalized'"),
    ],
)
def test_a_model_without_a_likelihood_is_refused(refused, own, monkeypatch, density, said):
    from zoo.autoregressive import FVSBN

    run = own("fvsbn")
    before = contents(run)
    monkeypatch.setattr(FVSBN, "density", density)
    assert said in refused("anomaly", run)
    assert contents(run) == before


def test_weights_that_give_no_number_are_a_fault(refused, own):
    from safetensors.torch import load_file, save_file

    run = own("fvsbn")
    weights = load_file(run / "model.safetensors")
    weights["bias"][0] = torch.nan
    save_file(weights, run / "model.safetensors")
    assert "not finite for some of the test items" in refused("anomaly", run, code=1)
    assert not (run / "anomaly.json").exists()


def test_what_is_no_run_is_refused_and_folds_are_named(refused, runs, tmp_path):
    assert "no run folder nowhere" in refused("anomaly", "nowhere")
    shutil.copytree(runs / "rnade", tmp_path / "folds" / "fold-3")
    line = refused("anomaly", "folds")
    assert "no config.json" in line and "folds/fold-0" in line
