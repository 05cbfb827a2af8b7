"""The commands that read finished runs: evaluation, pictures, and tables."""

import dataclasses
import json
import sys

import pytest
from gt_core.run import Run

from mediated_marl import cli
from mediated_marl.config import PRESETS
from mediated_marl.report import audit_run
from mediated_marl.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each kind of game, by preset."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for preset in ("sampled", "sacrifice", "pgg"):
        config = dataclasses.replace(PRESETS[preset], out_dir=str(folder / preset), seeds=2, iterations=20)
        run = Run(config, resume=False, packages=("mediated-marl",))
        train(run, config)
        run.finish(audit_run(run.directory))
        found[preset] = run.directory
    return found


def run_command(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    command()


@pytest.mark.parametrize("preset", ["sampled", "sacrifice"])
def test_eval_command_agrees_with_the_exact_expectation(preset, runs, monkeypatch, capsys):
    run_command(cli.evaluate, monkeypatch, runs[preset], "--games", 20_000, "--json")
    figures = json.loads(capsys.readouterr().out)
    columns = ("reward_per_seed", "reward_exact_per_seed", "reward_error_per_seed")
    for played, exact, error in zip(*(figures[name] for name in columns), strict=True):
        assert played == pytest.approx(exact, abs=4 * error)
    run_command(cli.evaluate, monkeypatch, runs[preset], "--games", 20_000, "--json")
    assert json.loads(capsys.readouterr().out) == figures


@pytest.mark.parametrize("preset", ["sampled", "sacrifice"])
def test_plot_command_writes_a_picture(preset, runs, tmp_path, monkeypatch, capsys):
    run_command(cli.plot, monkeypatch, runs[preset], "--out", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_table_command_reads_runs(runs, monkeypatch, capsys):
    run_command(cli.table, monkeypatch, *runs.values(), "--json")
    found = json.loads(capsys.readouterr().out)
    assert [(row["game"], row["learner"]) for row in found] == [
        ("pgg", "sampled"),
        ("pgg", "exact"),
        ("sacrifice", "exact"),
    ]
    assert found[0]["next_to_grand_bound"] == pytest.approx(0.75)  # own derivation, N = 3
    assert found[2]["reward_exact"] == pytest.approx(2.25)  # welfare 4.5 by linear programming
    run_command(cli.table, monkeypatch, runs["pgg"])
    assert capsys.readouterr().out.count("| pgg | e | 3 |") == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (cli.evaluate, ("{run}", "--games", "1"), "games is 1"),
        (cli.plot, ("{run}", "--out", "run.txt"), "names no picture format"),
        (cli.plot, ("{nothing}",), "holds no config.json"),
        (cli.table, (), "no run is given"),
        (cli.table, ("{nothing}",), "holds no config.json"),
    ],
)
def test_commands_refuse_bad_input(command, arguments, message, runs, tmp_path, monkeypatch, capsys):
    filled = [one.format(run=runs["pgg"], nothing=tmp_path) for one in arguments]
    with pytest.raises(SystemExit) as stop:
        run_command(command, monkeypatch, *filled)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
