"""Pictures of a run, and representatives for new users, on committed and fresh runs."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from gt_core.errors import InputError
from matplotlib.image import imread

from rmdp import cli
from rmdp.ceilings import own_returns
from rmdp.plots import plot_returns, plot_targets, walks_of
from rmdp.population import FunctionPopulation, ResourceGathering, TargetVelocity
from rmdp.report import assign_new_users
from rmdp.train import load_model

RESULTS = Path(__file__).parents[1] / "results"
CHEETAH, WALKS = (RESULTS / name / "seed0" for name in ("HalfCheetah-v4-k5-em", "resource-gathering-k5-em"))


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    command()


def test_plot_draws_the_walks_and_returns_of_a_run(tmp_path, monkeypatch, capsys):
    place = shutil.copytree(WALKS, tmp_path / "run")
    rows = [{"train/env_steps": 100 * step, "train/welfare": 0.1 * step} for step in range(1, 4)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(monkeypatch, cli.plot, str(place), "--json")
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(file).name for file in files] == ["returns.png", "learning_curve.png", "paths.png"]
    assert all(imread(file).std() > 0.05 for file in files)


def test_targets_and_many_representatives_can_be_drawn(tmp_path):
    targets = np.random.default_rng(0).uniform(0, 4, 60)
    assignment = np.arange(60) % 30
    plot_targets(tmp_path / "targets.png", targets, assignment, 30, "")
    plot_returns(tmp_path / "returns.png", targets, assignment, 30, "")
    assert imread(tmp_path / "targets.png").std() > 0.05


def test_walks_return_home_and_earn_what_the_users_got():
    model = load_model(WALKS)
    walks = walks_of(model.policies, model.moments, 5)
    returns = np.zeros((5, 25))
    for j, walk in enumerate(walks):
        assert np.array_equal(walk[0], [4, 2])
        assert np.array_equal(walk[-1], [4, 2])
        assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()
        visited = {int(row * 5 + column) for row, column in walk}
        returns[j] = [(1 - (len(walk) - 1) / 100) * (cell in visited) for cell in model.population.cells]
    welfare = json.loads((WALKS / "result.json").read_text())["welfare"]
    assert returns[model.assignment, np.arange(25)].mean() == pytest.approx(welfare)


def test_new_users_like_the_old_ones_get_their_representatives():
    found = assign_new_users(WALKS, seed=0, episodes=1)
    assert found["welfare"] == pytest.approx(json.loads((WALKS / "result.json").read_text())["welfare"])
    alone = 1 - (2 * sum(abs(row - 4) + abs(column - 2) for row in range(5) for column in range(5)) + 1) / 2500
    assert found["mean_loss"] == pytest.approx(alone - found["welfare"], abs=1e-6)  # out and back, a bump for home
    assert min(found["loss"]) > -1e-6


def test_one_new_user_is_enough(monkeypatch, capsys):
    run(monkeypatch, cli.assign, str(CHEETAH), "--n", "1", "--episodes", "1", "--seed", "3")
    shown = capsys.readouterr().out
    assert "representative" in shown
    assert "mean return" in shown


def test_new_users_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "fast_users.py").write_text(
        "def fast(n, generator):\n    return lambda step: step.info['x_velocity'][..., None].repeat(n, -1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    run(monkeypatch, cli.assign, str(CHEETAH), "--users", "fast_users:fast", "--n", "2", "--episodes", "1", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] is None
    assert found["assignment"][0] == found["assignment"][1]


def test_wrong_number_of_cells_is_named():
    with pytest.raises(InputError, match="25 users, one per cell, got n = 3"):
        assign_new_users(WALKS, n=3)


def test_best_returns_of_single_users():
    assert own_returns(TargetVelocity(np.array([1.0, 2.0]), 0.2)).tolist() == [100.0, 100.0]
    own = own_returns(ResourceGathering(np.array([22, 21, 0])))  # home, beside it, the far corner: 1, 2 and 12 steps
    assert own.tolist() == pytest.approx([0.99, 0.98, 0.88])
    assert own_returns(FunctionPopulation(lambda transition: transition, 2, "own")) is None
