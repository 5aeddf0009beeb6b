"""The headline figures of the models of pixels, by their recipes."""

import pytest

from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def test_pixel_cnn_on_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("pixel-cnn")
    record_result("pixel-cnn-digits", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["nats_per_item"] <= 17.2


def test_diagonal_bilstm_on_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("pixel-rnn")
    record_result("pixel-rnn-digits", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["nats_per_item"] <= 17.3


def test_pixel_cnn_on_mnist():
    metrics = recorded("pixel-cnn-mnist")
    assert metrics["finished"] and metrics["test"]["kind"] == "exact" and metrics["test"]["items"] == 10_000
    assert metrics["seconds"] <= 6000
    assert metrics["test"]["nats_per_item"] <= 81.3  # the published figure; 83 were asked for


def test_diagonal_bilstm_on_mnist():
    metrics = recorded("pixel-rnn-mnist")
    assert metrics["finished"] and metrics["test"]["kind"] == "exact" and metrics["test"]["items"] == 10_000
    assert metrics["test"]["nats_per_item"] <= 82


def test_row_lstm_on_digits(tmp_path, record_result):
    metrics = run("pixel-rnn --data digits --set layer=row-lstm", tmp_path / "run")
    record_result("pixel-rnn-digits-row", metrics)
    assert metrics["test"]["nats_per_item"] <= 17.4


def test_digits_drawn_by_label_are_what_was_asked_for():
    metrics = recorded("pixel-cnn-digits-labels")
    assert metrics["finished"] and metrics["test"]["kind"] == "exact"
    assert metrics["generated_as_asked"]["judge_accuracy"] >= 0.95
    assert metrics["generated_as_asked"]["share"] >= 0.95
    assert metrics["accuracy"] >= 0.94
