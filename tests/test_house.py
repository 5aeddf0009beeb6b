"""The rules of the house, as tests: who imports whom, what a name may be, what an import may change."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("autoregressive", "flows", "implicit", "latent", "undirected")


def sources(*folders: str) -> list[Path]:
    """The Python files below folders of the repository: never an empty list, which would prove nothing."""
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert files, f"no Python file below {folders}"
    return files


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(code: ast.Module, module: str, *, is_package: bool) -> set[str]:
    """Every module that the code may import, in full: relative, conditional and by a string as well.

    ``from a import b`` counts as both ``a`` and ``a.b``, since b may be a module.
    """
    found = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                keep = len(parents) - node.level + is_package
                base = ".".join([*parents[:keep], *filter(None, [base])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # 'zoo.latent.vae:VAE' or 'inference.em', such as a lazy import or a table of places holds.
            place = re.fullmatch(r"((?:zoo|inference)(?:\.\w+)+)(?::\w+)?", node.value)
            found |= {place[1]} if place else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def imports_of(path: Path) -> set[str]:
    return imports(tree(path), module_name(path), is_package=path.name == "__init__.py")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def offenders(files: list[Path], package: str) -> list[str]:
    """The files that import a package or something in it."""
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in sorted(imports_of(path))
        if within(module, package)
    ]


def run(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    # A backend that the environment names would hide that an import sets one.
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Who imports whom


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import zoo", "zoo"),
        ("import torch, zoo.cli as z", "zoo.cli"),
        ("from zoo import cli", "zoo.cli"),
        ("def f():\n    from zoo.latent.vae import VAE", "zoo.latent.vae"),
        ("from . import b", "pkg.b"),
        ("from .b import c", "pkg.b"),
        ("from ..other import c", "other"),
        ("import importlib\nimportlib.import_module('zoo')", "zoo"),
        ("__import__('zoo')", "zoo"),
        ("PLACES = {'vae': 'zoo.latent.vae:VAE'}", "zoo.latent.vae"),
    ],
)
def test_every_form_of_import_is_seen(code, found):
    assert found in imports(ast.parse(code), "pkg.a", is_package=False)


def test_relative_imports_of_a_package_start_at_itself():
    assert "pkg.sub.b" in imports(ast.parse("from .b import c"), "pkg.sub", is_package=True)


def test_inference_never_imports_zoo():
    assert offenders(sources("inference"), "zoo") == []


def test_inference_works_where_there_is_no_zoo(imported):
    assert imported["error without zoo"] == ""


def test_only_the_command_line_joins_models_and_methods():
    outside = [path for path in sources("zoo") if not within(module_name(path), "zoo.cli")]
    assert len(outside) < len(sources("zoo")), "no file below zoo/cli"
    assert offenders(outside, "inference") == []
    assert offenders(outside + sources("inference"), "zoo.cli") == []


def test_a_model_file_imports_only_torch_pyro_and_its_neighbours():
    # So that a reader can copy it out with one neighbour.
    present = [f"zoo/{family}" for family in FAMILIES if (ROOT / "zoo" / family).is_dir()]
    allowed = {"torch", "pyro", "zoo", *sys.stdlib_module_names}
    not_for_models = ("zoo.cli", "zoo.data", "zoo.registry")
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in [ROOT / "zoo" / "model.py", *sources(*present)]
        for module in sorted(imports_of(path))
        if module.split(".")[0] not in allowed or any(within(module, name) for name in not_for_models)
    ]
    assert wrong == []


def test_every_model_family_is_known_to_these_tests():
    folders = {path.name for path in (ROOT / "zoo").iterdir() if (path / "__init__.py").exists()}
    assert "latent" in folders
    assert folders <= {*FAMILIES, "cli", "data"}


# What code may do


def test_code_runs_where_its_parameters_are():
    moved = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("zoo", "inference")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    ]
    assert moved == []


def test_nothing_is_unpickled_that_could_run_code():
    unsafe = []
    for path in sources("zoo", "inference"):
        unsafe += offenders([path], "pickle") + offenders([path], "dill") + offenders([path], "cloudpickle")
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = ast.unparse(node.func)
            if (
                (name == "torch.load" and given.get("weights_only") != "True")
                or name == "joblib.load"
                or given.get("allow_pickle", "False") != "False"
            ):
                unsafe.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert unsafe == []


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, without the plural's s."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    return {word.removesuffix("s") for word in split}


@pytest.mark.parametrize("name", ["utils", "data_utils", "PlateHelper", "_RunManager", "misc", "Wrapper"])
def test_empty_names_are_recognised(name):
    assert words(name) & {"util", "helper", "manager", "misc", "wrapper"}


def test_names_say_what_a_thing_is():
    empty = {"util", "helper", "manager", "wrapper", "common", "misc"}
    wrong = []
    for path in sources("zoo", "inference", "tests", "examples"):
        place = path.relative_to(ROOT)
        named = {str(place): part for part in place.with_suffix("").parts if words(part) & empty}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if words(node.name) & empty:
                    named[f"{place}:{node.lineno}"] = node.name
        wrong += [f"{where}: {name}" for where, name in named.items()]
    assert wrong == []


# What an import may change

# Libraries may set up what they like; so the state is taken once they all are imported, and again after ours.
# Two copies of the process tell beforehand which those are, and whether inference does without zoo; what both
# of them would import is there already.
IMPORT_AND_COMPARE = """
import contextlib, importlib, json, logging, os, random, signal, sys, traceback, warnings

ours, of_inference, large = (json.loads(argument) for argument in sys.argv[1:])
for name in large:
    importlib.import_module(name)


def in_a_copy(function):
    read, write = os.pipe()
    if not os.fork():
        try:
            answer = function()
        except BaseException:
            answer = traceback.format_exc()
        with open(write, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(write)
    with open(read) as file:
        return json.load(file)


def without_zoo():
    sys.modules["zoo"] = None
    for name in of_inference:
        importlib.import_module(name)
    return ""


def named_after_ours():
    for name in ours:
        importlib.import_module(name)
    return [name for name in sys.modules if name.split(".")[0] not in ("zoo", "inference", "__main__")]


error, theirs = in_a_copy(without_zoo), in_a_copy(named_after_ours)
if isinstance(theirs, str):
    sys.exit(theirs)
for name in theirs:
    with contextlib.suppress(Exception):  # a name that only its own library can bring into being
        importlib.import_module(name)

import matplotlib, numpy, pyro, torch
import torch.multiprocessing


def loggers():
    known = {"root": logging.root, **logging.root.manager.loggerDict}
    settings = {
        name: (each.level, list(each.handlers), list(each.filters), each.propagate, each.disabled)
        for name, each in known.items()
        if isinstance(each, logging.Logger)  # and not the place of one
    }
    untouched = (logging.NOTSET, [], [], True, False)
    return {name: setting for name, setting in settings.items() if setting != untouched}


def state():
    return {
        "torch default dtype": torch.get_default_dtype(),
        "torch default device": torch.get_default_device(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch anomaly mode": torch.is_anomaly_enabled(),
        "torch random state": torch.get_rng_state().tolist(),
        "torch determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "torch matmul precision": torch.get_float32_matmul_precision(),
        "torch printing": repr(torch._tensor_str.PRINT_OPTS),
        "torch processes": (
            torch.multiprocessing.get_sharing_strategy(),
            torch.multiprocessing.get_start_method(allow_none=True),
        ),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro settings, validation among them": pyro.settings.get(),
        "pyro parameter store": sorted(pyro.get_param_store().keys()),
        "pyro handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "python random state": random.getstate(),
        "numpy random state": repr(numpy.random.get_state()),
        "numpy errors and printing": repr((numpy.geterr(), numpy.get_printoptions())),
        "logger class": (logging.Logger, logging.getLoggerClass(), logging.root.manager.disable),
        "loggers": loggers(),
        "warnings": (list(warnings.filters), warnings.showwarning, warnings.formatwarning),
        "matplotlib backend": matplotlib.rcParams._get("backend"),
        "matplotlib settings": {k: repr(matplotlib.rcParams._get(k)) for k in sorted(matplotlib.rcParams)},
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.displayhook, sys.stdout, sys.stderr),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "working directory": os.getcwd(),
        "recursion limit": sys.getrecursionlimit(),
    }


before = state()
for name in ours:
    assert name not in sys.modules, name
for name in ours:
    importlib.import_module(name)
after = state()
changed = [name for name in before if before[name] != after[name]]
print(json.dumps({"changed": changed, "error without zoo": error}))
"""


@pytest.fixture(scope="module")
def imported() -> dict:
    """What a fresh interpreter tells of importing every module of ours."""
    modules = [module_name(path) for path in sources("zoo", "inference") if path.stem != "__main__"]
    assert {"zoo", "zoo.cli", "inference"} <= set(modules)
    of_inference = [module_name(path) for path in sources("inference")]
    large = ["torch", "pyro", "scipy.stats", "matplotlib.pyplot", "sklearn", "arviz", "lightning_fabric"]
    return json.loads(run(IMPORT_AND_COMPARE, *map(json.dumps, (modules, of_inference, large))))


def test_importing_changes_no_global_state(imported):
    assert imported["changed"] == []


def test_help_waits_for_no_heavy_import():
    heavy = {"arviz", "lightning_fabric", "matplotlib", "pandas", "pyro", "scipy", "sklearn", "torch"}
    code = """
import sys
from zoo.cli import main
sys.argv = ["zoo", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *{name.split(".")[0] for name in sys.modules})
"""
    shown, _, loaded = run(code).partition("LOADED")
    assert "train" in shown
    assert heavy & set(loaded.split()) == set()


# What the repository holds


def test_every_example_has_a_test():
    tested = (ROOT / "tests" / "test_examples.py").read_text(encoding="utf-8")
    untested = [path.name for path in sources("examples") if not re.search(rf"\b{path.stem}\.py\b", tested)]
    assert untested == []


def test_no_file_names_a_place_on_one_machine():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    assert Path(__file__).resolve() in files
    # An absolute path, and so neither a relative one nor the middle of an address.
    place = re.compile(rb"(?<![\w.)}])/(?:(?:work|root|opt)/|tmp/w\b)")
    named = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in files
        if path.is_file()
        for match in place.finditer(path.read_bytes())
    ]
    assert named == []
