"""The walks against MO-Gymnasium's resource gathering with gold, gem and enemies taken off the map."""

import numpy as np
import pytest
from gt_core.errors import InputError
from gymnasium.wrappers import TimeLimit
from mo_gymnasium.envs.resource_gathering.resource_gathering import ResourceGathering as Published

from rmdp.envs.batch import Transition
from rmdp.envs.make import RESOURCE_GATHERING, make_batch
from rmdp.envs.resource_gathering import ResourceGatheringBatch
from rmdp.population import ResourceGathering

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")  # mo-gymnasium's spaces

UP, DOWN, LEFT, RIGHT = range(4)


def published():
    env = Published()
    env.map[env.map != "H"] = " "
    return TimeLimit(env, 40)


def test_walks_equal_the_published_dynamics():
    copies, steps = 8, 300
    batch, envs = ResourceGatheringBatch(copies), [published() for _ in range(copies)]
    # mostly away from home, so that some walks last until the time limit
    actions = np.random.default_rng(0).choice(4, size=(steps, copies), p=[0.4, 0.1, 0.25, 0.25])
    observation = batch.reset()
    visited = np.zeros((copies, 25), dtype=bool)
    visited[:, 22] = True
    np.testing.assert_array_equal(observation[:, :4], [env.reset()[0] for env in envs])
    ends = np.zeros(2, dtype=int)
    for action in actions:
        step = batch.step(action)
        for copy, env in enumerate(envs):
            theirs, _, terminated, truncated, _ = env.step(int(action[copy]))
            visited[copy, theirs[0] * 5 + theirs[1]] = True
            np.testing.assert_array_equal(step.final_observation[copy, :4], theirs)
            np.testing.assert_array_equal(step.final_observation[copy, 4:], visited[copy])
            assert (step.terminated[copy], step.truncated[copy]) == (terminated, truncated)
            ends += terminated, truncated
            if terminated or truncated:
                np.testing.assert_array_equal(step.observation[copy, :4], env.reset()[0])
                visited[copy] = np.arange(25) == 22
            np.testing.assert_array_equal(step.observation[copy, 4:], visited[copy])
    assert ends.min() >= 3


def walk(batch, moves):
    """The rewards of the owners of all cells along a walk of one copy."""
    users, rewards = ResourceGathering(np.arange(25)), []
    observation = batch.reset()
    for move in moves:
        action = np.array([move])
        step = batch.step(action)
        rewards.append(
            users.rewards(
                Transition(observation, action, step.final_observation, step.terminated, step.truncated, step.info)
            )[0]
        )
        observation = step.observation
    return np.array(rewards)


def test_walk_around_a_square_pays_its_four_owners_at_the_end_only():
    rewards = walk(ResourceGatheringBatch(1), [UP, RIGHT, DOWN, LEFT])
    assert not rewards[:3].any()
    np.testing.assert_allclose(rewards[3][[22, 17, 18, 23]], 0.96)
    assert np.count_nonzero(rewards[3]) == 4


def test_bump_into_the_wall_at_home_ends_the_walk():
    rewards = walk(ResourceGatheringBatch(1), [DOWN])
    np.testing.assert_allclose(rewards[0], 0.99 * (np.arange(25) == 22))


def test_walk_that_runs_out_of_time_pays_nobody():
    assert not walk(ResourceGatheringBatch(1), [UP] * 40).any()


def test_users_are_shuffled_but_all_there():
    users = ResourceGathering.shuffled(np.random.default_rng(0))
    assert users.n == 25
    assert sorted(users.cells.tolist()) == list(range(25))
    assert users.cells.tolist() != list(range(25))


def test_restored_walks_continue():
    actions = np.random.default_rng(0).integers(4, size=(30, 5))
    straight, resumed = ResourceGatheringBatch(5), make_batch(RESOURCE_GATHERING, 5, np.random.default_rng(0))
    straight.reset()
    for action in actions[:7]:
        last = straight.step(action)
    np.testing.assert_array_equal(resumed.restore(straight.state()), last.observation)
    for action in actions[7:]:
        for one, two in zip(straight.step(action)[:4], resumed.step(action)[:4], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("actions", [np.array([0, 4]), np.array([0]), np.array([-1, 0])])
def test_unusable_actions_are_named(actions):
    batch = ResourceGatheringBatch(2)
    batch.reset()
    with pytest.raises(InputError, match="expected 2 actions out of 0, 1, 2, 3"):
        batch.step(actions)
