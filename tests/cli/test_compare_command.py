"""zoo compare: rows side by side, one table, one report, and nothing lost when one of them fails."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from html.parser import HTMLParser
from pathlib import Path

import pytest

import inference
from tests.cli.conftest import ROOT, call, contents
from zoo.cli import compare as _compare  # noqa: F401  the function hides its module
from zoo.cli.methods import METHODS

compare_module = sys.modules["zoo.cli.compare"]

MODELS = ("independent", "markov-chain", "vae")
QUICK = ("--epochs", 2, "--evaluation-particles", 20)
COMPARE = ("compare", "vae", "independent", "markov-chain", *QUICK, "--out", "all")


class Page(HTMLParser):
    """What a page shows, and what it names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images, self.sources, self.texts, self.open, self.rows = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        self.sources += [attrs[name] for name in ("src", "href", "srcset", "action") if name in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open[-1:] == ["td"]:
            self.rows[-1].append(data)


def comparison(folder="all"):
    return json.loads((Path(folder) / "comparison.json").read_text())


def figures(folder="all"):
    return {row["name"]: row["test"]["nats_per_item"] for row in comparison(folder)["rows"]}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of three models in two processes, and what it printed; no test may change it."""
    folder = tmp_path_factory.mktemp("compared")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert call(*COMPARE, "--jobs", 2, "--result", "kept.json") == 0
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def methods_compared(tmp_path_factory):
    """Two methods on a VAE."""
    folder = tmp_path_factory.mktemp("methods") / "all"
    chosen = "score-function, importance-weighted"
    assert call("compare", "vae", "--methods", chosen, *QUICK, "--jobs", 1, "--out", folder) == 0
    return folder


@pytest.fixture
def without_report(monkeypatch):
    """Leaves a comparison without its report, and its rows without pictures."""
    monkeypatch.setattr("zoo.cli.comparison_report.write_report", lambda out, comparison, dataset: None)
    monkeypatch.setattr("zoo.cli.pictures.draw_pictures", lambda model, dataset, run: [])


# Models


def test_the_table_is_sorted_and_says_what_kind_of_figure_each_is(compared):
    _, printed, errors = compared
    printed = printed[: printed.index("Fréchet")]
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] and "±" in line]
    table = [row for row in rows if row[0] in MODELS]
    assert [row[0] for row in table] == ["vae", "markov-chain", "independent"]
    assert table[0][1] == "≤" and table[0][-1] == "bound" and table[1][-1] == "exact"
    nats = [float(re.search(r"(\d+\.\d+) ±", " ".join(row))[1]) for row in table]
    assert nats == sorted(nats)
    assert errors == ""


def test_each_row_says_when_it_begins_and_ends_and_nothing_more(compared):
    _, printed, _ = compared
    before_table = printed[: printed.index("──")].splitlines()
    said = [line for line in before_table if ":" in line]
    assert sorted(line for line in said if line.endswith("training")) == [f"{n}: training" for n in MODELS]
    ended = [line for line in said if "nats" in line]
    assert [line[-8:] for line in ended] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]
    assert len(said) == 6


def test_the_comparison_is_written_as_plain_data(compared):
    folder = compared[0]
    content = comparison(folder / "all")
    assert content["data"] == "digits" and content["seed"] == 0 and content["fold"] is None
    words = "--epochs 2 --evaluation-particles 20 --jobs 2"
    assert content["command"] == f"zoo compare vae independent markov-chain {words}"
    assert "torch" in content["machine"][0]
    for row in content["rows"]:
        metrics = json.loads((folder / "all" / row["name"] / "metrics.json").read_text())
        assert row["test"] == metrics["test"] and row["seconds"] == metrics["seconds"]
        assert row["parameters"] == metrics["parameters"] > 0 and row["epochs"] == 2
    assert content["rows"][0]["test"]["particles"] == 20
    assert json.loads((folder / "kept.json").read_text()) == content


def test_rows_are_run_folders(compared, zoo, tmp_path):
    folder = compared[0]
    assert zoo("sample", folder / "all" / "independent", "--out", tmp_path / "drawn.npy") == 0
    assert zoo("train", "vae", *QUICK, "--out", folder / "all" / "vae") == 0, "the same settings"


def test_what_rows_say_themselves_is_kept(compared):
    folder = compared[0]
    assert "training vae on digits" in (folder / "all" / "logs" / "vae.txt").read_text()


def test_a_finished_row_is_not_trained_again(compared, zoo, capsys, monkeypatch, tmp_path):
    import shutil

    shutil.copytree(compared[0] / "all", tmp_path / "all")
    before = contents(tmp_path / "all")
    monkeypatch.setattr(inference, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert zoo(*COMPARE, "--jobs", 2) == 0
    assert capsys.readouterr().out.count("trained already") == 3
    after = contents(tmp_path / "all")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"logs/{name}.txt" for name in MODELS}, "table and report have the same bytes"


@pytest.mark.usefixtures("without_report")
def test_the_number_of_jobs_changes_no_figure(compared, zoo):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what each of the two processes had
    try:
        assert zoo(*COMPARE, "--jobs", 1, "--seed", 0) == 0
    finally:
        torch.set_num_threads(threads)
    assert figures() == figures(compared[0] / "all")
    weights = [folder / "vae" / "model.safetensors" for folder in (Path("all"), compared[0] / "all")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_without_names_every_model_with_a_recipe_takes_part(zoo, monkeypatch):
    taken = []
    monkeypatch.setattr(compare_module, "_run", lambda rows, *rest: taken.extend(rows) or 0)
    assert zoo("compare", "--data", "digits") == 0
    names = [row.name for row in taken]
    assert {"independent", "markov-chain", "fvsbn", "nade", "vae", "iwae", "dbm", "rbm"} <= set(names)
    assert not {"full-joint", "realnvp", "rnade"} & set(names)
    assert names.index("dbm") < names.index("vae") < names.index("nade"), "the long ones first"
    [iwae] = [row for row in taken if row.name == "iwae"]
    assert iwae.config["model"] == "vae" and iwae.config["objective"] == "importance-weighted"
    assert iwae.out == Path("runs/compare-digits/iwae")


def test_folds_are_compared_on_one_that_is_named(zoo, capsys):
    assert zoo("compare", "ppca", "--data", "red-wine", "--epochs", 2, "--out", "wine", "--fold", 3) == 0
    assert "fold 3 of the 10 of red-wine; --fold k takes another" in capsys.readouterr().out
    content = comparison("wine")
    assert content["fold"] == 3 and "fold 3" in content["notes"][0]
    page = Page(Path("wine/report.html"))
    assert "Models of red-wine, fold 3" in page.texts
    assert any(image["alt"] == "64 draws from ppca" for image in page.images)


# What goes wrong


def test_a_row_that_fails_loses_no_other(zoo, capsys, tmp_path):
    damaged = tmp_path / "all" / "vae"
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    assert zoo("compare", *MODELS, *QUICK, "--jobs", 1, "--out", "all") == 1
    shown = capsys.readouterr().out
    assert "vae failed: all/vae/config.json is damaged" in shown
    rows = comparison()["rows"]
    assert [row["name"] for row in rows] == ["markov-chain", "independent", "vae"]
    assert "is damaged" in rows[-1]["failed"] and "test" not in rows[-1]
    assert "Traceback" in (tmp_path / "all" / "logs" / "vae.txt").read_text()
    page = Page(tmp_path / "all" / "report.html")
    assert any(row[:1] == ["vae"] and "is damaged" in row[1] for row in page.rows)


def test_where_every_row_fails_there_is_a_report_too(zoo, monkeypatch):
    def fail(*args):
        raise RuntimeError("no\nway")

    monkeypatch.setattr(sys.modules["zoo.cli.train"], "train_one", fail)
    assert zoo("compare", "independent", "--jobs", 1, "--out", "all") == 1
    assert comparison()["rows"][0]["failed"] == "RuntimeError: no way"
    assert any("RuntimeError: no way" in text for text in Page(Path("all/report.html")).texts)


@pytest.mark.usefixtures("without_report")
def test_a_process_that_is_killed_loses_no_other_row(zoo, capsys, monkeypatch):
    together = []
    parallel = compare_module._parallel

    def killed(rows, jobs):
        together.append([row.name for row in rows])
        if any(row.name == "markov-chain" for row in rows):
            raise BrokenProcessPool  # as joblib tells that the system has killed one
        yield from parallel(rows, 1)

    monkeypatch.setattr(compare_module, "_parallel", killed)
    assert zoo("compare", "markov-chain", "independent", *QUICK, "--jobs", 2, "--out", "all") == 1
    assert together == [["markov-chain", "independent"], ["markov-chain"], ["independent"]]
    rows = {row["name"]: row for row in comparison()["rows"]}
    assert "test" in rows["independent"]
    assert "its process was killed" in rows["markov-chain"]["failed"]
    assert "going on with one row at a time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nadee"], ["unknown model 'nadee'", "did you mean nade?", "iwae"]),
        (["--data", "digit"], ["unknown data set 'digit'", "did you mean digits?"]),
        (["vae", "realnvp"], ["realnvp has no recipe for digits"]),
        (["vae", "--fold", "2"], ["no folds"]),
        (["vae", "--jobs", "0"], ["--jobs"]),
        (["vae", "--draws", "1"], ["--draws"]),
        (["vae", "--result", "nowhere/kept.json"], ["--result", "nowhere/kept.json"]),
        (["vae", "--methods", "elbow"], ["unknown method 'elbow'", "did you mean elbo?", "nuts"]),
        (["vae", "nade", "--methods", "elbo"], ["exactly one model", "vae, nade"]),
        (["--methods", "all"], ["exactly one model", "got none"]),
        (["iwae", "--methods", "all"], ["exactly one model", "iwae"]),
        (["vae", "--methods", "all,elbo"], ["all, or names"]),
        (
            ["nade", "--methods", "elbo"],
            ["elbo needs latent sites", "nade can be fitted by maximum-likelihood"],
        ),
        (
            ["vae", "--methods", "elbo,nuts"],
            ["nuts needs priors", "vae can be fitted by elbo, score-function"],
        ),
        (["vae", "--methods", "mala"], ["mala needs priors over its parameters, which vae has not"]),
        (["rbm", "--methods", "elbo"], ["rbm can be fitted by contrastive-divergence, persistent-"]),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_trained(refused, tmp_path, args, said):
    line = refused("compare", *args)
    assert [words for words in said if words not in line] == [], line
    assert list(tmp_path.iterdir()) == []


def test_other_settings_in_the_same_folder_are_refused_and_leave_it(compared, refused, tmp_path):
    import shutil

    shutil.copytree(compared[0] / "all", tmp_path / "all")
    before = contents(tmp_path)
    line = refused("compare", *MODELS, "--epochs", 3, "--evaluation-particles", 20, "--out", "all")
    assert "another fit.epochs: asked for 3, there is 2" in line
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("dear reader")
    assert "is not empty" in refused("compare", *MODELS, "--out", "else")
    assert contents(tmp_path / "all") == {name[4:]: data for name, data in before.items()}


@pytest.mark.usefixtures("without_report")
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(zoo, capsys, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(inference.ELBO, "forward", lambda self, batch: signal.raise_signal(signal.SIGINT))
        assert zoo("compare", "independent", "vae", *QUICK, "--jobs", 1, "--out", "all") == 130
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "interrupted: 0 of 2 rows finished in all; the same command goes on"
    assert not (tmp_path / "all" / "comparison.json").exists()
    assert zoo("compare", "independent", "vae", *QUICK, "--jobs", 1, "--out", "all") == 0
    assert "going on with vae" in (tmp_path / "all" / "logs" / "vae.txt").read_text()


INTERRUPTED = """
import os, signal
import joblib.parallel
from zoo.cli import main

retrieve = joblib.parallel.Parallel._retrieve


def interrupted(self):  # the other processes are there
    os.killpg(os.getpgrp(), signal.SIGINT)  # as a terminal does
    yield from retrieve(self)


joblib.parallel.Parallel._retrieve = interrupted

from joblib.externals.loky.process_executor import _ExecutorManagerThread

ending = _ExecutorManagerThread.flag_executor_shutting_down


def ending_with_a_task_on_its_way(self):  # as it happens now and then
    ending(self)
    self.work_ids_queue.put(-1)


_ExecutorManagerThread.flag_executor_shutting_down = ending_with_a_task_on_its_way
if __name__ == "__main__":
    main()
"""


def _left(group):
    """Processes of a group that are there; those that ended may be listed."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    states = [line.split()[1] for line in listed.stdout.splitlines() if line.split()[0] == str(group)]
    return [state for state in states if not state.startswith("Z")]


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "compare", "nade", "vae", "--jobs", "2", "--out", "all"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, errors = running.communicate()
    assert running.returncode == 130 and errors == ""
    assert said.splitlines()[-1] == "interrupted: 0 of 2 rows finished in all; the same command goes on"
    # Its output is closed everywhere; a process that has closed it may need a moment yet, on a busy machine.
    assert any(not _left(running.pid) for _ in range(100))


# Methods


def test_methods_are_compared_on_one_model(methods_compared):
    folder = methods_compared
    content = comparison(folder)
    assert content["compared"] == "methods" and content["model"] == "vae"
    rows = {row["name"]: row for row in content["rows"]}
    assert rows.keys() == {"score-function", "importance-weighted"}
    for name, row in rows.items():
        config = json.loads((folder / name / "config.json").read_text())
        assert config["objective"] == METHODS[name].objective
        assert config["objective_arguments"] == METHODS[name].arguments
        assert config["arguments"] == {"latent_dim": 10, "hidden": [500]}, "the recipe's"
        history = (folder / name / "history.csv").read_text().splitlines()
        assert row["valid"] == min(float(line.split(",")[2]) for line in history[1:])
        assert row["gradient_variance"] > 0
    assert rows["score-function"]["gradient_variance"] > 10 * rows["importance-weighted"]["gradient_variance"]
    page = Page(folder / "report.html")
    assert "Inference methods for vae on digits" in page.texts
    assert any(image["alt"].startswith("Variance of the gradient") for image in page.images)
    assert any("seconds" in image["alt"] for image in page.images)


def test_all_methods_are_those_that_suit(zoo, monkeypatch):
    taken = []
    monkeypatch.setattr(compare_module, "_run", lambda rows, *rest: taken.append([r.name for r in rows]) or 0)
    assert zoo("compare", "vae", "--methods", "all") == 0
    assert zoo("compare", "nade", "--methods", "all") == 0
    assert zoo("compare", "rbm", "--methods", "all") == 0
    of_vae, of_nade, of_rbm = taken
    assert of_vae == [
        "elbo",
        "score-function",
        "baseline",
        "leave-one-out",
        "importance-weighted",
        "doubly-reparameterized",
        "reweighted-wake-sleep",
        "variational-em",
    ]
    assert of_nade == ["maximum-likelihood"]
    assert of_rbm == ["contrastive-divergence", "persistent-contrastive-divergence"]


def test_posteriors_over_the_parameters_leave_their_draws(zoo, capsys, monkeypatch, tmp_path, request):
    from safetensors.torch import load_file

    monkeypatch.setattr("zoo.cli.methods.TREE_DEPTH", 2)
    args = ("compare", "ppca", "--data", "red-wine", "--methods", "em,svi,nuts", "--epochs", 3)
    assert zoo(*args, "--draws", 4, "--jobs", 1, "--out", "all") == 0
    shown = capsys.readouterr().out
    assert "nuts, svi: given the first 500 of 1,296 training items" in shown
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    rows = {row["name"]: row for row in comparison()["rows"]}
    assert rows["em"]["test"]["kind"] == "exact" and "draws" not in rows["em"]
    nuts = rows["nuts"]
    assert nuts["test"]["kind"] == "estimate" and nuts["test"]["particles"] == 16
    assert (nuts["draws"]["chains"], nuts["draws"]["draws"], nuts["draws"]["of"]) == (4, 4, "energy")
    assert nuts["draws"]["r_hat"] > 0.5 and nuts["draws"]["ess_per_second"] > 0
    drawn = load_file(tmp_path / "all" / "nuts" / "draws.safetensors")
    assert drawn["samples.loc"].shape == (4, 4, 11) and drawn["stats.energy"].shape == (4, 4)
    assert rows["svi"]["draws"]["chains"] == 1 and "r_hat" not in rows["svi"]["draws"]
    alts = [image["alt"] for image in Page(tmp_path / "all" / "report.html").images]
    assert "Log joint density of the draws by nuts, 4 chains" in alts
    before = contents(tmp_path / "all")
    assert zoo(*args, "--draws", 4, "--jobs", 1, "--out", "all") == 0
    assert capsys.readouterr().out.count("trained already") == 3
    after = contents(tmp_path / "all")
    assert [name for name in after if after[name] != before[name] and "logs" not in name] == []
    # What cannot be read is drawn anew, and nothing else.
    request.getfixturevalue("without_report")
    (tmp_path / "all" / "svi" / "draws.safetensors").write_bytes(b"junk")
    assert zoo(*args, "--draws", 4, "--jobs", 1, "--out", "all") == 0
    assert contents(tmp_path / "all")["svi/draws.safetensors"] == before["svi/draws.safetensors"]


@pytest.mark.usefixtures("without_report")
def test_chains_of_our_own_kernels_are_judged_as_those_of_nuts(zoo, monkeypatch, tmp_path):
    from safetensors.torch import load_file

    for name in ("hmc", "mala", "random-walk"):
        monkeypatch.setitem(METHODS, name, dataclasses.replace(METHODS[name], thin=2))
    done, run_chains = [], inference.run_chains
    monkeypatch.setattr(inference, "run_chains", lambda *a, **k: done.append(run_chains(*a, **k)) or done[-1])
    args = ("compare", "ppca", "--data", "red-wine", "--methods", "hmc,mala,random-walk", "--draws", 4)
    assert zoo(*args, "--jobs", 1, "--out", "all") == 0
    assert [(draws.warmup, draws.thin) for draws in done] == 3 * [(8, 2)]
    statistics = {
        "hmc": {"acceptance", "step_size", "divergent", "hamiltonian"},
        "mala": {"acceptance", "step_size", "divergent"},
        "random-walk": {"acceptance", "step_size"},
    }
    for row in comparison()["rows"]:
        assert (row["draws"]["chains"], row["draws"]["draws"], row["draws"]["of"]) == (4, 4, "energy")
        assert row["draws"]["r_hat"] > 0.5 and row["draws"]["ess_per_second"] > 0
        assert row["test"]["kind"] == "estimate" and row["test"]["particles"] == 16
        config = json.loads((tmp_path / "all" / row["name"] / "config.json").read_text())
        assert config["objective_arguments"] == {"items": 500, "draws": 4, "chains": 4, "thin": 2}
        drawn = load_file(tmp_path / "all" / row["name"] / "draws.safetensors")
        assert drawn["samples.V"].shape == (4, 4, 11, 10)
        told = {name.removeprefix("stats.") for name in drawn if name.startswith("stats.")}
        assert told == statistics.pop(row["name"]) | {"energy"}
    assert statistics == {}


@pytest.mark.usefixtures("without_report")
def test_a_damaged_figure_of_the_gradient_is_computed_anew(methods_compared, zoo, tmp_path):
    folder = Path(shutil.copytree(methods_compared, tmp_path / "all"))
    before = (folder / "score-function" / "gradient.json").read_text()
    chosen = "score-function, importance-weighted"
    for damaged in ("{", "[1]"):
        (folder / "score-function" / "gradient.json").write_text(damaged)
        assert zoo("compare", "vae", "--methods", chosen, *QUICK, "--jobs", 1, "--out", folder) == 0
        assert (folder / "score-function" / "gradient.json").read_text() == before


@pytest.mark.usefixtures("without_report")
def test_a_damaged_history_loses_its_row_alone(methods_compared, zoo, tmp_path):
    folder = Path(shutil.copytree(methods_compared, tmp_path / "all"))
    history = folder / "score-function" / "history.csv"
    history.write_text(history.read_text().replace("epoch", "apoch"))
    chosen = "score-function, importance-weighted"
    assert zoo("compare", "vae", "--methods", chosen, *QUICK, "--jobs", 1, "--out", folder) == 1
    rows = {row["name"]: row for row in comparison(folder)["rows"]}
    assert "history.csv is damaged" in rows["score-function"]["failed"]
    assert "failed" not in rows["importance-weighted"]


def test_chains_are_left_out_of_all_for_large_models(zoo, capsys, monkeypatch):
    taken = []
    monkeypatch.setattr(compare_module, "_run", lambda rows, notes, *rest: taken.extend([rows, notes]) or 0)
    assert zoo("compare", "bernoulli-mixture", "--methods", "all") == 0
    rows, notes = taken
    names = [row.name for row in rows]
    assert {"maximum-likelihood", "em", "elbo", "score-function", "map", "svi"} <= set(names)
    of_chains = ["nuts", "hmc", "mala", "random-walk"]
    assert not {*of_chains, "importance-weighted", "variational-em"} & set(names)
    left_out = f"{', '.join(of_chains)} left out: bernoulli-mixture has 3,900 parameters, more than 2,000"
    assert any(left_out in note for note in notes)
    assert zoo("compare", "ppca", "--data", "red-wine", "--methods", "all") == 0
    assert [row.name for row in taken[2]][:4] == of_chains, "those that take longest"


# The report


def test_the_report_is_whole_by_itself(compared, methods_compared):
    for path in (compared[0] / "all" / "report.html", methods_compared / "report.html"):
        page = Page(path)
        assert page.open == [], "every tag is closed"
        assert page.images and all(image["alt"] for image in page.images)
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", text)
        assert path.stat().st_size < 3e6
        assert '<meta name="viewport"' in text


def test_the_report_shows_every_model(compared):
    page = Page(compared[0] / "all" / "report.html")
    likelihoods, draws, probes = [row[0] for row in page.rows if row][:3], page.rows[5:9], page.rows[10:]
    assert likelihoods == ["vae", "markov-chain", "independent"]
    assert draws[0][0] == "real items" and {row[0] for row in draws[1:]} == set(MODELS)
    assert {row[0] for row in probes} == {"vae", "raw entries", "ppca, 10 directions"}
    alts = [image["alt"] for image in page.images]
    assert "64 test items" in alts
    for name in MODELS:
        assert f"64 draws from {name}" in alts and f"Learning curve of {name}, 2 epochs" in alts
    assert alts.index("64 test items") < alts.index("64 draws from vae")
    [ranking] = [alt for alt in alts if alt.startswith("Test nats")]
    assert all(name in ranking for name in MODELS)


def test_names_and_messages_cannot_become_tags(tmp_path):
    from zoo import load
    from zoo.cli.comparison_report import write_report

    failed = {"name": "<b>bold", "model": "vae", "failed": "<script>alert(1)</script>"}
    content = {
        "compared": "models",
        "model": None,
        "data": "digits",
        "fold": None,
        "test_items": 250,
        "seed": 0,
        "command": "zoo compare '<i>'",
        "machine": [],
        "notes": ["a & b"],
        "rows": [failed],
    }
    write_report(tmp_path, content, load("digits"))
    page = Page(tmp_path / "report.html")
    assert ["<b>bold", "failed: <script>alert(1)</script>"] in page.rows
    assert "zoo compare '<i>'" in page.texts and "a & b" in page.texts
