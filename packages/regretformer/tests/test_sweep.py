"""Grids of runs, as typed."""

import json
import sys
from pathlib import Path

import pytest
from gt_core.sweep.options import parse_sweep

from regretformer import cli
from regretformer.config import PRESETS
from regretformer.runs import complete


def test_sweep_gives_the_bytes_of_runs_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = ["--preset", "smoke", "--valuations", "uniform,beta(2,2)", "--net", "regretnet"]
    monkeypatch.setattr(sys, "argv", ["regretformer-sweep", *grid, "--json"])
    cli.sweep()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["deaths"]) for row in rows] == [("finished", 0)] * 2
    cells, _ = parse_sweep(PRESETS, lambda _: "fast", "regretformer-sweep", "", [*grid, "--out-dir", "here"])
    assert [cell.config.valuations for cell in cells] == ["uniform", "beta(2,2)"]
    for row, cell in reversed(list(zip(rows, cells, strict=True))):
        result = complete(cell.config)
        assert row["figures"]["revenue"] == result["revenue"]
        for file in ("result.json", "metrics.jsonl", "model/tensors.safetensors"):
            assert Path(row["directory"], file).read_bytes() == (cell.config.directory / file).read_bytes()


def test_sweep_refuses_a_cell_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["regretformer-sweep", "--setting", "1x2,0x2"])
    with pytest.raises(SystemExit) as stopped:
        cli.sweep()
    assert stopped.value.code == 2
    assert "got '0x2' (in the cell setting = 0x2)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
