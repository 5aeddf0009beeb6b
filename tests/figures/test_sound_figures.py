"""The headline figures of sound, by the recipe for speech."""

import pytest

from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def holds(metrics):
    sound = metrics["sound"]
    assert metrics["test"]["kind"] == "exact"
    assert (sound["samples"], sound["uniform"], sound["order"]) == (52_640, 8.0, 1023)
    assert 4.7 < sound["linear_predictor"] < 5.0
    assert sound["bits_per_sample"] < 0.6 * sound["uniform"]
    assert sound["bits_per_sample"] < sound["linear_predictor"] - 1
    assert sound["bits_per_sample"] <= 3.65


def test_wavenet_on_speech(tmp_path, record_result):
    metrics = run("wavenet --data speech", tmp_path / "run")
    record_result("wavenet-speech", metrics)
    holds(metrics)


def test_the_recorded_run_holds_the_figures():
    holds(recorded("wavenet-speech"))
