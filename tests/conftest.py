"""Every test starts from the same random state and an empty parameter store, and touches no user's files."""

import json
import os
import signal
from pathlib import Path

import hypothesis
import pyro
import pytest

# The same examples on every run, and no clock decides whether a test passes.
hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module can import matplotlib; subprocesses inherit it.
    os.environ["MPLBACKEND"] = "Agg"
    # A shell has what it starts in the background ignore Ctrl-C; what is interrupted here should not.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Fixtures of a conftest serve its own folder; registered so, they serve the doctests of the packages too.
    config.pluginmanager.register(Isolation(), "isolation")


class Isolation:
    @pytest.fixture(autouse=True)
    def isolated(self, tmp_path_factory: pytest.TempPathFactory):
        """Seeds torch, NumPy, Python and Pyro, empties the parameter store, keeps the user's cache out."""
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ZOO_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
            yield

    @pytest.fixture
    def record_result(self):
        """Keeps a measured result as ``NAME.json`` in the folder that ``ZOO_RESULTS_DIR`` names, if any."""

        def record(name: str, result: dict) -> None:
            folder = os.environ.get("ZOO_RESULTS_DIR")
            if folder:
                Path(folder, f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")

        return record
