"""The README says what the results say."""

import re
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


def test_the_code_that_is_shown_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some of it writes files
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) > 1
    shown, items = {}, []
    for block in blocks:  # one after the other, as a reader would
        assert "epochs=100" in block and "data.test" in block
        short = (
            block.replace("epochs=100", "epochs=1")
            .replace("1000", "5")
            .replace("data.test.x", "few")
            .replace("data.test", "few")
            .replace("kernel=inference.MALA)", "kernel=inference.MALA, replications=20, warmup=5, thin=1)")
        )
        exec(re.sub("(data = .*\n)", r"\1few = data.test.x[:3]\n", short), shown)
        items.append(shown["few"])
    assert shown["images"].shape == (64, 8, 8)
    assert shown["completion"].draws.shape == (8, 3, 8, 8)
    assert (shown["completion"].draws[:, :, 4:] == items[1][:, 4:]).all()
    assert shown["threes"].shape == (16, 8, 8)
    assert (shown["eights"].draws[:, :, :4] == items[1][:, :4]).all()
    assert (shown["ways"][:, 0] == items[3][:2]).all()
    assert "nats per item" in capsys.readouterr().out
