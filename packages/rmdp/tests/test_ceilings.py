"""Ceilings against the values computed for the paper's users and against exhaustive search."""

import itertools

import numpy as np
import pytest
from gt_core.errors import InputError

from rmdp.ceilings import closed_walks, resource_gathering_ceiling, velocity_ceiling
from rmdp.population import TargetVelocity

# facility location on the targets of seed 0, and the mean over seeds 0..9; equal for the four robots
VELOCITY = {1: (9.49, 9.49), 2: (17.17, 17.48), 5: (36.46, 37.36), 10: (58.84, 61.15), 50: (97.00, 96.62)}


@pytest.mark.parametrize("k", VELOCITY)
def test_velocity_ceiling_of_the_papers_users(k):
    users = [TargetVelocity.paper("HalfCheetah-v4", 100, seed) for seed in range(10)]
    ceilings = [velocity_ceiling(each.targets, each.width, k) for each in users]
    np.testing.assert_allclose([ceilings[0], np.mean(ceilings)], VELOCITY[k], atol=0.005)


def test_velocity_ceiling_is_the_same_for_every_robot():
    users = [TargetVelocity.paper(robot, 100, 0) for robot in ("HalfCheetah-v4", "Hopper-v4", "Ant-v5")]
    np.testing.assert_allclose([velocity_ceiling(each.targets, each.width, 5) for each in users], 36.46, atol=0.005)


def test_velocity_ceiling_equals_a_search_over_a_grid_of_speeds():
    users = TargetVelocity.uniform(9, 0.0, 1.0, np.random.default_rng(1))
    users = TargetVelocity(users.targets, width=0.3)
    speeds = np.linspace(0, 1, 201)
    served = np.clip(1 - np.abs(speeds[:, None] - users.targets) / users.width, 0, 1)
    searched = max(served[list(pair)].max(axis=0).mean() for pair in itertools.combinations(range(201), 2))
    exact = velocity_ceiling(users.targets, users.width, 2)
    assert 100 * searched <= exact + 1e-9
    assert exact == pytest.approx(100 * searched, abs=1.0)


def test_velocity_ceiling_with_a_policy_per_user_is_perfect():
    users = TargetVelocity.paper("Ant-v4", 12, 3)
    assert velocity_ceiling(users.targets, users.width, 12) == pytest.approx(100.0)


# 1: the tour of all cells in 26 steps; 25: every cell out and back, home by the bump; 3, 5, 10 as published walks give
GATHERING = {1: 74.0, 2: 86.0, 3: 89.28, 5: 91.04, 10: 92.32, 25: 93.56}


@pytest.mark.parametrize("k", GATHERING)
def test_resource_gathering_ceiling(k):
    assert resource_gathering_ceiling(k, np.random.default_rng(0)) == pytest.approx(GATHERING[k], abs=1e-4)


def test_walks_are_possible_and_short():
    walks, home, everywhere = closed_walks(), 1 << 22, (1 << 25) - 1
    assert walks[home] == 1
    assert walks[everywhere] == 26
    assert walks[home | 1 << 17 | 1 << 18 | 1 << 23] == 4
    assert all(steps >= cells.bit_count() or cells == home for cells, steps in walks.items())
    assert all(steps % 2 == 0 for cells, steps in walks.items() if cells != home)


@pytest.mark.parametrize("k", [0, 26])
def test_budget_outside_the_number_of_users_is_named(k):
    with pytest.raises(InputError, match=f"k = {k}, n = 25"):
        resource_gathering_ceiling(k, np.random.default_rng(0))
