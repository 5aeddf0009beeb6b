"""The headline figures of the Boltzmann machines, by their recipes."""

import pytest

from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def widths(test):
    """How far the ends of the 95 % interval of log Z lie from its estimate, in nats."""
    log_z = test["log_z"]
    return log_z["high"] - log_z["estimate"], log_z["estimate"] - log_z["low"]


@pytest.mark.parametrize(("model", "kind"), [("rbm", "estimate"), ("dbm", "lower bound")])
def test_digits(model, kind, trained_on_digits, record_result):
    metrics = trained_on_digits(model)
    record_result(f"{model}-digits", metrics)
    test = metrics["test"]
    assert test["kind"] == kind
    assert -test["nats_per_item"] >= -18.05
    assert max(widths(test)) <= 0.05
    # From above, by the machine's own chains, log Z is where it is from below.
    assert test["log_z"]["reverse"]["estimate"] == pytest.approx(test["log_z"]["estimate"], abs=0.1)
    if model == "dbm":
        posterior = test["posterior"]
        assert 0 < posterior["gap"] < 2
        assert posterior["items"] == test["items"]


def test_a_label_unit_tells_digits(tmp_path, record_result):
    metrics = run("rbm --data digits --set num_classes=10 --label-weight 3", tmp_path / "run")
    record_result("rbm-digits-labels", metrics)
    assert metrics["accuracy"] >= 0.95


@pytest.mark.parametrize("model", ["rbm", "dbm"])
def test_mnist_results_are_of_the_whole_test_set(model):
    result = recorded(f"{model}-mnist")
    assert result["finished"]
    assert result["test"]["items"] == 10_000
    assert max(widths(result["test"])) <= 0.5
