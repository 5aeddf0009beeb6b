"""The headline figures of the autoregressive models, by their recipes."""

import pytest

from tests.figures.recipes import anomalies, recorded, run

pytestmark = pytest.mark.figures


def test_independent_pixels_of_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("independent")
    record_result("independent-digits", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["nats_per_item"] == pytest.approx(25.0, abs=0.1)


def test_fvsbn_on_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("fvsbn")
    record_result("fvsbn-digits", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["nats_per_item"] <= 18.2


def test_nade_on_digits(trained_on_digits, comparison, record_result):
    metrics = trained_on_digits("nade")
    record_result("nade-digits", metrics)
    told = anomalies(comparison / "nade")
    record_result("anomaly-nade-digits", told)
    assert all(told["against"][name]["auc"] >= 0.95 for name in ("transposed", "noise"))
    assert metrics["parameters"] <= 200 * (63 + 64) + 200 + 64  # 200 hidden units, no more
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["nats_per_item"] <= 17.55


def test_independent_levels_of_digits(tmp_path, record_result):
    metrics = run("independent --data digits-levels", tmp_path / "run")
    record_result("independent-digits-levels", metrics)
    assert metrics["test"]["bits_per_dim"] == pytest.approx(2.41, abs=0.005)


def test_categorical_nade_on_levels_of_digits(tmp_path, record_result):
    metrics = run("categorical-nade --data digits-levels", tmp_path / "run")
    record_result("categorical-nade-digits-levels", metrics)
    assert metrics["test"]["kind"] == "exact"
    assert metrics["test"]["bits_per_dim"] <= 1.94


@pytest.mark.parametrize(
    ("colour", "figure", "full_gaussian"), [("red", -9.36, -13.19), ("white", -10.23, -13.20)]
)
def test_rnade_on_wine(colour, figure, full_gaussian, tmp_path, record_result):
    metrics = run(f"rnade --data {colour}-wine", tmp_path / "run")
    record_result(f"rnade-{colour}-wine", metrics)
    assert metrics["folds"] == 10
    assert -metrics["gaussian"]["nats_per_item"] == pytest.approx(full_gaussian, abs=0.005)
    assert -metrics["test"]["nats_per_item"] >= figure


def test_mnist_results_reach_the_published_range():
    fvsbn, nade = recorded("fvsbn-mnist"), recorded("nade-mnist")
    for result in (fvsbn, nade):
        assert result["finished"]
        assert result["test"]["items"] == 10_000
        assert result["test"]["kind"] == "exact"
    assert recorded("anomaly-nade-mnist")["against"]["fashion-mnist"]["auc"] >= 0.99
    assert fvsbn["test"]["nats_per_item"] <= 97.0
    assert nade["test"]["nats_per_item"] <= 88.3
    assert nade["parameters"] == 500 * (783 + 784) + 500 + 784
