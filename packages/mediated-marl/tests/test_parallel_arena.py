"""Learning in a user's PettingZoo environment: what is read from it, agents that leave early, and what is refused."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from pettingzoo import ParallelEnv

from mediated_marl import cli
from mediated_marl.episodes import Episodes, agents_first, agents_last
from mediated_marl.games import IteratedPublicGoodsGame
from mediated_marl.markov import MarkovTrainer, mediator_returns
from mediated_marl.markov_audit import audit_estimated
from mediated_marl.markov_config import MARKOV_PRESETS
from mediated_marl.parallel_arena import ParallelArena
from mediated_marl.pettingzoo import GameParallelEnv
from mediated_marl.rollout import Rules, TensorArena, roll_out

TINY = {"preset": "env", "game": "env", "env": "a.b:c", "seeds": 2, "games": 3, "iterations": 3, "hidden": 8}


class Leaving(ParallelEnv):
    """Agents a and b: a has 3 actions and dies after 2 steps; b has 2, of which it may play the first only."""

    metadata: ClassVar = {"name": "leaving"}
    possible_agents: ClassVar = ["a", "b"]

    def observation_space(self, agent):
        box = gymnasium.spaces.Box(0, 10, (1,) if agent == "a" else (2,), np.float32)
        mask = gymnasium.spaces.Box(0, 1, (2,), np.int8)
        return box if agent == "a" else gymnasium.spaces.Dict({"observation": box, "action_mask": mask})

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(3, start=1) if agent == "a" else gymnasium.spaces.Discrete(2)

    def seen(self):
        b = {"observation": np.full(2, self.time, np.float32), "action_mask": np.array([1, 0], np.int8)}
        return {"a": np.array([self.time], np.float32), "b": b}

    def reset(self, seed=None, options=None):
        self.agents, self.time = ["a", "b"], 0
        return self.seen(), {"a": {}, "b": {}}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert actions.get("a", 1) in (1, 2, 3)
        assert actions["b"] == 0
        self.time += 1
        live = self.agents
        over = {"a": self.time == 2, "b": self.time == 5}
        self.agents = [agent for agent in live if not over[agent]]
        seen = {agent: self.seen()[agent] for agent in live}
        rewards = dict.fromkeys(live, 1.0)
        return seen, rewards, {a: over[a] for a in live}, dict.fromkeys(live, False), {a: {} for a in live}


def trainer(factory, horizon=8, **options):
    config = dataclasses.replace(MARKOV_PRESETS["env"], **{**TINY, "horizon": horizon, **options})
    return MarkovTrainer(config, ParallelArena(factory, horizon))


def test_agents_that_leave_early():
    one = trainer(Leaving)
    played = roll_out(one.arena, one.players, Rules(exploration=0.5), (2, 16), torch.Generator().manual_seed(0))
    alive = torch.tensor([[True, True]] * 2 + [[False, True]] * 3 + [[False, False]] * 4)
    assert (played.alive == alive.unsqueeze(1)).all()
    assert (played.rewards == alive[:-1].unsqueeze(1)).all()
    assert not (played.committed & ~played.alive[:, :-1]).any()
    assert played.committed[..., 1].any()
    assert played.terminated[:, 1, :, 0].all()
    values = torch.full_like(played.rewards, 100.0)  # must not be asked where the game has ended
    returns = agents_last(mediator_returns(Episodes.of(played), agents_first(values), 1.0, 1.0))
    unexplored = ~played.explored.any(1)
    assert unexplored.any()
    assert (returns[:, 0, :, 0][unexplored] == 2).all()
    assert (returns[:, 0, :, 1][unexplored] == 5).all()


def test_training_and_audit_with_agents_that_leave_early():
    one = trainer(Leaving, mediator="constrained", window=2)
    for _ in range(3):
        one.iterate()
    assert all(weight.isfinite().all() for weight in one.players.parameters())
    audit = audit_estimated(one.arena, one.players, Rules(2), 2, 0.9, torch.Generator().manual_seed(0), 4, 2)
    assert audit.returns.tolist() == [[2, 5], [2, 5]]  # whatever they do
    assert audit.gains.abs().max() < 1e-6


def test_episodes_are_cut_at_the_horizon():
    one = trainer(Leaving, horizon=3)
    played = roll_out(one.arena, one.players, Rules(), (2, 2), torch.Generator().manual_seed(0))
    assert not played.terminated[..., 1].any()  # b goes on beyond: its value counts
    values = agents_first(torch.full_like(played.rewards, 100.0))
    assert (mediator_returns(Episodes.of(played), values, 1.0, 1.0)[:, 1, 0] == 103).all()


def test_environment_plays_like_the_batched_game():
    game = IteratedPublicGoodsGame(3, horizon=4)
    arenas = TensorArena(game), ParallelArena(lambda: GameParallelEnv(game), 4)
    source = torch.Generator().manual_seed(0)
    moments = [arena.begin(source, (2, 3)) for arena in arenas]
    for _ in range(4):
        actions = torch.randint(2, (2, 3, 3), generator=source)
        batched, looped = (arena.advance(actions) for arena in arenas)
        assert torch.allclose(batched.rewards, looped.rewards, atol=1e-5)
        for one, other in zip(batched.moment, looped.moment, strict=True):
            assert torch.allclose(one.float(), other.float(), atol=1e-5)
        assert torch.equal(batched.terminated, looped.terminated)
    assert moments[0].observations.shape == moments[1].observations.shape


WORDS = gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2))


def changed(**attributes):
    return lambda: type("Changed", (Leaving,), attributes)()


def unequal():
    unequal.calls = getattr(unequal, "calls", 0) + 1
    return Leaving() if unequal.calls % 2 else changed(possible_agents=["b", "a"])()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (changed(possible_agents=[]), "no possible_agents"),
        (changed(action_space=lambda self, agent: gymnasium.spaces.Box(0, 1)), "needs Discrete actions"),
        (changed(reset=lambda self, seed=None: (setattr(self, "agents", ["a"]), ({"a": 0}, {}))[1]), "possible_agents"),
        (
            changed(observation_space=lambda self, agent: gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2))),
            "fixed length",
        ),
    ],
)
def test_environments_that_cannot_be_used(factory, message):
    with pytest.raises(InputError, match=message):
        ParallelArena(factory, 4)


def test_copies_with_unequal_agents_are_refused():
    arena = ParallelArena(unequal, 4)
    with pytest.raises(InputError, match="environments differ"):
        arena.begin(torch.Generator(), (1, 2))


MODULE = """
from mediated_marl.games import IteratedPublicGoodsGame
from mediated_marl.pettingzoo import GameParallelEnv
number = 3
def factory():
    return GameParallelEnv(IteratedPublicGoodsGame(2, horizon=3))
def demanding(size):
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_game_for_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])


def run_train(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    cli.train()


def test_train_command_learns_in_a_users_environment(module, monkeypatch, capsys):
    sizes = ("--seeds", 2, "--games", 2, "--iterations", 2, "--horizon", 3, "--out-dir", "run")
    run_train(monkeypatch, "--env", "own_game_for_tests:factory", "--window", 3, *sizes)
    result = json.loads(Path("run/result.json").read_text())
    assert result["game"] == "own_game_for_tests:factory"
    assert len(result["commitment_by_step"]) == 3
    for command in (cli.evaluate, cli.audit):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["command", "run", "--json"])
        if command is cli.evaluate:
            sys.argv[2:] = ["--json", "--games", "2"]
        command()
        assert json.loads(capsys.readouterr().out)["return_per_agent"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env", "nowhere.at_all:factory"), "nowhere.at_all:factory cannot be imported"),
        (("--env", "own_game_for_tests:missing"), "has no 'missing'"),
        (("--env", "own_game_for_tests:number"), "name a function"),
        (("--env", "own_game_for_tests:demanding"), "cannot be called without arguments"),
        (("--env", "own_game_for_tests:factory", "--horizon", "3", "--window", "4"), "window is 4"),
        (("--preset", "env"), "cannot be imported"),
    ],
)
def test_train_command_refuses_bad_environments(module, arguments, message, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run_train(monkeypatch, "--out-dir", "refused", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
