"""The figures of draws: models without likelihood, in ``zoo evaluate`` and in ``zoo compare``."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import nn

import inference
from tests.cli.conftest import contents
from zoo.cli import recipe, report, sample_figures
from zoo.cli.comparison_report import print_comparison, rows_of_draws
from zoo.cli.probes import probe_table
from zoo.cli.run_folder import RunFolder
from zoo.data import load
from zoo.data.dataset import Split
from zoo.model import GenerativeModel
from zoo.registry import MODELS

NAMES = {"frechet", "frechet_error", "mmd", "mmd_error", "told_apart", "told_apart_error", "told_apart_p"} | {
    *("precision", "recall", "draws")
}


class Drawer(GenerativeModel):
    """A generator and nothing else: x is a function of z."""

    density = "none"
    recipes = dict.fromkeys(
        ("digits", "red-wine"),
        {"model": {}, "objective": "adversarial", "fit": {"epochs": 2, "batch_size": 200, "lr": 0.1}},
    )

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.support = constraints.boolean if len(event_shape) > 1 else constraints.real
        self.generator = nn.Linear(5, self.event_shape.numel())

    def means(self, num):
        z = pyro.sample("z", dist.Normal(self.generator.weight.new_zeros(num, 5), 1.0).to_event(1))
        return self.generator(z).unflatten(-1, self.event_shape)

    def model(self, x=None, *, num=1):
        pyro.module(self.name, self)
        with pyro.plate("data", num):
            means = self.means(num)
        return means if self.support is constraints.real else (means > 0).to(means.dtype)

    def _sample(self, num):
        return self.model(num=num)


class Mean(nn.Module):
    """An objective that is no likelihood: draws should have the mean of the items."""

    takes_labels = False

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        x = batch[0] if isinstance(batch, tuple) else batch
        drawn = self.model.means(len(x))
        drawn = drawn if self.model.support is constraints.real else drawn.sigmoid()
        return (drawn.mean(0) - x.mean(0)).square().sum()


@pytest.fixture
def drawer(monkeypatch):
    """Registers `Drawer` as the model ``drawer``, trained by `Mean`."""
    monkeypatch.setitem(MODELS, "drawer", f"{__name__}:Drawer")
    monkeypatch.setitem(recipe.OBJECTIVES, "adversarial", "Mean")
    monkeypatch.setattr(inference, "Mean", Mean, raising=False)


def untrained(model, data, folder):
    """A run folder as it is after a training, with the weights from before it."""
    config = recipe.resolve(model, load(data))
    run = RunFolder(folder)
    run.open(config)
    run.save_model(recipe.build_model(config))
    return folder


def read(path):
    return json.loads(path.read_text())


# zoo train, zoo evaluate


@pytest.mark.usefixtures("drawer", "without_pictures")
def test_a_model_without_likelihood_is_judged_by_its_draws(zoo, capsys):
    assert zoo("train", "drawer", "--out", "run") == 0
    shown = capsys.readouterr().out
    metrics = read(Path("run/metrics.json"))
    none = {"nats_per_item": None, "standard_error": None, "bits_per_dim": None, "kind": "none"}
    assert metrics["test"] == none | {"items": 250}
    samples = metrics["samples"]
    assert samples.keys() == NAMES | {"items", "judge", "real", "seconds"} and samples["real"].keys() == NAMES
    assert samples["draws"] == samples["items"] == samples["real"]["draws"] == 250
    assert samples["frechet"] > 3 * samples["real"]["frechet"] and samples["told_apart"] > 0.8
    assert "the model has no likelihood" in shown and "Fréchet" in shown and "recall" in shown
    assert "per item" not in shown and "bits" not in shown
    assert f"{samples['frechet']:.2f} ± {samples['frechet_error']:.2f}" in shown

    assert zoo("evaluate", "run", "--draws", 60, "--seed", 1) == 0
    again = read(Path("run/metrics.json"))
    assert again["samples"]["draws"] == 60 and again["samples"]["frechet"] != samples["frechet"]
    assert again["seconds"] == metrics["seconds"] and again["test"] == metrics["test"]
    assert zoo("evaluate", "run") == 0
    del samples["seconds"]
    assert read(Path("run/metrics.json"))["samples"].items() >= samples.items(), "the seed decides"


@pytest.mark.usefixtures("without_pictures")
def test_a_model_with_likelihood_is_judged_by_both_where_it_is_asked_for(zoo, run, capsys):
    before = read(run / "metrics.json")
    assert "samples" not in before
    assert zoo("evaluate", run, "--draws", 50) == 0
    shown = capsys.readouterr().out
    after = read(run / "metrics.json")
    assert after["samples"]["draws"] == 50
    assert after["test"]["nats_per_item"] == before["test"]["nats_per_item"]
    assert "nats per item" in shown and "Fréchet" in shown


@pytest.mark.parametrize("objective", ["elbo", *report.JUDGED_BY_DRAWS])
def test_what_was_trained_to_draw_well_is_always_judged_by_its_draws(run, monkeypatch, objective):
    monkeypatch.setattr(sample_figures, "sample_figures", lambda *args, **settings: settings)
    folder = RunFolder(run)
    config = folder.config() | {"objective": objective}
    metrics = report.test_metrics(folder.load_model(), load("digits"), config, particles=2, seed=3)
    assert metrics["test"]["kind"] == "lower bound"
    expected = {} if objective == "elbo" else {"samples": {"draws": None, "seed": 3}}
    assert {name: metrics[name] for name in metrics.keys() & {"samples"}} == expected


@pytest.mark.usefixtures("drawer")
def test_what_only_a_likelihood_takes_is_refused(refused, zoo, tmp_path):
    folder = untrained("drawer", "digits", tmp_path / "run")
    before = contents(tmp_path)
    for option in (("--particles", 5), ("--bound", "elbo")):
        line = refused("evaluate", folder, *option)
        assert f"{option[0]} expects a model with a likelihood" in line and "drawer has none" in line
    assert "--chains expects" in refused("evaluate", folder, "--chains", 5)
    for option in (("--evaluation-particles", 5), ("--evaluation-bound", "elbo")):
        assert "drawer has no likelihood" in refused("train", "drawer", *option, "--out", tmp_path / "new")
    line = refused("compare", "drawer", "--methods", "all")
    assert "--methods expects a model with a likelihood, and drawer has none" in line
    for command in ("complete", "anomaly"):
        line = refused(command, folder)
        assert f"zoo {command} expects a model with a likelihood" in line and "drawer has none" in line
    assert contents(tmp_path) == before


def test_texts_are_no_items_to_compare(refused, tmp_path):
    folder = untrained("char-rnn", "names", tmp_path / "run")
    assert "a run on names" in refused("evaluate", folder, "--draws", 50)


@pytest.mark.usefixtures("drawer", "without_pictures")
def test_draws_that_are_no_numbers_get_one_line(refused, tmp_path):
    folder = untrained("drawer", "red-wine", tmp_path / "run")
    run = RunFolder(folder)
    model = run.load_model()
    nn.init.constant_(model.generator.weight, float("nan"))
    run.save_model(model)
    assert "some draws of Drawer are no finite numbers" in refused("evaluate", folder, code=1)


@pytest.mark.usefixtures("drawer", "without_pictures")
def test_folds_of_a_model_without_likelihood_have_no_mean_of_it(zoo, capsys, tmp_path):
    for fold in (0, 1):
        folder = tmp_path / "all" / f"fold-{fold}"
        assert zoo("train", "drawer", "--data", "red-wine", "--fold", fold, "--out", folder) == 0
    report.report_folds(tmp_path / "all")
    metrics = read(tmp_path / "all" / "metrics.json")
    assert metrics["test"]["kind"] == "none" and metrics["test"]["nats_per_item"] is None
    folds = [read(tmp_path / "all" / f"fold-{fold}" / "metrics.json")["samples"] for fold in (0, 1)]
    for name in ("mmd", "recall"):
        assert metrics["samples"][name] == pytest.approx((folds[0][name] + folds[1][name]) / 2)
    assert "frechet" not in metrics["samples"], "no classifier of vectors"
    assert "mean over 2 folds" in capsys.readouterr().out


# The figures


class Replay:
    """Draws that are some given items."""

    def __init__(self, items):
        self.items = items

    def sample(self, num, seed):
        return self.items[:num]


def test_each_figure_sees_its_own_fault():
    data = load("digits")
    train = data.train.x
    pixels = torch.bernoulli(
        train.mean(0).clamp(0.01, 0.99).expand(250, 8, 8), generator=torch.Generator().manual_seed(0)
    )
    draws = {"learnt by heart": train, "collapsed": train[:5].repeat(50, 1, 1), "pixels": pixels}
    found = {name: sample_figures.sample_figures(Replay(items), data) for name, items in draws.items()}
    real = found["pixels"]["real"]
    good = found["learnt by heart"]
    assert good["frechet"] < 1.5 * real["frechet"] and good["told_apart_p"] > 0.05 and good["mmd"] < 0.003
    assert min(good["precision"], good["recall"]) > 0.75
    assert found["collapsed"]["recall"] < 0.05 and found["collapsed"]["frechet"] > 10 * real["frechet"]
    assert found["pixels"]["precision"] < real["precision"] - 0.2 and found["pixels"]["told_apart"] > 0.8
    assert found["pixels"]["frechet"] > 3 * real["frechet"] > 0
    assert good["judge"]["accuracy"] > 0.94 and good["judge"]["features"] == sample_figures.FEATURES


def test_the_classifier_is_the_same_in_every_process():
    judge = sample_figures.judge_of("digits", None)
    sample_figures.judge_of.cache_clear()
    torch.rand(7)  # what was drawn before is no matter
    state = torch.get_rng_state()
    again = sample_figures.judge_of("digits", None)
    assert torch.equal(torch.get_rng_state(), state)
    x = load("digits").train.x
    assert torch.equal(judge.features(x), again.features(x))
    assert judge.features(x).mean(0).abs().max() < 1e-4, "of mean 0 and variance 1 over training items"
    assert (judge.features(x).std(0) - 1).abs().max() < 1e-4


# zoo compare


@pytest.fixture
def compared(zoo, drawer, without_pictures, tmp_path, capsys):
    """A comparison of three models, one without likelihood; what it printed."""
    args = (
        "compare",
        "drawer",
        "vae",
        "independent",
        "--epochs",
        2,
        "--evaluation-particles",
        5,
        "--jobs",
        1,
    )

    def compared(*more):
        capsys.readouterr()
        assert zoo(*args, "--out", "all", *more) == 0
        return capsys.readouterr().out

    return compared


def test_a_model_without_likelihood_stands_in_a_section_of_its_own(compared, tmp_path):
    shown = compared()
    rows = {row["name"]: row for row in read(tmp_path / "all" / "comparison.json")["rows"]}
    assert list(rows)[-1] == "drawer" and rows["drawer"]["test"]["nats_per_item"] is None
    assert all(row["samples"]["draws"] == 250 for row in rows.values())
    likelihoods, _, others = shown.partition("Fréchet   ")
    assert "drawer: Fréchet" in likelihoods and "nats" not in likelihoods.split("drawer: ")[2].split("\n")[0]
    table = likelihoods[likelihoods.index("test nats") :]
    assert "vae" in table and "drawer" not in table
    draws = [line.split()[0] for line in others.splitlines() if "±" in line][:4]
    assert draws[0] == "real" and set(draws[1:]) == {"drawer", "vae", "independent"}
    assert max(map(len, shown.splitlines())) <= 80

    page = (tmp_path / "all" / "report.html").read_text()
    sections = dict(part.split("</h2>", 1) for part in page.split("<h2>")[1:])
    assert list(sections)[:5] == ["Test figures", "Draws", "Representations", "Charts", "Pictures of draws"]
    assert "<td>drawer</td>" not in sections["Test figures"] and "<td>drawer</td>" in sections["Draws"]
    assert "<td>real items</td>" in sections["Draws"] and "<td>vae</td>" in sections["Draws"]
    assert "<td>ppca, 10 directions</td>" in sections["Representations"]
    charts = sections["Charts"]
    assert "Test nats of vae" in charts or "Test nats of independent" in charts
    ranked, validation = (
        charts.split(f'alt="{words}')[1].split('"')[0] for words in ("Test nats", "Loss of")
    )
    assert "drawer" not in ranked and "drawer" not in validation
    assert "drawer" in charts.split('alt="Fréchet')[1].split('"')[0]
    assert "drawer, Fréchet" in sections["Pictures of draws"]

    kept = contents(tmp_path / "all")
    (tmp_path / "all" / "vae" / "samples.json").write_text("{")
    compared()
    after = contents(tmp_path / "all")
    seconds = {"comparison.json", "vae/samples.json"}  # it says how long they took
    changed = {name for name in after if after[name] != kept[name]}
    assert changed - seconds == {f"logs/{name}.txt" for name in rows}
    assert read(tmp_path / "all/vae/samples.json").keys() == rows["vae"]["samples"].keys()


@pytest.mark.usefixtures("drawer", "without_pictures")
def test_models_without_likelihood_alone_can_be_compared(zoo, capsys, tmp_path):
    assert zoo("compare", "drawer", "--jobs", 1, "--out", "all", "--epochs", 1) == 0
    shown = capsys.readouterr().out
    assert "Fréchet" in shown and "nats" not in shown
    page = (tmp_path / "all" / "report.html").read_text()
    assert "<h2>Draws" in page and "<h2>Test figures" not in page and "Test nats" not in page


def test_figures_of_other_numbers_of_draws_are_not_compared(run, monkeypatch):
    folder = RunFolder(shutil.copytree(run, run.parent / "copy"))
    monkeypatch.setattr(sample_figures, "sample_figures", lambda *args: {"new": True})
    for draws, expected in ((250, {"draws": 250, "items": 250}), (900, {"new": True})):
        samples = {"draws": draws, "items": 250}
        folder.write_json("metrics.json", folder.metrics() | {"samples": samples})
        assert sample_figures.figures_of_row(folder, load("digits")) == expected
        (folder.path / "samples.json").unlink(missing_ok=True)
        assert sample_figures.figures_of_row(folder, load("red-wine")) == expected, "nor left out"
    assert sample_figures.figures_of_row(RunFolder(run), load("red-wine")) is None


def test_a_model_that_cannot_draw_is_left_out(run, monkeypatch):
    def fail(*args):
        raise FloatingPointError("no inverse")

    monkeypatch.setattr(sample_figures, "sample_figures", fail)
    folder = RunFolder(run)
    assert sample_figures.figures_of_row(folder, load("digits")) is None
    folder.write_json("metrics.json", folder.metrics() | {"samples": {"draws": 9, "items": 250}})
    with pytest.raises(FloatingPointError):  # where nothing else stands for it
        sample_figures.figures_of_row(folder, load("digits"))


def test_draws_are_sorted_by_the_frechet_distance():
    rows = [
        {"name": "a", "samples": {"frechet": 3.0, "told_apart": 0.6, "real": {"frechet": 1.0}}},
        {"name": "b", "samples": {"frechet": 2.0, "told_apart": 0.9, "real": {"frechet": 1.0}}},
        {"name": "c", "failed": "it did"},
    ]
    assert [row["name"] for row in rows_of_draws({"rows": rows})] == ["real items", "b", "a"]
    assert rows_of_draws({"rows": rows[2:]}) == []


def test_the_table_of_draws_fits_a_narrow_terminal(capsys):
    figures = dict.fromkeys(NAMES, 0.1) | {"frechet": 127.84, "frechet_error": 11.12, "told_apart": 1.0}
    samples = figures | {"real": figures}
    row = {"name": "bernoulli-mixture", "test": {"kind": "none"}, "samples": samples}
    print_comparison({"compared": "models", "rows": [row]})
    [line] = [line for line in capsys.readouterr().out.splitlines() if "bernoulli" in line]
    assert line.split() == "bernoulli-mixture 127.84 ± 11.12 0.1000 100% 10% 10%".split()
    assert len(line) <= 80


# Representations


def test_probes_stand_beside_raw_entries_and_principal_components():
    data = load("digits")
    rows = [
        {"name": "good", "probe": {"features": 0.96, "raw": 0.92}},
        {"name": "bad", "probe": {"features": 0.36, "raw": 0.92}},
        {"name": "none"},
    ]
    table = probe_table(rows, data)
    assert [row["name"] for row in table] == ["good", "raw entries", "ppca, 10 directions", "bad"]
    assert 0.85 < table[2]["accuracy"] < 0.92
    assert table[0]["standard_error"] == pytest.approx((0.96 * 0.04 / 250) ** 0.5)
    assert probe_table(rows[2:], data) == []


def test_what_an_entry_of_a_code_carries():
    x = torch.randint(0, 2, (400, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    y = torch.arange(400) % 4
    noise = torch.randn(400, generator=torch.Generator().manual_seed(1))
    ink = x.flatten(1).sum(1)
    by_label = torch.tensor([3.0, 0.0, 1.0, 5.0])[y]
    half = by_label / by_label.std() + noise  # uncorrelated to it but by chance
    codes = torch.stack([by_label, 7 - 2 * ink, noise, half, torch.zeros(400)], dim=1)
    model = SimpleNamespace(encode=lambda x: SimpleNamespace(mean=codes[: len(x)]))
    unknown = Split(torch.cat([x, x[:9]]), torch.cat([y, torch.full((9,), -1)]))
    carried = report.carried_by_code(model, unknown)
    assert carried["label"][0] == pytest.approx(1.0) and carried["ink"][1] == pytest.approx(1.0)
    assert carried["label"][3] == pytest.approx(0.5, abs=0.07)
    assert max(carried["label"][1], carried["label"][2], carried["ink"][0], carried["ink"][2]) < 0.05
    assert carried["label"][4] == carried["ink"][4] == 0


def test_traversals_say_what_an_entry_carries(trained, monkeypatch):
    from zoo.cli import pictures

    model = RunFolder(trained / "vae").load_model()
    carried = read(trained / "vae" / "metrics.json")["carried"]
    assert len(carried["label"]) == len(carried["ink"]) == model.latent_dim
    with torch.no_grad():
        titles = [text.get_text() for text in pictures._traversals(model, load("digits")).axes[0].texts]
    entry = int(titles[0][2 : titles[0].index("]")])
    assert titles[0] == f"z[{entry}]: label {carried['label'][entry]:.0%}, ink {carried['ink'][entry]:.0%}"
    unlabelled = SimpleNamespace(test=load("digits").test, num_classes=None)
    with torch.no_grad():
        assert pictures._traversals(model, unlabelled).axes[0].texts[0].get_text() == f"z[{entry}]"
    assert not (read(trained / "supervised-vae" / "metrics.json").keys() & {"carried"}), (
        "no code without a label"
    )
