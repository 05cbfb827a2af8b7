"""PettingZoo faces: conformance by PettingZoo's own tests, and the mediator's rules by hand."""

import gymnasium
import numpy as np
import pytest
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test, parallel_seed_test

from mediated_marl.games import (
    CoinGame,
    IteratedPublicGoodsGame,
    MatrixGame,
    PublicGoodsGame,
    RandomisedPrisonersDilemma,
    RepeatedMatrixGame,
    prisoners_dilemma,
    sacrifice,
    two_step_prisoners_dilemma,
)
from mediated_marl.pettingzoo import GameParallelEnv, MediatedParallelEnv
from mediated_marl.two_phase import TwoPhaseParallelEnv

GAMES = {
    "pd": prisoners_dilemma,
    "two-step-pd": two_step_prisoners_dilemma,
    "randomised-pd": RandomisedPrisonersDilemma,
    "sacrifice": sacrifice,
    "pgg": lambda: PublicGoodsGame(4),
    "iterated-pgg": lambda: IteratedPublicGoodsGame(random_endowments=True),
    "unequal-actions": lambda: MatrixGame(np.arange(12.0).reshape(2, 3, 2)),
    "repeated": lambda: RepeatedMatrixGame(sacrifice().payoffs, rounds=5, memory=True),
    "coin": CoinGame,
}


class LastLegal:
    """A mediator that plays each member's last legal action and remembers what it was shown."""

    def __init__(self):
        self.views = []

    def act(self, view):
        self.views.append(view)
        return {agent: int(view.legal[agent][-1]) for agent in view.coalition}


class Leaving(ParallelEnv):
    """Three agents; ``b`` has its own mask, actions that start at 5, and leaves after the first of three steps."""

    names = ("a", "b", "c")

    def __init__(self):
        self.metadata, self.possible_agents = {"name": "leaving"}, list(self.names)
        self.agents, self.time, self.played = [], 0, []
        plain = gymnasium.spaces.Box(0, 9, (1,), np.float32)
        mask = gymnasium.spaces.Box(0, 1, (3,), np.int8)
        self.spaces = {"a": plain, "b": gymnasium.spaces.Dict({"seen": plain, "action_mask": mask}), "c": plain}
        self.moves = {agent: gymnasium.spaces.Discrete(3, start=5 if agent == "b" else 0) for agent in "abc"}

    def observation_space(self, agent):
        return self.spaces[agent]

    def action_space(self, agent):
        return self.moves[agent]

    def observe(self, agents):
        seen = np.array([self.time], np.float32)
        dressed = {"seen": seen, "action_mask": np.array([0, 1, 1], np.int8)}
        return {agent: dressed if agent == "b" else seen for agent in agents}

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self.observe(self.agents), {agent: {"own": 1} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert all(self.moves[agent].contains(action) for agent, action in actions.items())
        live, self.time = self.agents, self.time + 1
        self.played.append(actions)
        over = {agent: self.time == 3 or agent == "b" for agent in live}
        self.agents = [agent for agent in live if not over[agent]]
        return self.observe(live), dict.fromkeys(live, 1.0), over, dict.fromkeys(live, False), {a: {} for a in live}


def mediated(env, **options):
    return MediatedParallelEnv(env, LastLegal(), **options)


@pytest.mark.parametrize("name", GAMES)
def test_game_face_conforms(name):
    parallel_api_test(GameParallelEnv(GAMES[name]()), num_cycles=50)
    parallel_seed_test(lambda: GameParallelEnv(GAMES[name]()))


@pytest.mark.parametrize("name", [*GAMES, "leaving"])
@pytest.mark.parametrize("options", [{}, {"lock_out": "episode"}, {"mask": False}])
def test_mediated_face_conforms(name, options):
    def make():
        return mediated(Leaving() if name == "leaving" else GameParallelEnv(GAMES[name]()), **options)

    parallel_api_test(make(), num_cycles=50)
    parallel_seed_test(make)


@pytest.mark.parametrize("name", [*GAMES, "leaving"])
def test_two_phase_face_conforms(name):
    def make():
        return TwoPhaseParallelEnv(Leaving() if name == "leaving" else GameParallelEnv(GAMES[name]()))

    parallel_api_test(make(), num_cycles=50)
    parallel_seed_test(make)


@pytest.mark.parametrize("make", [lambda: mediated(Leaving()), lambda: TwoPhaseParallelEnv(Leaving())])
def test_faces_observe_within_their_spaces(make):
    env = make()
    seen, _ = env.reset(seed=0)
    while env.agents:
        assert all(env.observation_space(agent).contains(value) for agent, value in seen.items())
        seen, *_ = env.step({a: env.action_space(a).sample(mask=seen[a]["action_mask"]) for a in env.agents})


def test_game_face_same_seed_same_episode():
    def rewards(seed):
        env = GameParallelEnv(CoinGame(horizon=40))
        env.reset(seed=seed)
        walk = [1, 3, 3] * 13  # over all nine cells
        return [tuple(env.step({"agent_0": move, "agent_1": 0})[1].values()) for move in walk]

    assert rewards(3) == rewards(3)
    assert rewards(3) != rewards(4)


def test_game_face_cuts_or_ends():
    coin, goods = GameParallelEnv(CoinGame(horizon=1)), GameParallelEnv(PublicGoodsGame(2, 1.5))
    for env, cut in ((coin, True), (goods, False)):
        env.reset(seed=0)
        _, _, terminated, truncated, _ = env.step({"agent_0": 0, "agent_1": 1})
        assert set(truncated.values()) == {cut}
        assert set(terminated.values()) == {not cut}


def test_mediated_executes_the_coalitions_actions():
    env = mediated(GameParallelEnv(prisoners_dilemma()))
    env.reset()
    _, rewards, _, _, infos = env.step({"agent_0": 2, "agent_1": 0})  # the mediator cooperates for agent 0
    assert rewards == {"agent_0": -5, "agent_1": 7}
    assert env.coalition == ("agent_0",)
    assert [infos[agent]["executed_action"] for agent in ("agent_0", "agent_1")] == [1, 0]
    assert [infos[agent]["committed"] for agent in ("agent_0", "agent_1")] == [True, False]
    assert infos["agent_1"]["coalition"] == ("agent_0",)


def test_mediated_asks_only_when_somebody_commits_and_shows_the_state():
    env = mediated(GameParallelEnv(IteratedPublicGoodsGame(3)))
    seen, _ = env.reset()
    env.step(dict.fromkeys(env.agents, 0))
    assert env.mediator.views == []
    env.step({"agent_0": 2, "agent_1": 1, "agent_2": 2})
    (view,) = env.mediator.views
    assert view.coalition == ("agent_0", "agent_2")
    assert view.state.tolist() == pytest.approx([1 / 57.665] * 3 + [0.1], abs=1e-4)
    assert seen["agent_0"]["action_mask"].tolist() == [1, 1, 1]


def test_mediated_window_binds_members_and_outsiders():
    env = mediated(GameParallelEnv(IteratedPublicGoodsGame(2, horizon=4)), window=3)
    env.reset()
    seen, *_ = env.step({"agent_0": 2, "agent_1": 0})
    assert env.lock == {"agent_0": 2, "agent_1": -2}
    assert seen["agent_0"]["action_mask"].tolist() == [0, 0, 1]
    assert seen["agent_1"]["action_mask"].tolist() == [1, 1, 0]
    assert [int(seen[agent]["commitment"][0]) for agent in env.agents] == [1, -1]
    # one bound to stay in commits whatever it says; one bound to stay out plays its first action instead of commit
    _, _, _, _, infos = env.step({"agent_0": 0, "agent_1": 2})
    assert env.coalition == ("agent_0",)
    assert infos["agent_1"]["executed_action"] == 0
    assert not infos["agent_1"]["committed"]
    seen, *_ = env.step({"agent_0": 2, "agent_1": 1})
    assert seen["agent_1"]["action_mask"].tolist() == [1, 1, 1]


def test_mediated_lock_out_for_the_episode_ends_with_it():
    env = mediated(GameParallelEnv(IteratedPublicGoodsGame(2, horizon=3)), lock_out="episode")
    env.reset()
    for _ in range(2):
        seen, *_ = env.step({"agent_0": 2, "agent_1": 0})
        assert seen["agent_1"]["action_mask"].tolist() == [1, 1, 0]
        assert seen["agent_0"]["action_mask"].tolist() == [1, 1, 1]
    seen, _ = env.reset()
    assert seen["agent_1"]["action_mask"].tolist() == [1, 1, 1]


def test_mediated_two_step_dilemma_with_threat_pays_seven():
    # Own derivation: both commit once for both rounds; round 1 pays (-1, 4), round 2 (2, 2).
    env = mediated(GameParallelEnv(two_step_prisoners_dilemma()), window=2, lock_out="episode")
    env.reset()
    total = 0.0
    while env.agents:
        total += sum(env.step(dict.fromkeys(env.agents, 2))[1].values())
    assert total == 7


def test_mediated_respects_masks_starts_and_agents_that_leave():
    env = mediated(Leaving(), window=2)
    seen, infos = env.reset()
    assert env.action_space("b") == gymnasium.spaces.Discrete(4, start=5)
    assert seen["b"]["action_mask"].tolist() == [0, 1, 1, 1]
    assert set(seen["b"]) == {"seen", "action_mask", "commitment"}
    assert infos["a"]["own"] == 1
    env.mediator.act = lambda view: {"b": 5}
    with pytest.raises(ValueError, match=r"the mediator chose 5 for b; choose one of \[6, 7\]"):
        env.step({"a": 0, "b": 8, "c": 0})
    env.mediator = LastLegal()
    env.step({"a": 0, "b": 8, "c": 1})
    assert env.env.played[-1] == {"a": 0, "b": 7, "c": 1}
    assert env.agents == ["a", "c"]
    env.step({"a": 0, "c": 3})  # c is bound to stay out
    assert env.env.played[-1] == {"a": 0, "c": 0}
    assert env.coalition == ()


def test_mediated_state_falls_back_to_observations():
    env = mediated(Leaving())
    env.reset()
    env.step({"a": 1, "b": 6, "c": 1})
    assert env.state().tolist() == [1, 0, 1, 1, 1, 1]  # a, b's mask and entry, c
    env.step({"a": 1, "c": 1})
    assert env.state().tolist() == [2, 0, 0, 0, 0, 2]


def test_two_phase_by_hand():
    env = TwoPhaseParallelEnv(GameParallelEnv(prisoners_dilemma()))
    seen, _ = env.reset()
    assert env.agents == ["agent_0", "agent_1", "mediator"]
    assert [mask.tolist() for mask in seen["mediator"]["action_mask"]] == [[1, 0], [1, 0]]
    seen, rewards, *_ = env.step({"agent_0": 2, "agent_1": 0, "mediator": np.array([0, 0])})
    assert set(rewards.values()) == {0}
    assert seen["mediator"]["coalition"].tolist() == [1, 0]
    assert [mask.tolist() for mask in seen["mediator"]["action_mask"]] == [[1, 1], [1, 0]]
    assert seen["agent_1"]["action_mask"].tolist() == [1, 0, 0]
    _, rewards, terminated, _, infos = env.step({"agent_0": 0, "agent_1": 0, "mediator": np.array([1, 0])})
    assert rewards == {"agent_0": -5, "agent_1": 7, "mediator": -5}
    assert terminated == dict.fromkeys(["agent_0", "agent_1", "mediator"], True)
    assert infos["agent_0"]["executed_action"] == 1
    assert env.agents == []


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mediated(GameParallelEnv(sacrifice()), window=0), ValueError, "window is 0"),
        (lambda: mediated(GameParallelEnv(sacrifice()), window=2), ValueError, "only 1 steps"),
        (lambda: mediated(GameParallelEnv(sacrifice()), lock_out="never"), ValueError, "'never'"),
        (lambda: mediated(Continuous()), ValueError, "actions of a are Box"),
        (lambda: TwoPhaseParallelEnv(Continuous()), ValueError, "Discrete"),
        (lambda: TwoPhaseParallelEnv(Named()), ValueError, "called 'mediator'"),
        (lambda: mediated(Nobody()), ValueError, "possible_agents is empty"),
    ],
)
def test_faces_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Continuous(Leaving):
    def action_space(self, agent):
        return gymnasium.spaces.Box(0, 1, (2,))


class Named(Leaving):
    names = ("mediator",)

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)


class Nobody(Leaving):
    names = ()


def test_faces_bad_actions():
    face = GameParallelEnv(sacrifice())
    with pytest.raises(RuntimeError, match="call reset"):
        face.step({})
    with pytest.raises(RuntimeError, match="call reset"):
        face.state()
    face.reset()
    with pytest.raises(ValueError, match="action of agent_1 is None"):
        face.step({"agent_0": 0})
    with pytest.raises(ValueError, match="action of agent_0 is 3"):
        face.step({"agent_0": 3, "agent_1": 0})
    env = mediated(GameParallelEnv(sacrifice()))
    env.reset()
    with pytest.raises(ValueError, match="action of agent_1 is 4"):
        env.step({"agent_0": 0, "agent_1": 4})
    two = TwoPhaseParallelEnv(GameParallelEnv(sacrifice()))
    two.reset()
    two.step({"agent_0": 3, "agent_1": 0})
    with pytest.raises(ValueError, match="mediator's action is None"):
        two.step({})
