"""Grids of runs, as typed."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from gt_core.sweep.options import parse_sweep

from rmdp import cli
from rmdp.config import PRESETS, default_preset
from rmdp.runs import complete


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cells(*arguments):
    found, _ = parse_sweep(PRESETS, cli.preset_of, "rmdp-sweep", "", arguments)
    return found


def test_sweep_gives_the_bytes_of_runs_made_here(monkeypatch, capsys):
    grid = ["--preset", "smoke", "--algorithm", "em,random", "--iterations", "2", "--hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["rmdp-sweep", *grid, "--json"])
    cli.sweep()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["deaths"]) for row in rows] == [("finished", 0)] * 2
    for row, cell in reversed(list(zip(rows, cells(*grid, "--out-dir", "here"), strict=True))):
        result = complete(cell.config)
        assert row["figures"] == {name: result[name] for name in ("welfare", "share_of_ceiling")}
        for file in ("result.json", "metrics.jsonl", "model/tensors.safetensors"):
            assert Path(row["directory"], file).read_bytes() == (cell.config.directory / file).read_bytes()
    assert rows[0]["figures"] != rows[1]["figures"]


def test_grid_of_the_papers_figure_is_one_line():
    line = "--env HalfCheetah-v4 --k 1,2,5,10,50 --algorithm em,end-to-end,cluster,random --seeds 10"
    grid = cells(*shlex.split(line))
    assert len(grid) == 5 * 4 * 10
    assert {cell.config.seed for cell in grid} == set(range(10))
    assert {cell.config.preset for cell in grid} == {"fast"}


def test_cell_takes_the_preset_of_its_environment():
    grid = cells("--env", "HalfCheetah-v4,resource-gathering")
    assert [(cell.config.preset, cell.config.n) for cell in grid] == [
        (default_preset(env), n) for env, n in (("HalfCheetah-v4", 100), ("resource-gathering", 25))
    ]


def test_sweep_refuses_a_cell_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rmdp-sweep", "--k", "1,200"])
    with pytest.raises(SystemExit) as stopped:
        cli.sweep()
    assert stopped.value.code == 2
    assert "got k = 200, n = 100 (in the cell k = 200)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
