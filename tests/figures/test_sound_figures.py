"""The headline figures of sound, as the recipe for speech gave them: it takes minutes."""

import pytest

from tests.figures.recipes import recorded

pytestmark = pytest.mark.figures


def test_wavenet_is_better_than_a_linear_predictor_of_the_same_order():
    metrics = recorded("wavenet-speech")
    sound = metrics["sound"]
    assert metrics["finished"] and metrics["test"]["kind"] == "exact"
    assert (sound["samples"], sound["uniform"], sound["order"]) == (52_640, 8.0, 1023)
    assert 4.7 < sound["linear_predictor"] < 5.0
    assert sound["bits_per_sample"] < 0.6 * sound["uniform"]
    assert sound["bits_per_sample"] < sound["linear_predictor"] - 1
    assert sound["bits_per_sample"] <= 3.65
