"""Batches of arbitrary Gymnasium environments."""

import gymnasium
import mo_gymnasium  # noqa: F401 (registers the multi-objective environments)
import numpy as np
import pytest
from gt_core.errors import InputError
from gymnasium import spaces

from rmdp.envs.batch import BoxActions, DiscreteActions
from rmdp.envs.gym import GymBatch
from rmdp.envs.make import make_batch

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")  # mo-gymnasium's spaces


class Odd(gymnasium.Env):
    """Spaces as given; nothing happens."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gymnasium.register("rmdp-tests/Odd-v0", Odd, max_episode_steps=5)
    yield
    del gymnasium.registry["rmdp-tests/Odd-v0"]


def test_cart_pole_equals_single_environments_with_the_same_seeds():
    batch = GymBatch("CartPole-v1", 3, np.random.default_rng(0))
    assert (batch.actions, batch.observation_size, batch.horizon) == (DiscreteActions(2), 4, 500)
    seeds, env = np.random.default_rng(0), gymnasium.make("CartPole-v1")
    observation = batch.reset()
    first_seed = int(seeds.integers((1 << 31) - 1, size=3)[0])
    np.testing.assert_array_equal(observation[0], env.reset(seed=first_seed)[0])
    for _ in range(30):
        step = batch.step(np.ones(3, dtype=np.int64))
        theirs, reward, terminated, truncated, _ = env.step(1)
        np.testing.assert_array_equal(step.final_observation[0], theirs)
        assert (step.terminated[0], step.truncated[0], step.info["reward"][0]) == (terminated, truncated, reward)
        if terminated:
            break
    assert terminated
    assert np.abs(step.observation[0]).max() < 0.05 < np.abs(step.final_observation[0]).max()
    batch.close()


def test_time_limit_is_truncation():
    batch = GymBatch("Pendulum-v1", 2, np.random.default_rng(0))
    assert isinstance(batch.actions, BoxActions)
    np.testing.assert_array_equal(batch.actions.high, [2.0])
    batch.reset()
    steps = [batch.step(np.zeros((2, 1))) for _ in range(200)]
    assert [step.truncated.any() for step in steps] == [False] * 199 + [True]
    assert not any(step.terminated.any() for step in steps)
    batch.close()


@pytest.mark.parametrize(("name", "size"), [("CartPole-v1", 0), ("Pendulum-v1", 1)])
def test_restored_batch_continues_bit_for_bit(name, size):
    random = np.random.default_rng(1)
    actions = random.uniform(-2, 2, (230, 2, 1)) if size else random.integers(2, size=(230, 2))
    straight, resumed = (GymBatch(name, 2, np.random.default_rng(seed)) for seed in (0, 5))
    straight.reset()
    for action in actions[:190]:
        last = straight.step(action)
    np.testing.assert_array_equal(resumed.restore(straight.state()), last.observation)
    for action in actions[190:]:
        for one, two in zip(straight.step(action)[:4], resumed.step(action)[:4], strict=True):
            np.testing.assert_array_equal(one, two)
    straight.close()
    resumed.close()


def test_multi_objective_rewards_are_reported_as_vectors():
    batch = GymBatch("deep-sea-treasure-v0", 3, np.random.default_rng(0))
    batch.reset()
    step = batch.step(np.array([1, 3, 1]))  # down to the nearest treasure, right over open water, down
    np.testing.assert_allclose(step.info["vector_reward"], [[0.7, -1.0], [0.0, -1.0], [0.7, -1.0]], rtol=1e-6)
    np.testing.assert_allclose(step.info["reward"], [-0.3, -1.0, -0.3], rtol=1e-6)
    assert step.terminated.tolist() == [True, False, True]
    batch.close()


def test_other_spaces_are_flattened_and_numbered_from_zero():
    observations = spaces.Dict({"place": spaces.Discrete(3), "view": spaces.Box(0, 1, (2, 2))})
    for action_space, actions in (
        (spaces.Discrete(2, start=5), np.array([0, 1])),
        (spaces.Box(-1, 1, (2, 3)), np.zeros((2, 6))),
    ):
        options = {"observation_space": observations, "action_space": action_space}
        batch = make_batch("rmdp-tests/Odd-v0", 2, np.random.default_rng(0), options=options)
        assert batch.reset().shape == (2, 7)
        assert batch.step(actions).final_observation.shape == (2, 7)
        batch.close()


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Box(0, 1, (1,)), spaces.MultiBinary(3), "actions MultiBinary.* neither Box nor Discrete"),
        (spaces.Sequence(spaces.Discrete(3)), spaces.Discrete(2), "observations Sequence.* cannot be flattened"),
    ],
)
def test_unsupported_spaces_are_named(observation_space, action_space, message):
    options = {"observation_space": observation_space, "action_space": action_space}
    with pytest.raises(InputError, match=message):
        GymBatch("rmdp-tests/Odd-v0", 2, np.random.default_rng(0), options)


def test_unknown_environment_suggests_the_nearest():
    with pytest.raises(InputError, match="unknown environment 'CartPoel-v1': did you mean CartPole-v1"):
        make_batch("CartPoel-v1", 2, np.random.default_rng(0))
    with pytest.raises(InputError, match="import the module that registers it"):
        make_batch("no-such-thing", 2, np.random.default_rng(0))
    with pytest.raises(InputError, match="at least 1 copy"):
        make_batch("CartPole-v1", 0, np.random.default_rng(0))
