"""The command as a whole: its help, its lists, its refusals, and that nothing of it is untested."""

import ast
import io
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from zoo.cli import app, main
from zoo.cli.recipe import BOUNDS, FIT_DEFAULTS, FIT_TYPES, OBJECTIVES, PRECISIONS, SCHEDULES, parse_settings
from zoo.cli.train import ACCELERATORS, LOGGERS
from zoo.data import DESCRIPTIONS
from zoo.registry import MODELS

COMMANDS = typer.main.get_command(app).commands


def strings_in_tests() -> set[str]:
    """Every string that stands in the tests of the command."""
    return {
        node.value
        for path in Path(__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_is_tested(command):
    options = {name for param in COMMANDS[command].params for name in param.opts if name.startswith("--")}
    assert {command, *options} - {"--help"} <= strings_in_tests()


@pytest.mark.parametrize("args", [["--help"], []])
def test_help_shows_every_command_and_cuts_nothing_off(zoo, capsys, monkeypatch, args):
    monkeypatch.setenv("COLUMNS", "80")
    assert zoo(*args) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(zoo, capsys, command):
    assert zoo(command, "--help") == 0
    shown = capsys.readouterr().out
    for param in COMMANDS[command].params:
        assert param.help and param.help.split()[0] in shown


def test_help_of_train_names_what_is_allowed(zoo, capsys):
    assert zoo("train", "--help") == 0
    shown = "".join(capsys.readouterr().out.split())  # lines are broken at a hyphen too
    for allowed in (MODELS, DESCRIPTIONS, OBJECTIVES, SCHEDULES, PRECISIONS, BOUNDS, ACCELERATORS, LOGGERS):
        assert ",".join(allowed) in shown


def test_help_of_every_command_waits_for_no_heavy_import(spawn):
    code = """
import sys
from zoo.cli import main
for command in ("list", "train", "compare", "evaluate", "sample", "complete", "anomaly"):
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert not end.code
print("LOADED", *{name.split(".")[0] for name in sys.modules})
"""
    done = spawn(code=code)
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "typer" in loaded, done.stderr
    assert loaded & {"lightning_fabric", "matplotlib", "numpy", "pyro", "sklearn", "torch"} == set()


def test_the_list_names_every_model_and_data_set_whole_in_a_narrow_terminal(zoo, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert zoo("list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*MODELS, *DESCRIPTIONS])
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_the_list_says_of_which_items_a_flow_has_an_exact_density(zoo, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert zoo("list") == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.split()}
    flows = {name for name, row in rows.items() if "exact, or a bound on levels" in row}
    assert flows == {"linear-flow", "mintnet", "nice", "realnvp"}
    assert " exact " in rows["nade"] and " bound " in rows["vae"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian"], ["trian", "list, train, evaluate, sample"]),
        (["train"], ["MODEL"]),
        (["train", "vae", "--epoch-count", "3"], ["--epoch-count", "zoo train --help"]),
        (["train", "vaee"], ["'vaee'", "did you mean vae?", "supervised-vae"]),
        (["train", "vae", "--data", "digit"], ["'digit'", "did you mean digits?", "red-wine"]),
        (["train", "vae", "--data", "digits-levels"], ["no recipe for digits-levels", "digits"]),
        (["train", "vae", "--objective", "elbow"], ["'elbow'", "did you mean elbo?", *OBJECTIVES]),
        (["train", "vae", "--objective", "supervised-elbo"], ["supervised ELBO", "VAE"]),
        (["train", "vae", "--objective", "maximum-likelihood"], ["latent"]),
        (["train", "vae", "--objective", "maximum-likelihood", "--particles", "3"], ["takes no particles"]),
        (["train", "vae", "--particles", "0"], ["--particles"]),
        (["train", "vae", "--evaluation-particles", "0"], ["--evaluation-particles"]),
        (
            ["train", "vae", "--evaluation-bound", "elb"],
            ["unknown bound 'elb'", "did you mean elbo?", *BOUNDS],
        ),
        (["train", "vae", "--epochs", "0"], ["--epochs"]),
        (["train", "vae", "--epochs", "many"], ["--epochs"]),
        (["train", "vae", "--batch-size", "0"], ["--batch-size"]),
        (["train", "vae", "--lr", "-1"], ["lr", "-1"]),
        (["train", "vae", "--lr", "nan"], ["lr", "nan"]),
        (["train", "vae", "--schedule", "cosin"], ["'cosin'", "did you mean cosine?", "constant"]),
        (["train", "vae", "--patience", "0"], ["--patience"]),
        (["train", "vae", "--precision", "8-bit"], ["'8-bit'", "32-true"]),
        (["train", "vae", "--accelerator", "abacus"], ["'abacus'", "cpu"]),
        (["train", "vae", "--logger", "wandb"], ["'wandb'", "tensorboard"]),
        (["train", "vae", "--devices", "0"], ["--devices"]),
        (["train", "vae", "--nodes", "0"], ["--nodes"]),
        (["train", "vae", "--seed", "-1"], ["--seed"]),
        (["train", "vae", "--checkpoint-seconds", "-1"], ["--checkpoint-seconds"]),
        (["train", "vae", "--devices", "2", "--batch-size", "1"], ["batch size", "2 devices"]),
        (["train", "vae", "--devices", "2", "--compile"], ["compile"]),
        (["train", "vae", "--labels", "0"], ["--labels"]),
        (["train", "supervised-vae", "--labels", "5000"], ["1297", "5000"]),
        (["train", "vae", "--fold", "3"], ["digits", "no folds"]),
        (["train", "vae", "--data", "red-wine", "--fold", "10"], ["0 to 9", "10"]),
        (["train", "vae", "--data", "red-wine", "--fold", "-1"], ["--fold"]),
        (["train", "vae", "--init", "nowhere"], ["no run folder nowhere"]),
        (["train", "vae", "--set", "latent_dim"], ["NAME=VALUE", "latent_dim"]),
        (["train", "vae", "--set", "=2"], ["NAME=VALUE"]),
        (["train", "vae", "--set", "latent_dim={1}"], ["a number, a string"]),
        (["train", "vae", "--set", "depth=3"], ["depth=3", "hidden"]),
        (["train", "vae", "--set", "hidden=3"], ["hidden=3", "tuple[int, ...]"]),
        (["train", "vae", "--set", "hidden=(0,)"], ["hidden", "at least 1"]),
        (["train", "vae", "--set", "latent_dim=two"], ["latent_dim='two'", "int"]),
        (["train", "vae", "--set", "network=rnn"], ["'rnn'", "mlp, conv"]),
        (["train", "vae", "--set", "event_shape=(3,)"], ["event_shape"]),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(refused, tmp_path, args, said):
    line = refused(*args)
    assert [words for words in said if words not in line] == [], line
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_device_that_is_not_there_is_a_fault_of_the_surroundings(refused, tmp_path, monkeypatch):
    from lightning_fabric.accelerators import TPUAccelerator

    monkeypatch.setattr(TPUAccelerator, "is_available", staticmethod(lambda: False))
    assert "tpu" in refused("train", "vae", "--accelerator", "tpu", code=1)
    assert not list(tmp_path.iterdir())


def test_a_message_of_many_lines_becomes_one_of_bounded_length(refused, monkeypatch):
    def fail(name):
        raise ValueError("first\nsecond " + "long " * 10_000 + "last")

    monkeypatch.setattr("zoo.registry.model_class", fail)
    line = refused("train", "vae")
    assert line.startswith("zoo: first second long") and line.endswith("last")
    assert len(line) < 1100


def test_a_terminal_without_the_signs_is_no_fault(zoo, trained, monkeypatch):
    for args, sign in ((("evaluate", trained / "vae", "--help"), ""), (("list",), "8?8")):
        shown = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
        assert zoo(*args) == 0
        sys.stdout.flush()
        assert sign in shown.getvalue().decode("ascii") != ""


def test_arguments_default_to_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["zoo", "sample", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "--label" in capsys.readouterr().out


def test_settings_are_numbers_strings_and_tuples():
    came = parse_settings(["latent_dim=2", "hidden=(300,)", "network=conv", "share=0.5", "note=a=b"])
    expected = {"latent_dim": 2, "hidden": (300,), "network": "conv", "share": 0.5, "note": "a=b"}
    assert came == expected


def test_bounds_are_those_of_inference():
    from inference.likelihood import Bound

    assert get_args(Bound) == BOUNDS


def test_every_setting_of_a_training_has_a_default_and_a_type():
    assert FIT_DEFAULTS.keys() == FIT_TYPES.keys()
    assert all(isinstance(FIT_DEFAULTS[name], FIT_TYPES[name]) for name in FIT_DEFAULTS)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_of_the_command_is_one_of_inference(objective):
    from torch import nn

    import inference

    cls = getattr(inference, OBJECTIVES[objective])
    assert issubclass(cls, nn.Module) and cls.forward is not inference.Objective.forward
    assert callable(cls.check) and callable(cls.prepare)
