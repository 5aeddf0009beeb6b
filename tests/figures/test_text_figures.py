"""The headline figures of texts: a play is worth less than counts say, and names are not learnt by heart."""

import pytest

from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def test_all_of_shakespeare_reaches_the_figure():
    result = recorded("char-rnn-shakespeare")
    assert result["finished"] and result["test"]["kind"] == "exact"
    characters = result["characters"]
    assert characters["training"] == 4_346_071  # 36 texts; three whole plays are the test
    assert characters["characters"] == 348_596
    by_counts = [characters[name] for name in ("unigram", "bigram", "5-gram")]
    assert by_counts == sorted(by_counts, reverse=True)
    assert by_counts == pytest.approx([3.347, 2.522, 1.640], abs=1e-3)
    assert characters["nats_per_character"] <= 1.45


def test_names(tmp_path, record_result):
    metrics = run("char-rnn --data names", tmp_path / "run")
    record_result("char-rnn-names", metrics)
    assert metrics["test"]["kind"] == "exact"
    characters = metrics["characters"]
    assert characters["5-gram"] == pytest.approx(2.147, abs=1e-3)
    assert characters["nats_per_character"] <= 2.0
    assert metrics["drawn"]["in_training"] < 0.5
