"""Grids of runs, as typed."""

import json
import sys
from pathlib import Path

import pytest
from gt_core.sweep.options import parse_sweep

from mediated_marl import cli
from mediated_marl.runs import complete


def cells(*arguments):
    found, _ = parse_sweep(cli.ALL_PRESETS, cli.default_preset, "mediated-marl-sweep", "", arguments)
    return found


def test_sweep_gives_the_bytes_of_runs_made_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = ["--game", "pd", "--mediator", "none,naive", "--iterations", "20", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["mediated-marl-sweep", *grid, "--json"])
    cli.sweep()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["deaths"]) for row in rows] == [("finished", 0)] * 2
    assert [row["settings"]["seeds"] for row in rows] == [2, 2]  # side by side in one cell, as in training
    for row, cell in reversed(list(zip(rows, cells(*grid, "--out-dir", "here"), strict=True))):
        result = complete(cell.config)
        assert len(result["reward_per_seed"]) == 2
        assert row["figures"]["reward"] == result["reward"]
        for file in ("result.json", "metrics.jsonl", "model/tensors.safetensors"):
            assert Path(row["directory"], file).read_bytes() == (cell.config.directory / file).read_bytes()


def test_cell_takes_the_preset_of_its_game():
    assert [cell.config.preset for cell in cells("--game", "pd,sacrifice", "--seed", "0,1")] == [
        "pd",
        "sacrifice",
        "pd",
        "sacrifice",
    ]
    assert [cell.config.horizon for cell in cells("--game", "two-step-pd,repeated-pd", "--n-agents", "2")] == [2, 4]


def test_one_step_and_longer_games_are_swept_apart(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mediated-marl-sweep", "--preset", "pd,coin"])
    with pytest.raises(SystemExit) as stopped:
        cli.sweep()
    assert stopped.value.code == 2
    assert "presets pd and coin have different options; sweep each by itself" in capsys.readouterr().err
