"""The commands on games of several steps: training in seconds, and what reads the finished runs."""

import json
import sys

import pytest

from mediated_marl import cli

SMALL = ("--seeds", 2, "--iterations", 3, "--games", 4)
RUNS = {"two-step-pd": ("--window", 2), "iterated-pgg": ("--horizon", 3), "coin": ("--horizon", 2, "--window", 2)}


def run_command(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    command()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each game, by name; `--game` alone takes the game's own preset."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for game, options in RUNS.items():
            run_command(cli.train, patch, "--game", game, "--out-dir", folder / game, *SMALL, *options)
    return {game: folder / game for game in RUNS}


@pytest.mark.parametrize("game", RUNS)
def test_audit_command_repeats_the_result(game, runs, monkeypatch, capsys):
    result = json.loads((runs[game] / "result.json").read_text())
    run_command(cli.audit, monkeypatch, runs[game], "--json")
    assert json.loads(capsys.readouterr().out).items() <= result.items()
    assert result["game"] == game
    assert len(result["commitment_by_step"]) == {"two-step-pd": 2, "iterated-pgg": 3, "coin": 2}[game]
    n_coalitions = 2 ** result["n_agents"]
    assert sum(result["coalition_probability"]) == pytest.approx(1, abs=1e-5)
    assert len(result["ic_slack_by_coalition"]) == len(result["e_slack_by_coalition"]) == n_coalitions
    assert result["ic_slack_by_coalition"][0] is None  # nobody is a member
    assert result["e_slack_by_coalition"][-1] is None  # nobody is outside


def test_eval_command_agrees_with_the_exact_expectation(runs, monkeypatch, capsys):
    exact = json.loads((runs["two-step-pd"] / "result.json").read_text())
    run_command(cli.evaluate, monkeypatch, runs["two-step-pd"], "--games", 5000, "--json")
    played = json.loads(capsys.readouterr().out)
    for name, error in zip(("return_per_seed",) * 2, played["return_error_per_seed"], strict=True):
        assert played[name] == pytest.approx(exact[name], abs=6 * error)
    assert played["commitment_by_step"] == pytest.approx(exact["commitment_by_step"], abs=0.03)


@pytest.mark.parametrize("game", RUNS)
def test_plot_command_writes_a_picture(game, runs, tmp_path, monkeypatch):
    run_command(cli.plot, monkeypatch, runs[game], "--out", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_table_command_reads_runs_of_both_kinds(runs, monkeypatch, capsys):
    run_command(cli.table, monkeypatch, *runs.values(), "--json")
    found = {row["game"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(found) == set(RUNS)
    assert found["iterated-pgg"]["welfare_exact"] == pytest.approx(3 * (1.5**3 - 1))  # all contribute, horizon 3
    run_command(cli.table, monkeypatch, runs["coin"])
    assert "| coin | constrained | 2 |" in capsys.readouterr().out


def test_commands_refuse_bad_input(runs, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(cli.evaluate, monkeypatch, runs["coin"], "--games", 1)
    assert stop.value.code == 2
    assert "games is 1" in capsys.readouterr().err
