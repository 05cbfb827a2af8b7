"""Every table of the reproduction at the scale of a test, and what the other scales hold."""

import json
import sys
from pathlib import Path

import pytest
from gt_core.reproduce.kept import kept_and_fresh_rows

from mediated_marl import cli
from mediated_marl.reproduction import EXPERIMENTS

RESULTS = Path(__file__).parents[1] / "results"


def reproduce(monkeypatch, capsys, table):
    monkeypatch.setattr(sys, "argv", ["x", "--table", table, "--scale", "smoke", "--backend", "here", "--json"])
    cli.reproduce()
    return json.loads(capsys.readouterr().out)["rows"]


def test_table_3_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = reproduce(monkeypatch, capsys, "3")
    found = {(row["mediator"], row["agents"], row["learner"]): row["figures"] for row in rows}
    assert len(found) == len(rows) == 27
    encouraged = found["e", 3, "exact"]
    assert encouraged["reward"]["published"] == 0.891
    assert encouraged["reward"]["exact"] == 1.0
    assert encouraged["reward"]["seeds"] == 2
    assert 0 <= encouraged["commitment"]["ours"] <= 1
    assert encouraged["p at N - 1"]["published"] == 0.774
    assert encouraged["p at N - 1"]["exact"] == pytest.approx(0.75)  # (n - 1) N / (n (N - 1)) for N = 3, n = 2
    assert found["naive", 3, "paper's"]["reward"]["exact"] == pytest.approx(2 / 3)  # two of three commit
    assert found["none", 3, "sampled"]["commitment"]["seeds"] == 0
    assert found["e", 25, "sampled"]["reward"] | {"published": None} == {
        "published": None, "ours": None, "low": None, "high": None, "exact": None, "seeds": 0, "values": []
    }  # fmt: skip
    assert {row["runs"] for row in rows if row["agents"] == 3} == {1}
    assert (tmp_path / "reproduction" / "table-3-smoke" / "report.png").is_file()


def test_one_step_games_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = reproduce(monkeypatch, capsys, "one-step-games")
    exact = {(row["game"], row["mediator"], row["learner"]): row["figures"]["reward"]["exact"] for row in rows}
    assert exact["pd", "none", "exact"] == 0
    assert exact["pd", "naive", "exact"] == 2
    assert exact["sacrifice", "naive", "sampled"] == 1
    assert exact["sacrifice", "ic", "exact"] == pytest.approx(2.25)  # welfare 4.5 by linear programming
    assert {row["figures"]["reward"]["seeds"] for row in rows} == {2}


def test_several_steps_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = reproduce(monkeypatch, capsys, "several-steps")
    ran = {(row["game"], row["mediator"]): row["figures"] for row in rows if row["runs"]}
    assert set(ran) == {("two-step-pd", "naive"), ("two-step-pd", "ic"), ("iterated-pgg", "e"), ("coin", "none")}
    assert ran["two-step-pd", "ic"]["welfare"]["exact"] == 6.875
    assert ran["iterated-pgg", "e"]["welfare"]["exact"] == pytest.approx(3 * (1.5**10 - 1))
    assert ran["iterated-pgg", "e"]["final balance"]["seeds"] == 2
    assert ran["coin", "none"]["commitment"]["seeds"] == 0


def test_full_scale_is_the_papers():
    lines = {one.name: one.lines("full", Path("cells")) for one in EXPERIMENTS}
    assert all(line.cells and not line.left_out for some in lines.values() for line in some)
    papers = [line.cells[0].config for line in lines["3"] if line.about["learner"] == "paper's"]
    assert {(config.iterations, config.games, config.seeds) for config in papers} == {(20_000, 128, 10)}
    steps = {cell.config.game: cell.config.iterations for line in lines["several-steps"] for cell in line.cells}
    assert (steps["two-step-pd"], steps["iterated-pgg"]) == (5_000, 10_000)


@pytest.mark.parametrize(
    "report", sorted(RESULTS.glob("reproduction/*/report.json")), ids=lambda file: file.parent.name
)
def test_kept_reports_are_those_of_the_committed_results(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, fresh = kept_and_fresh_rows(report, EXPERIMENTS, RESULTS)
    assert fresh == kept
