"""The README says what the results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_table_is_what_the_results_give():
    table = runpy.run_path(str(ROOT / "results" / "table.py"))["table"]()
    assert table.count("\n") > 10
    assert table in (ROOT / "README.md").read_text(), "run: python results/table.py"


def test_every_result_is_in_the_table():
    source = (ROOT / "results" / "table.py").read_text()
    names = [path.stem for path in (ROOT / "results").glob("*.json")]
    assert names
    assert [name for name in names if f'"{name.rstrip("-12")}"' not in source] == []
