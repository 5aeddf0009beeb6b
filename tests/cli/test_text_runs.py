"""Runs on texts: the figures by characters, what is drawn, printed and continued, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import call, contents
from zoo.cli.methods import choose_methods, configure
from zoo.cli.report import print_metrics
from zoo.cli.run_folder import RunFolder
from zoo.data import load

QUICK = ("--set", "hidden=8", "--epochs", "1", "--accelerator", "cpu")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Runs that no test may change: ``play``, of the embedded one, and ``names``."""
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZOO_DATA_DIR", raising=False)
        for name, data in (("play", "shakespeare"), ("names", "names")):
            assert call("train", "char-rnn", "--data", data, "--out", folder / name, *QUICK) == 0
    return folder


@pytest.fixture(autouse=True)
def embedded(monkeypatch) -> None:
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)


def test_a_run_on_a_play_says_what_a_character_costs(texts):
    run = RunFolder(texts / "play")
    metrics, data, model = run.metrics(), load("shakespeare"), run.load_model()
    characters = metrics["characters"]
    (act,) = data.test.sequences
    assert (characters["characters"], characters["training"]) == (len(act), len(data.train.sequences[0]))
    expected = -model.log_prob_of(act).double().mean().item()
    assert characters["nats_per_character"] == pytest.approx(expected, abs=1e-4)
    assert characters["unigram"] == pytest.approx(3.350, abs=1e-3)
    assert characters["bigram"] == pytest.approx(2.466, abs=1e-3)
    assert characters["5-gram"] == pytest.approx(1.736, abs=1e-3)
    assert "drawn" not in metrics and metrics["objective"] == "truncated-backpropagation"
    assert sorted(contents(texts / "play")) == [
        *("config.json", "history.csv", "learning_curve.png", "metrics.json"),
        *("model.safetensors", "samples.txt"),
    ]
    assert len((texts / "play" / "samples.txt").read_text(encoding="ascii")) == 2001


def test_a_run_on_names_says_what_a_character_costs_and_how_many_it_has_seen(texts):
    run = RunFolder(texts / "names")
    metrics, data, model = run.metrics(), load("names"), run.load_model()
    ends = (data.test.x == 0).int().argmax(1) + 1  # a name's characters, and one end
    assert metrics["characters"]["characters"] == ends.sum()
    expected = -model.log_prob(data.test.x).double().sum().item() / ends.sum().item()
    assert metrics["characters"]["nats_per_character"] == pytest.approx(expected, abs=1e-4)
    order = [metrics["characters"][name] for name in ("unigram", "bigram", "5-gram")]
    assert order == sorted(order, reverse=True) and order[0] < 3.5
    drawn = model.sample(1000, seed=0)
    training = {tuple(item) for item in data.train.x.tolist()}
    held_out = {tuple(item) for part in (data.valid, data.test) for item in part.x.tolist()}
    shares = [sum(tuple(item) in known for item in drawn.tolist()) / 1000 for known in (training, held_out)]
    assert [metrics["drawn"][name] for name in ("in_training", "held_out")] == shares
    assert metrics["drawn"]["names"] == 1000
    lines = (texts / "names" / "samples.txt").read_text().splitlines()
    assert len(lines) == 100


def test_the_table_shows_the_figures_by_characters(texts, capsys):
    metrics = RunFolder(texts / "names").metrics()
    metrics["drawn"] |= {"in_training": 0.321, "held_out": 0.045}
    print_metrics(metrics)
    said = " ".join(capsys.readouterr().out.split())
    for row in (
        f"-log p, nats per character {metrics['characters']['nats_per_character']:.3f} of 5,623 test",
        f"the same by unigrams {metrics['characters']['unigram']:.3f} counts of 47,902 characters",
        f"the same by bigrams {metrics['characters']['bigram']:.3f}",
        f"the same by 5-grams {metrics['characters']['5-gram']:.3f}",
        "drawn names, in training 32.1% of 1,000; 4.5% are held-out names",
    ):
        assert row in said


# Drawn and continued


def test_a_text_is_printed(zoo, texts, capsys):
    before = contents(texts / "play")
    assert zoo("sample", texts / "play", "--length", 30, "--num", 2, "--seed", 4) == 0
    printed = capsys.readouterr().out
    model, data = RunFolder(texts / "play").load_model(), load("shakespeare")
    one, other = map(data.decode, model.generate(2, 30, seed=4))
    assert printed == f"{one}\n{'-' * 20}\n{other}\n"
    assert zoo("sample", texts / "play") == 0
    assert capsys.readouterr().out == data.decode(model.generate(1, 1000, seed=0)[0]) + "\n"
    assert contents(texts / "play") == before


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_a_text_goes_on_from_its_prefix(zoo, texts, tmp_path, capsys, command):
    asked = (command, texts / "play", "--prefix", "ROMEO:", "--length", 20, "--num", 1)
    assert zoo(*asked) == 0
    printed = capsys.readouterr().out
    model, data = RunFolder(texts / "play").load_model(), load("shakespeare")
    drawn = model.generate(1, 20, prefix=data.encode("ROMEO:"), seed=0)
    assert printed == f"ROMEO:{data.decode(drawn[0])}\n"
    assert zoo(*asked, "--out", tmp_path / "text.txt") == 0
    assert capsys.readouterr().out == f"wrote 1 text to {tmp_path}/text.txt\n"
    assert (tmp_path / "text.txt").read_text() == printed
    assert zoo(*asked, "--out", tmp_path / "text.npy") == 0
    items = torch.from_numpy(np.load(tmp_path / "text.npy"))
    assert torch.equal(items, torch.cat([data.encode("ROMEO:").unsqueeze(0), drawn], 1))


def test_names_are_printed_with_whether_they_occur_in_training(zoo, texts, capsys, monkeypatch):
    data = load("names")
    seen, held = (data.decode(part.x[0]).rstrip() for part in (data.train, data.test))
    drawn = torch.stack([data.encode(name.ljust(16, "\n")) for name in (seen, held, "Xqz", seen)])
    monkeypatch.setattr(
        "zoo.autoregressive.char_rnn.CharRNN.generate", lambda self, num, length, **more: drawn[:num]
    )
    assert zoo("sample", texts / "names", "--num", 4) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(f"{seen}  (in training)", f"{held}  (held out)", "Xqz", f"{seen}  (in training)"),
        "2 of 4 occur in training, 1 among the names held out, 1 in neither",
    ]


def test_names_begin_with_their_prefix(zoo, texts, tmp_path, capsys):
    assert zoo("complete", texts / "names", "--prefix", "Mar", "--num", 5) == 0
    *names, _ = capsys.readouterr().out.splitlines()
    assert len(names) == 5 and all(name.startswith("Mar") for name in names)
    assert zoo("sample", texts / "names", "--prefix", "Mar", "--out", tmp_path / "names.npy") == 0
    assert np.load(tmp_path / "names.npy").shape == (20, 16)
    assert "wrote 20 names to" in capsys.readouterr().out
    assert zoo("sample", texts / "names", "--prefix", "Mar", "--length", 2, "--out", tmp_path / "m.npy") == 0
    assert np.load(tmp_path / "m.npy").shape == (20, 5)


# Evaluated again


def test_evaluated_again_it_has_the_same_figures(zoo, texts, tmp_path):
    run = Path(shutil.copytree(texts / "play", tmp_path / "run"))
    assert zoo("evaluate", run) == 0
    before, after = (RunFolder(folder).metrics() for folder in (texts / "play", run))
    assert (after["characters"], after["finished"]) == (before["characters"], True)


def test_other_texts_than_those_of_the_training_are_refused(refused, texts, tmp_path):
    run = Path(shutil.copytree(texts / "play", tmp_path / "run"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["characters"]["training"] = 4_346_071
    (run / "metrics.json").write_text(json.dumps(metrics))
    line = refused("evaluate", run)
    assert "learnt from 4,346,071 characters of shakespeare, and here are 103,632: set ZOO_DATA_DIR" in line


# What is refused


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            ("sample", "play", "--prefix", "Roméo"),
            "the character 'é' was never seen in training: leave it out",
        ),
        (("sample", "names", "--prefix", "x" * 16), "fewer characters than the context, 16, got 16"),
        (("complete", "names", "--prefix", "x" * 20), "fewer characters than the context, 16, got 20"),
        (("sample", "names", "--prefix", "Mar", "--length", 14), "longer than the context, 16 characters"),
        (("sample", "play", "--length", 0), "greater than or equal to 1"),
        (("sample", "play", "--label", 1), "--label and --sweeps are not for a run on shakespeare"),
        (("sample", "play", "--sweeps", 1), "--label and --sweeps are not for a run on shakespeare"),
        (("sample", "play", "--out", "a.png"), "--out expects a file that ends in .txt or .npy for a text"),
        (("sample", "play", "--out", "nowhere/a.txt"), "--out expects a file in a folder that is there"),
        (("complete", "play", "--prefix", "A", "--label", 1), "--label is for images, and this is a run on"),
        (("complete", "play", "--prefix", "A", "--method", "smc"), "--method is for images"),
        (("complete", "names", "--prefix", "A", "--items", 2), "--items is for images"),
        (("complete", "play"), "expects --prefix, the beginning of a text, for shakespeare"),
    ],
)
def test_bad_requests(refused, texts, asked, words):
    command, run, *options = asked
    assert words in refused(command, texts / run, *options)


@pytest.mark.parametrize(
    ("command", "option"), [("sample", "prefix"), ("sample", "length"), ("complete", "prefix")]
)
def test_a_run_on_images_takes_no_text(refused, trained, command, option):
    line = refused(command, trained / "vae", f"--{option}", 3)
    assert line == f"zoo: --{option} expects a run on one of names, shakespeare, and this is one on digits"


def test_names_may_be_learnt_without_an_end(zoo, texts, tmp_path):
    """As sequences of so many characters, the end among them."""
    assert (
        zoo("train", "char-rnn", "--data", "names", "--set", "end=None", *QUICK, "--out", tmp_path / "run")
        == 0
    )
    without, ended = (RunFolder(run).metrics()["characters"] for run in (tmp_path / "run", texts / "names"))
    assert without["characters"] == ended["characters"] and without["5-gram"] == ended["5-gram"]


def test_the_state_is_carried_by_a_method_where_there_are_windows():
    settings = {"fit": {}, "particles": None, "seed": 0}
    suited = {}
    for data in ("shakespeare", "names"):
        suited[data], _ = choose_methods("char-rnn", ["all"], load(data), settings)
    assert suited["names"] == ["maximum-likelihood"]
    assert suited["shakespeare"] == ["maximum-likelihood", "truncated-backpropagation"]
    config, _ = configure("truncated-backpropagation", "char-rnn", load("shakespeare"), settings, 4)
    assert (config["objective"], config["fit"]["precision"]) == ("truncated-backpropagation", "bf16-mixed")
