"""A run and its users: those it was trained for are let in, others are named."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from gt_core.errors import InputError

from rmdp import RMDP, cli
from rmdp.config import PRESETS
from rmdp.fingerprint import fingerprint, require_same_users
from rmdp.population import FunctionPopulation, TargetVelocity
from rmdp.setup import build_population

FACTORY = """
def likes(n, generator):
    place = generator.uniform(-1, 1, n)
    return lambda transition: {worth} - abs(transition.next_observation[..., :1] - place)
"""
TYPED = ["--env", "CartPole-v1", "--n", "8", "--k", "2", "--preset", "smoke", "--threads", "1", "--out-dir", "run"]


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    command()


@pytest.mark.parametrize("env", ["HalfCheetah-v4", "resource-gathering", "CartPole-v1"])
def test_transitions_are_the_same_each_time(env):
    config = dataclasses.replace(PRESETS["gathering"], env=env, users="a:b", k=1)
    users = FunctionPopulation(lambda transition: transition.next_observation[..., :2], 2)
    one, two = fingerprint(config, users), fingerprint(config, users)
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert one["rewards"].shape == (32, 1, 2)
    assert len(one["rewards"].unique(dim=0)) > 1
    require_same_users(one, users, "run")


def test_user_who_changed_is_named():
    config = PRESETS["smoke"]
    users = build_population(config)
    saved = fingerprint(config, users)
    targets = users.targets.copy()
    user = int(np.argmin(np.abs(targets)))  # random actions move slowly
    targets[user] += 0.05
    with pytest.raises(InputError, match=f"run was trained for other users: user {user} now gives"):
        require_same_users(saved, TargetVelocity(targets, users.width), "run")
    with pytest.raises(InputError, match="run was trained for 20 users, these are 19: give its own"):
        require_same_users(saved, TargetVelocity(targets[1:], users.width), "run")


def test_run_whose_factory_changed_is_neither_resumed_nor_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name, worth in (("old_taste", 1), ("new_taste", 2)):
        (tmp_path / f"{name}.py").write_text(FACTORY.format(worth=worth))
    run(monkeypatch, cli.train, *TYPED, "--users", "old_taste:likes", "--iterations", "2")
    (tmp_path / "run" / "result.json").unlink()  # as if it had been stopped at the end
    monkeypatch.setitem(sys.modules, "old_taste", __import__("new_taste"))
    capsys.readouterr()
    for command, arguments in ((cli.train, ["--resume", "--out-dir", "run"]), (cli.evaluate, ["run"])):
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, command, *arguments)
        assert stopped.value.code == 2
        assert "run was trained for other users: user 0 now gives" in capsys.readouterr().err


def test_saved_model_refuses_other_users(tmp_path):
    def twice(transition):
        return 2 * transition.next_observation[..., :2]

    def once(transition):
        return transition.next_observation[..., :2]

    RMDP("CartPole-v1", users=once, preset="smoke", k=2, n=2, threads=1).save(tmp_path / "model")
    RMDP.load(tmp_path / "model", users=once)
    with pytest.raises(InputError, match="trained for other users"):
        RMDP.load(tmp_path / "model", users=twice)
