"""The Python interface."""

import builtins
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gt_core.errors import CheckpointError, InputError

from rmdp import RMDP

SMALL = {"preset": "smoke", "k": 2, "hidden": (8, 8), "samples": 100, "copies": 4, "n": 6, "threads": 1}


def likes(transition):
    return 1 - abs(transition.next_observation[..., :1] - np.linspace(-1, 1, 6))


@pytest.fixture(scope="module")
def pole():
    return RMDP("CartPole-v1", users=likes, **SMALL).learn()


def test_learnt_model_plays_an_episode_for_a_user(pole):
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    ended = False
    while not ended:
        action, state = pole.predict(observation, user=3)
        assert state is None
        observation, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated


def test_prediction_is_the_mode_of_the_users_policy(pole):
    observation = np.random.default_rng(0).normal(size=(5, 4))
    users = np.array([0, 1, 2, 3, 5])
    actions, _ = pole.predict(observation, user=users)
    members = pole.algorithm.representatives
    with torch.no_grad():
        all_actions = members.policies.mode(members.moments.normalise(observation).expand(2, -1, -1)).numpy()
    assert actions.tolist() == [all_actions[pole.assignment[user], row] for row, user in enumerate(users)]
    assert pole.predict(observation[2], user=2)[0] == actions[2]


def test_drawn_actions_vary(pole):
    observation = np.zeros((200, 4))
    drawn, _ = pole.predict(observation, user=0, deterministic=False)
    assert set(drawn.tolist()) == {0, 1}


def test_robots_actions_stay_within_the_bounds():
    model = RMDP("HalfCheetah-v4", **SMALL)
    actions, _ = model.predict(np.zeros((20, 17)), user=0, deterministic=False)
    assert actions.shape == (20, 6)
    assert np.abs(actions).max() <= 1


def test_saved_model_learns_on_to_the_same_bits(pole, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("loading must not unpickle")

    straight = RMDP("CartPole-v1", users=likes, **SMALL).learn(2)
    straight.save(tmp_path / "models" / "half")
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(builtins, "eval", refuse)
    loaded = RMDP.load(tmp_path / "models" / "half", users=likes)
    assert loaded.evaluate(1) == straight.evaluate(1)
    assert loaded.learn().evaluate(1) == straight.learn().evaluate(1) == pole.evaluate(1)
    assert loaded.algorithm.step == 3


def test_callback_sees_the_figures_and_stops():
    seen = []

    def callback(step, figures):
        seen.append((step, figures["train/welfare"]))
        return step < 2

    model = RMDP("CartPole-v1", users=likes, **SMALL).learn(callback=callback)
    assert [step for step, _ in seen] == [1, 2]
    assert model.algorithm.step == 2


def test_users_given_in_code_are_asked_for_again(pole, tmp_path):
    pole.save(tmp_path / "model")
    with pytest.raises(InputError, match="were given in code: give them again"):
        RMDP.load(tmp_path / "model")


def test_altered_model_is_refused(pole, tmp_path):
    pole.save(tmp_path / "model")
    with (tmp_path / "model" / "state.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError):
        RMDP.load(tmp_path / "model", users=likes)


@pytest.mark.parametrize(
    ("observation", "user", "message"),
    [
        (np.zeros(3), 0, r"an observation has 4 numbers, got shape \(3,\)"),
        (np.zeros(4), 6, "users are numbered 0 to 5, got 6"),
        (np.zeros(4), -1, "users are numbered 0 to 5, got -1"),
        (np.zeros(4), 0.5, "users are numbered 0 to 5, got 0.5"),
    ],
)
def test_unusable_questions_are_named(pole, observation, user, message):
    with pytest.raises(InputError, match=message):
        pole.predict(observation, user=user)


def test_unusable_settings_are_named():
    with pytest.raises(InputError, match="preset 'quick' does not exist"):
        RMDP("CartPole-v1", preset="quick")
    with pytest.raises(TypeError, match="colour"):
        RMDP("CartPole-v1", colour="red")
