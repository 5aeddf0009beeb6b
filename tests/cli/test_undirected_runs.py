"""What the commands make of a run of a machine: log Z from both sides, labels, draws by sweeps, pictures."""

import json
import math
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from tests.cli.conftest import call, contents
from zoo import DBM, NADE, RBM
from zoo.cli import undirected_figures, undirected_pictures
from zoo.cli.pictures import sweeps_of
from zoo.cli.report import drawn, print_metrics
from zoo.cli.undirected_figures import likelihood_rows, share_of_work
from zoo.data import load

TINY = ("--epochs", "2", "--accelerator", "cpu", "--sweeps", "1")
LABELLED = ("--set", "hidden=12", "--set", "num_classes=10", "--labels", "300", "--label-weight", "0.5")


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """Few chains and steps, which changes no figure but its error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(undirected_figures, "ANNEALING", {"chains": 100, "betas": 20})
        patch.setattr(undirected_figures, "CHAINS", 10)
        patch.setattr(undirected_figures, "DRAWS", 20)
        patch.setattr(undirected_figures, "POSTERIOR_PARTICLES", 2)
        patch.setattr(undirected_pictures, "TRACED", 50)
        for cls in (RBM, DBM):
            patch.setattr(cls._sample, "__defaults__", (None, 10))
        yield


@pytest.fixture(scope="module")
def runs(short_runs, tmp_path_factory):
    """Runs that no test may change: ``dbm``, and ``rbm`` with labels."""
    folder = tmp_path_factory.mktemp("machines")
    assert call("train", "dbm", *TINY, "--set", "hidden=(10,6)", "--out", folder / "dbm") == 0
    assert call("train", "rbm", *TINY, *LABELLED, "--out", folder / "rbm") == 0
    return folder


@pytest.fixture
def own(runs, tmp_path):
    """Copies a run to where a test may change it."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


def read(path):
    return json.loads(path.read_text())


def shown(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


# Training


def test_a_run_holds_the_pictures_of_a_machine(runs):
    common = {"samples.png", "reconstructions.png", "filters.png", "energy-trace.png", "learning_curve.png"}
    for name in ("dbm", "rbm"):
        assert {path.name for path in (runs / name).glob("*.png")} == common
        assert all(matplotlib.image.imread(path).shape[0] > 100 for path in (runs / name).glob("*.png"))


def test_metrics_of_a_dbm_hold_bound_interval_both_log_z_and_the_gap(runs):
    metrics = read(runs / "dbm" / "metrics.json")
    test = metrics["test"]
    assert (test["kind"], test["bound"], test["particles"]) == ("lower bound", "elbo", 0)
    below, above = test["log_z"], test["log_z"]["reverse"]
    for end in (below, above):
        assert end["low"] < end["estimate"] < end["high"]
        assert (end["betas"], end["low"] is None) == (20, False)
    assert (below["chains"], above["chains"]) == (100, 10)
    assert 1 <= below["effective_sample_size"] <= 100
    assert below["estimate"] == pytest.approx(above["estimate"], abs=1)
    low, high = test["interval"]
    assert low < test["nats_per_item"] < high
    assert high - test["nats_per_item"] == pytest.approx(below["high"] - below["estimate"])
    assert test["nats_per_item"] - low == pytest.approx(below["estimate"] - below["low"])
    posterior = test["posterior"]
    assert (posterior["items"], posterior["particles"]) == (250, 2)
    assert posterior["bound_nats_per_item"] == pytest.approx(test["nats_per_item"])
    gap = posterior["bound_nats_per_item"] - posterior["nats_per_item"]
    assert posterior["gap"] == pytest.approx(gap) and posterior["gap_standard_error"] > 0
    assert "accuracy" not in metrics and {"features", "raw"} == metrics["probe"].keys()


def test_metrics_hold_how_the_chains_mix(runs):
    for name in ("dbm", "rbm"):
        chains = read(runs / name / "metrics.json")["chains"]
        assert (chains["chains"], chains["draws"]) == (10, 20)
        assert 0.9 < chains["r_hat"] < 1.5 and chains["effective_sample_size"] > 10
        assert list(chains["autocorrelation"]) == ["1", "10"]
        assert all(-1 <= value <= 1 for value in chains["autocorrelation"].values())
        assert chains["integrated_time"] > 0


def test_metrics_of_an_rbm_with_labels(runs):
    metrics = read(runs / "rbm" / "metrics.json")
    test = metrics["test"]
    assert (test["kind"], test["bound"], test["particles"]) == ("estimate", None, 0)
    assert "posterior" not in test and "accuracy_classifier_alone" not in metrics
    assert 0 <= metrics["accuracy"] <= 1
    assert {"share", "judge_accuracy"} == metrics["generated_as_asked"].keys()


def test_the_configuration_of_a_machine(runs):
    config = read(runs / "rbm" / "config.json")
    assert (
        config["objective_arguments"]["label_weight"] == 0.5 and config["objective_arguments"]["sweeps"] == 1
    )
    assert (config["bound"], config["particles"], config["annealing"]) == ("elbo", 20, {})
    assert config["labels"] == 300


@pytest.mark.usefixtures("without_pictures")
def test_options_of_learning_by_contrast_reach_the_objective(zoo, tmp_path, monkeypatch):
    words = ("--momentum", 0.25, "--chains", 7, "--sweeps", 3, "--set", "hidden=4", "--epochs", 1)
    assert zoo("train", "rbm", *words, "--accelerator", "cpu", "--out", "run") == 0
    config = read(tmp_path / "run" / "config.json")
    assert config["fit"]["momentum"] == 0.25
    assert config["objective_arguments"] == {"num_chains": 7, "sweeps": 3}
    other = ("--objective", "contrastive-divergence", "--set", "hidden=4", "--epochs", 1)
    assert zoo("train", "rbm", *other, "--accelerator", "cpu", "--out", "cd") == 0
    assert read(tmp_path / "cd" / "config.json")["objective"] == "contrastive-divergence"


@pytest.mark.usefixtures("without_pictures")
def test_the_recipe_names_the_annealing_and_evaluate_another(zoo, tmp_path, monkeypatch):
    digits = {**RBM.recipes["digits"], "model": {"hidden": 4}, "annealing": {"chains": 12, "betas": 5}}
    monkeypatch.setattr(RBM, "recipes", {"digits": digits})
    assert zoo("train", "rbm", *TINY, "--out", "run") == 0
    log_z = read(tmp_path / "run" / "metrics.json")["test"]["log_z"]
    assert (log_z["chains"], log_z["betas"], log_z["reverse"]["betas"]) == (12, 5, 5)
    assert zoo("evaluate", "run", "--chains", 13, "--betas", 6) == 0
    log_z = read(tmp_path / "run" / "metrics.json")["test"]["log_z"]
    assert (log_z["chains"], log_z["betas"], log_z["reverse"]["betas"]) == (13, 6, 6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("rbm", "--labels", 10),
            "--labels expects a model with labels, and rbm has none; --set num_classes=10",
        ),
        (("rbm", "--objective", "elbo"), "is unnormalised: train it with PersistentContrastiveDivergence"),
        (("dbm", "--objective", "maximum-likelihood"), "is unnormalised: train it with Persistent"),
        (("rbm", "--compile"), "compile=True expects an objective without chains"),
        (("rbm", "--momentum", 1), "momentum must lie between 0 and 1, below it, got 1.0"),
        (("rbm", "--momentum", -1), "--momentum"),
        (("rbm", "--sweeps", 0), "--sweeps"),
        (("rbm", "--chains", 0), "--chains"),
        (("rbm", "--particles", 3), "persistent-contrastive-divergence takes no particles"),
        (("dbm", "--set", "hidden=()"), "hidden must be numbers of units of at least 1, got ()"),
        (("rbm", "--set", "visible=poisson"), "visible must be one of bernoulli, gaussian, got 'poisson'"),
        (("rbm", "--set", "num_classes=1"), "num_classes must be at least 2, or None, got 1"),
        (("rbm", "--lr", "1e38"), "Kept: the weights of epoch"),
        (("vae", "--chains", 5), "the objective elbo takes no chains"),
        (("vae", "--sweeps", 5), "the objective elbo takes no sweeps"),
        (("vae", "--label-weight", 1), "the objective elbo takes no label_weight"),
        (("dbm", "--data", "red-wine"), "dbm has no recipe for red-wine"),
    ],
)
def test_a_training_that_cannot_be_ends_in_one_line(refused, words, said):
    line = refused("train", *words, "--epochs", 2, "--out", "run", code=1 if "Kept" in said else 2)
    assert said in line


@pytest.mark.usefixtures("without_pictures")
def test_a_run_from_before_momentum_and_annealing_can_still_be_read(zoo, own):
    run = own("dbm")
    config = read(run / "config.json")
    del config["annealing"], config["fit"]["momentum"]
    (run / "config.json").write_text(json.dumps(config))
    assert zoo("sample", run) == 0


@pytest.mark.parametrize("annealing", [{"betas": 0}, {"steps": 3}, {"chains": "many"}])
def test_a_damaged_annealing_is_named(refused, own, annealing):
    run = own("dbm")
    (run / "config.json").write_text(json.dumps({**read(run / "config.json"), "annealing": annealing}))
    assert "annealing must hold chains and betas of at least 1, got" in refused("sample", run)


# Evaluating


def test_the_table_is_readable(zoo, own, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name, there, absent in (
        (
            "dbm",
            ("≤ ", "by mean field, with an estimated log Z", "what mean field loses, nats"),
            ("p(y | x)",),
        ),
        (
            "rbm",
            ("an estimate, with an estimated log Z", "p(y | x)", "drawn as asked"),
            ("≤", "mean field loses"),
        ),
    ):
        run = own(name)
        print_metrics(read(run / "metrics.json"))
        text = shown(capsys)
        for words in (
            *there,
            "log Z from below, nats",
            "log Z from above, nats",
            "-log p(x) if log Z is either, nats",
        ):
            assert words in text, words
        assert "energy of chains, R-hat" in text and "q(y | x)" not in text
        assert not any(words in text for words in absent)


@pytest.mark.usefixtures("without_pictures")
def test_evaluating_anew_gives_the_same_figures(zoo, own):
    run = own("dbm")
    before = read(run / "metrics.json")
    assert zoo("evaluate", run) == 0
    after = read(run / "metrics.json")
    for metrics in (before, after):
        metrics["test"].pop("seconds")
    assert after == before


@pytest.mark.usefixtures("without_pictures")
def test_the_other_bound_is_the_estimate_by_annealing(zoo, own, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = own("dbm")
    before = read(run / "metrics.json")["test"]
    assert zoo("evaluate", run, "--bound", "importance-weighted", "--particles", 3) == 0
    assert "an estimate, by annealing from the mean field, 3 chains per item" in shown(capsys)
    test = read(run / "metrics.json")["test"]
    assert (test["kind"], test["bound"], test["particles"]) == ("estimate", None, 3)
    assert "posterior" not in test and test["nats_per_item"] < before["nats_per_item"] + 0.05


@pytest.mark.parametrize("option", ["chains", "betas"])
def test_annealing_is_refused_where_there_is_no_log_z(refused, run, option):
    before = contents(run)
    line = refused("evaluate", run, f"--{option}", 5)
    assert f"--{option} expects a model whose log Z is estimated, and the density of vae is 'bound'" in line
    assert contents(run) == before


def metrics_with(**changes):
    log_z = {"estimate": 10.0, "low": 9.5, "high": 10.25, "chains": 5, "betas": 1}
    return {
        "test": {
            "nats_per_item": 20.0,
            "interval": [19.5, 20.25],
            "log_z": log_z | {"reverse": log_z | {"estimate": 10.75}},
        },
        "chains": {
            "chains": 2,
            "draws": 1,
            "r_hat": 1.0,
            "effective_sample_size": 9.0,
            "integrated_time": 2.2,
        }
        | changes,
    }


def test_rows_say_what_the_ends_mean():
    below, above, either, chains = likelihood_rows(metrics_with())
    assert below[1:] == (
        "10.00",
        "95 % within 9.50 … 10.25; low on average; by 5 chains of annealing in 1 step",
    )
    assert above[1] == "10.75" and "high on average, if the chains" in above[2]
    assert either[1] == "20.00 … 20.75" and "19.50 … 20.25" in either[2]
    assert chains[1] == "1.000" and "they agree (2 chains of 1 sweep" in chains[2]
    assert "worth 9 independent draws, one in 2 sweeps" in chains[2]


@pytest.mark.parametrize(
    ("r_hat", "words"), [(1.01, "they agree"), (1.05, "they nearly agree"), (1.2, "they disagree")]
)
def test_chains_are_judged_in_words(r_hat, words):
    assert likelihood_rows(metrics_with(r_hat=r_hat))[-1][2].startswith(words)


def test_chains_that_never_move_are_said_to():
    assert "it never changes" in likelihood_rows(metrics_with(r_hat=None))[-1][2]


def test_an_open_interval_has_no_end():
    metrics = metrics_with()
    metrics["test"]["log_z"]["low"] = metrics["test"]["interval"][0] = None
    rows = likelihood_rows(metrics)
    assert "within unknown … 10.25" in rows[0][2] and "unknown … 20.25" in rows[2][2]
    assert undirected_figures._finite(-math.inf) is None and undirected_figures._finite(1.0) == 1.0


@pytest.mark.parametrize(("chains", "worth", "warned"), [(5, 4.9, True), (5, 5.0, False), (1, 1.0, False)])
def test_rows_say_that_few_chains_carry_the_weight(chains, worth, warned):
    metrics = metrics_with()
    metrics["test"]["log_z"] |= {"chains": chains, "effective_sample_size": worth}
    below, above, *_ = likelihood_rows(metrics)
    assert ("; too few chains carry the weight: take more steps" in below[2]) == warned
    assert "too few" not in above[2]


@pytest.mark.parametrize(
    ("gap", "error", "said"),
    [
        (0.0123, 0.00021, "0.01230 ± 0.00021"),
        (3.2149, 0.0996, "3.21 ± 0.10"),
        (310.4, 123.4, "310 ± 123"),
        (0.5, None, "0.500"),
        (0.5, 0.0, "0.500"),
    ],
)
def test_an_error_has_two_digits_that_count(gap, error, said):
    metrics = metrics_with()
    metrics["test"]["posterior"] = {
        "gap": gap,
        "gap_standard_error": error,
        "items": 2,
        "particles": 1,
        "nats_per_item": 20.0,
        "bound_nats_per_item": 20.1,
    }
    (row,) = [row for row in likelihood_rows(metrics) if row[0].startswith("what mean field loses")]
    assert row[1] == said


def test_drawn_says_how():
    assert drawn({"particles": 0, "bound": "elbo"}) == "by mean field, with an estimated log Z"
    annealed = {"particles": 1, "bound": None, "kind": "estimate"}
    assert drawn(annealed) == "by annealing from the mean field, 1 chain per item"


def test_a_large_machine_is_given_less_work():
    assert share_of_work(DBM((8, 8))) == 1
    assert share_of_work(DBM((28, 28), (500, 1000))) == pytest.approx(0.2, abs=0.01)


# Drawing, completing, telling anomalies


def test_draws_say_how_many_sweeps_they_took(zoo, own, capsys, tmp_path):
    run = own("dbm")
    assert zoo("sample", run, "--num", 20, "--out", "a.npy") == 0
    assert "wrote 20 items to a.npy, after 10 Gibbs sweeps, the first half annealed" in shown(capsys)
    assert zoo("sample", run, "--num", 20, "--sweeps", 3, "--out", "b.npy") == 0
    assert "after 3 Gibbs sweeps" in shown(capsys)
    one, other = (np.load(tmp_path / name, allow_pickle=False) for name in ("a.npy", "b.npy"))
    assert one.shape == other.shape == (20, 8, 8) and set(np.unique(one)) <= {0, 1}
    assert not np.array_equal(one, other)


def test_titles_of_draws_say_the_sweeps(zoo, own, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "zoo.cli.pictures.item_grid", lambda items, title, **settings: titles.append(title) or items
    )
    monkeypatch.setattr("zoo.cli.pictures.to_png", lambda figure: b"")
    assert zoo("sample", own("rbm"), "--label", 3, "--num", 2) == 0
    assert titles == ["2 draws from RBM, label 3, after 10 Gibbs sweeps, the first half annealed"]
    from zoo.cli.pictures import _samples

    _samples(RBM((8, 8), hidden=3), load("digits"))
    assert titles[1] == "draws from RBM after 10 Gibbs sweeps; the last two rows are test items"


def test_sweeps_are_those_of_a_model_that_has_them():
    assert sweeps_of(NADE((4,))) is None and sweeps_of(NADE((4,)), 3) is None
    assert sweeps_of(RBM((4,))) == 10 and sweeps_of(RBM((4,)), 3) == 3


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("dbm", ("sample", "--label", 1), "--label expects a model with labels, and DBM has none"),
        ("rbm", ("sample", "--label", 10), "--label expects one of 0 to 9, got 10"),
        ("dbm", ("sample", "--sweeps", 0), "--sweeps"),
        ("dbm", ("complete", "--method", "smc"), "expected method to be auto or gibbs for DBM, got 'smc'"),
        ("dbm", ("complete", "--method", "ancestral"), "expected method to be auto or gibbs for DBM"),
    ],
)
def test_what_a_machine_cannot_is_refused(refused, own, name, words, said):
    run = own(name)
    before = contents(run)
    assert said in refused(words[0], run, *words[1:])
    assert contents(run) == before


def test_sweeps_are_refused_for_a_model_without(refused, run):
    line = refused("sample", run, "--sweeps", 5)
    assert "--sweeps expects a model that draws by Gibbs sweeps, which VAE does not" in line


def test_completions_keep_what_is_shown(zoo, own, tmp_path, capsys):
    run = own("dbm")
    words = ("--items", 3, "--num", 4, "--sweeps", 20, "--occlude", "top")
    assert zoo("complete", run, *words, "--out", "drawn.npy") == 0
    text = shown(capsys)
    assert "gibbs: a chain for each completion" in text and "independent" in text
    assert "log p(what is shown)" not in text and "nan" not in text
    drawn = np.load(tmp_path / "drawn.npy", allow_pickle=False)
    assert drawn.shape == (4, 3, 8, 8)
    assert np.array_equal(drawn[:, :, 4:], np.broadcast_to(load("digits").test.x[:3, 4:], (4, 3, 4, 8)))
    assert zoo("complete", run, "--items", 3, "--sweeps", 2) == 0  # too few to tell what they are worth
    assert "unknown" in shown(capsys) and (run / "completions.png").exists()


def test_anomalies_are_told_with_one_log_z_for_all(zoo, own, capsys, monkeypatch):
    import inference

    calls = []
    ais = inference.annealing.ais
    monkeypatch.setattr(
        inference, "ais", lambda *args, **settings: calls.append(args) or ais(*args, **settings)
    )
    monkeypatch.setattr("inference.likelihood.ais", lambda *args, **settings: pytest.fail("another log Z"))
    run = own("dbm")
    assert zoo("anomaly", run, "--against", "transposed", "--against", "noise") == 0
    assert len(calls) == 1
    figures = read(run / "anomaly.json")
    assert (figures["kind"], figures["bound"]) == ("lower bound", "elbo")
    assert figures["against"]["transposed"]["auc"] > 0.8
    text = shown(capsys)
    assert "-log p(x) per item, bounded from above (≤):" in text
    assert "log p(x) is bounded from below by mean field, with an estimated log Z" in text


# Pictures


def machine(**arguments):
    torch.manual_seed(0)
    return RBM((4, 4), **arguments)


def test_filters_show_the_units_that_act_most_first_on_one_scale(monkeypatch):
    monkeypatch.setattr(undirected_pictures, "MOST_FILTERS", 3)
    rbm = machine(hidden=5)
    with torch.no_grad():
        for unit in range(5):
            rbm.W[0][:, unit] = 0.0
            rbm.W[0][unit, unit] = (0.5, -3.0, 0.01, 2.0, 1.0)[unit]
    figure = undirected_pictures.filters(rbm, torch.randint(2, (50, 4, 4)).float())
    axes, bar = figure.axes
    (image,) = axes.images
    low, high = image.get_clim()
    assert -low == high > 0
    canvas = np.ma.filled(image.get_array().astype(float), np.nan)
    assert canvas.shape == (4, 3 * 5 - 1)
    assert np.isnan(canvas[:, 4]).all()
    peaks = [np.nanmax(np.abs(canvas[:, start : start + 4])) for start in (0, 5, 10)]
    assert peaks == [3.0, 2.0, 1.0] and np.nanmin(canvas[:, :4]) == -3.0
    assert "3 of 5 hidden units" in axes.get_title(loc="left") and "pixel" in bar.get_ylabel()


def test_filters_of_colours_and_of_few_units_are_drawn():
    torch.manual_seed(0)
    figure = undirected_pictures.filters(RBM((3, 2, 4), hidden=2), torch.randint(2, (9, 3, 2, 4)).float())
    assert figure.axes[0].images[0].get_array().shape == (2, 9)


def test_the_energy_is_that_of_chains_from_both_starts(monkeypatch):
    import inference

    starts, seeds = [], []
    run_chains = inference.run_chains

    def watched(*args, initial, seed, **settings):
        starts.append(initial)
        seeds.append(seed)
        return run_chains(*args, initial=initial, seed=seed, **settings)

    monkeypatch.setattr(inference, "run_chains", watched)
    rbm, x = machine(hidden=5), torch.randint(2, (7, 4, 4)).float()
    state = torch.get_rng_state()
    figure = undirected_pictures.energy_trace(rbm, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(starts[1]["v"], x) and not torch.equal(starts[0]["v"], x)
    assert seeds[0] != seeds[1]  # of the same numbers chains come together, whether they mix or not
    over_time, single = figure.axes
    assert over_time.get_xlabel() == "Gibbs sweeps of RBM" and "energy" in over_time.get_ylabel()
    assert [len(line.get_xdata()) for line in over_time.lines] == [50, 50]
    assert len(single.lines) == 4
    assert "7 chains of either start" in over_time.get_title(loc="left")


def test_a_machine_over_vectors_has_no_filters(tmp_path):
    from zoo.cli.pictures import draw_pictures
    from zoo.cli.run_folder import RunFolder
    from zoo.data.dataset import Dataset, Split

    rbm = RBM((4,), hidden=3, visible="gaussian")
    split = Split(torch.randn(12, 4))
    dataset = Dataset("vectors", rbm.event_shape, rbm.support, split, split, split)
    assert draw_pictures(rbm, dataset, RunFolder(tmp_path)) == ["samples.png", "energy-trace.png"]
