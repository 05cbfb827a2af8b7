"""Figure 5 at the scale of a test, and what the other scales hold."""

import json
import sys
from pathlib import Path

import pytest
from gt_core.reproduce.kept import kept_and_fresh_rows

from rmdp import cli
from rmdp.config import PRESETS
from rmdp.reproduction import EXPERIMENTS

RESULTS = Path(__file__).parents[1] / "results"


def test_figure_5_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--figure", "5", "--scale", "smoke", "--backend", "here", "--json"])
    cli.reproduce()
    report = json.loads(capsys.readouterr().out)
    found = {(row["environment"], row["k"], row["algorithm"]): row for row in report["rows"]}
    assert len(found) == len(report["rows"]) == 4 * 17 + 21
    ran = {key: row for key, row in found.items() if row["runs"]}
    assert set(ran) == {("HalfCheetah-v4", 2, "em"), ("HalfCheetah-v4", 2, "random"), ("resource-gathering", 1, "em")}
    for row in ran.values():
        welfare, share = row["figures"]["welfare"], row["figures"]["share of the ceiling"]
        assert welfare["seeds"] == 2
        assert 0 <= welfare["ours"] <= welfare["exact"]
        assert 0 <= share["ours"] <= 1
    walks = ran["resource-gathering", 1, "em"]["figures"]["welfare"]
    assert walks["exact"] == pytest.approx(0.74)  # the walk through all cells takes 26 steps
    official = found["HalfCheetah-v4", 5, "em"]
    assert official["figures"]["welfare"]["published"] == 21.1
    assert official["figures"]["welfare"]["values"] == []
    folder = tmp_path / "reproduction" / "figure-5-smoke"
    assert {file.name for file in folder.iterdir()} == {
        "learning_curves.png", "report.json", "report.md", "report.png"
    }  # fmt: skip
    assert "| HalfCheetah-v4 | 5 | em | 21.1 |  |  |" in (folder / "report.md").read_text()


def test_full_scale_is_the_papers():
    lines = EXPERIMENTS[0].lines("full", Path("cells"))
    configs = [cell.config for line in lines for cell in line.cells]
    assert len({cell.directory for cell in configs}) == len(configs) == 10 * (4 * 17 + 21)
    assert {config.seed for config in configs} == set(range(10))
    assert {config.iterations for config in configs} == {2001}
    robots = [config for config in configs if config.env != "resource-gathering"]
    assert {config.n for config in robots} == {100}
    assert {config.learning_rate for config in robots} == {PRESETS["paper"].learning_rate}
    assert all(not line.left_out for line in lines)


@pytest.mark.parametrize(
    "report", sorted(RESULTS.glob("reproduction/*/report.json")), ids=lambda file: file.parent.name
)
def test_kept_reports_are_those_of_the_committed_results(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, fresh = kept_and_fresh_rows(report, EXPERIMENTS, RESULTS)
    assert fresh == kept
