"""The robots against Gymnasium's own environments of the same name."""

import dataclasses
import importlib
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from gymnasium.wrappers import TimeLimit

from rmdp.envs.make import make_batch
from rmdp.envs.mujoco import MujocoBatch
from rmdp.envs.physics import quieten
from rmdp.envs.robots import ROBOTS
from rmdp.policies import ObservationMoments, Policies
from rmdp.rollout import Collector

CLASSES = {"HalfCheetah": "half_cheetah", "Hopper": "hopper", "Walker2d": "walker2d", "Ant": "ant"}


def gymnasium_env(name, seed):
    """Gymnasium's environment without the deprecation notice of `gymnasium.make`, its generator seeded."""
    robot, version = name.split("-")
    module = importlib.import_module(f"gymnasium.envs.mujoco.{CLASSES[robot]}_{version}")
    quieten()
    env = TimeLimit(getattr(module, robot + "Env")(), 1000)
    env.unwrapped.np_random = np.random.default_rng(seed)
    return env


def gymnasium_trajectory(name, seed, actions):
    """Observations, velocities and ends of one copy that is reset whenever an episode ends."""
    env = gymnasium_env(name, seed)
    rows = [env.reset()[0]], [], [], [], []
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        rows[1].append(observation)
        for row, value in zip(rows[2:], (info["x_velocity"], terminated, truncated), strict=True):
            row.append(value)
        rows[0].append(env.reset()[0] if terminated or truncated else observation)
    env.close()
    return [np.array(row) for row in rows]


def batch_trajectory(batch, actions):
    """The same of all copies, time first."""
    rows = [batch.reset().copy()], [], [], [], []
    for action in actions:
        step = batch.step(action)
        rows[0].append(step.observation.copy())
        parts = step.final_observation, step.info["x_velocity"], step.terminated, step.truncated
        for row, value in zip(rows[1:], parts, strict=True):
            row.append(value.copy())
    batch.close()
    return [np.array(row) for row in rows]


def random_actions(steps, copies, size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, copies, size)).astype(np.float32)


@pytest.mark.parametrize("name", ROBOTS)
def test_exact_trajectories_equal_gymnasium_bit_for_bit(name):
    steps, copies = (1030 if name.startswith("HalfCheetah") else 250), 2
    batch = MujocoBatch(name, copies, [np.random.default_rng(seed) for seed in range(copies)], exact=True, threads=2)
    actions = random_actions(steps, copies, batch.actions.size)
    ours = batch_trajectory(batch, actions)
    for copy in range(copies):
        theirs = gymnasium_trajectory(name, copy, actions[:, copy])
        assert (theirs[3] | theirs[4]).any(), "the comparison must see a reset"
        for mine, gym in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine[:, copy], gym)


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v5", "Walker2d-v5", "Ant-v4"])
def test_native_pool_follows_gymnasium_closely(name):
    batch = MujocoBatch(name, 3, [np.random.default_rng(seed) for seed in range(3)], threads=2)
    actions = random_actions(15, 3, batch.actions.size)
    ours, theirs = batch_trajectory(batch, actions), gymnasium_trajectory(name, 0, actions[:, 0])
    np.testing.assert_allclose(ours[1][:, 0], theirs[1], atol=1e-9)
    # Gymnasium's Ant measures at the torso as the integrator last predicted it: up to 1 cm/s off where the step ends
    np.testing.assert_allclose(ours[2][:, 0], theirs[2], atol=2e-2 if name == "Ant-v4" else 1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_trajectories_do_not_depend_on_threads_and_repeat(exact):
    actions = random_actions(60, 6, 6)
    first, second, third = (
        batch_trajectory(MujocoBatch("Walker2d-v4", 6, np.random.default_rng(3), exact=exact, threads=threads), actions)
        for threads in (1, 3, 3)
    )
    for one, two, three in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(two, three)


@pytest.mark.parametrize(
    ("name", "exact"), [("Hopper-v4", False), ("Hopper-v4", True), ("Ant-v4", True), ("Ant-v5", True)]
)
def test_restored_batch_continues_bit_for_bit(name, exact):
    straight = MujocoBatch(name, 2, np.random.default_rng(0), exact=exact, threads=1)
    straight.reset()
    straight.elapsed[:] = 990, 0  # the time limit falls into the part that is repeated
    actions = random_actions(60, 2, straight.actions.size)
    for action in actions[:5]:
        straight.step(action)
    saved = straight.state()
    resumed = MujocoBatch(name, 2, np.random.default_rng(99), exact=exact, threads=1)
    now = resumed.restore(saved)
    np.testing.assert_array_equal(now, straight.restore(saved))
    for action in actions[5:]:
        one, two = straight.step(action), resumed.step(action)
        for left, right in zip(one[:4], two[:4], strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(one.info["x_velocity"], two.info["x_velocity"])


def test_time_limit_truncates_and_keeps_the_final_observation():
    batch = MujocoBatch("HalfCheetah-v5", 2, np.random.default_rng(0), threads=1)
    batch.reset()
    batch.elapsed[0] = 999
    step = batch.step(np.zeros((2, 6)))
    assert step.truncated.tolist() == [True, False]
    assert step.terminated.tolist() == [False, False]
    assert not np.array_equal(step.observation[0], step.final_observation[0])
    np.testing.assert_array_equal(step.observation[1], step.final_observation[1])
    assert batch.elapsed.tolist() == [0, 1]


def test_velocity_is_the_distance_over_the_step():
    batch = MujocoBatch("HalfCheetah-v4", 1, np.random.default_rng(0))
    batch.reset()
    before = batch.step(np.full((1, 6), 0.7)).info["x_position"]
    after = batch.step(np.full((1, 6), -0.7)).info
    np.testing.assert_allclose(after["x_velocity"], (after["x_position"] - before) / 0.05, atol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_diverged_copy_is_reset_counted_and_harmless(exact):
    batch = MujocoBatch("HalfCheetah-v4", 3, np.random.default_rng(0), exact=exact, threads=2)
    batch.reset()
    broken = batch.state()
    broken["physics"][1, 12] = 1e9  # far beyond any speed the solver survives
    last = batch.restore(broken).copy()
    step = batch.step(np.zeros((3, 6)))
    assert batch.diverged == 1
    assert step.truncated.tolist() == [False, True, False]
    assert not step.terminated.any()
    np.testing.assert_array_equal(step.final_observation[1], last[1])
    assert step.info["x_velocity"][1] == 0.0
    assert np.abs(step.observation).max() < 10
    assert np.isfinite(batch.step(np.zeros((3, 6))).observation).all()
    assert batch.diverged == 1


def test_narrower_healthy_heights_end_the_episode_earlier():
    batch = MujocoBatch("Ant-v4", 1, np.random.default_rng(0), healthy_height=(5.0, 6.0))
    batch.reset()
    assert batch.step(np.zeros((1, 8))).terminated.tolist() == [True]


def test_native_warnings_reach_neither_terminal_nor_working_directory(tmp_path):
    script = (
        "import numpy as np\nfrom rmdp.envs.mujoco import MujocoBatch\n"
        "for exact in (False, True):\n"
        "    batch = MujocoBatch('HalfCheetah-v4', 4, np.random.default_rng(0), exact=exact)\n"
        "    batch.reset(); state = batch.state(); state['physics'][1, 12] = 1e9; batch.restore(state)\n"
        "    batch.step(np.zeros((4, 6))); batch.close(); assert batch.diverged == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"copies": 0}, "at least 1 copy, got 0"),
        ({"threads": -1}, "threads must be 0 .* got -1"),
        ({"healthy_height": (1.0, 0.4)}, r"low < high, got \(1.0, 0.4\)"),
        ({"name": "Humanoid-v4"}, "'Humanoid-v4' is not stepped natively; choose one of HalfCheetah-v4"),
        ({"generator": [np.random.default_rng(0)]}, "2 copies need 2 generators"),
    ],
)
def test_unusable_arguments_are_named(arguments, message):
    usable = {"name": "Ant-v4", "copies": 2, "generator": np.random.default_rng(0)}
    with pytest.raises(InputError, match=message):
        MujocoBatch(**(usable | arguments))


def test_unusable_actions_are_named():
    batch = make_batch("Hopper-v4", 2, np.random.default_rng(0), threads=1)
    batch.reset()
    with pytest.raises(InputError, match=r"shape \(2, 3\), got \(3, 2\)"):
        batch.step(np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"the action of copy 1 is .*nan"):
        batch.step(np.array([[0, 0, 0], [0, np.nan, 0]]))


def test_missing_mujoco_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.rollout", None)
    with pytest.raises(InputError, match="pip install 'mujoco"):
        make_batch("Hopper-v4", 2, np.random.default_rng(0))


def test_action_bounds_and_sizes_are_gymnasiums():
    for name in ROBOTS:
        env, batch = gymnasium_env(name, 0), MujocoBatch(name, 1, np.random.default_rng(0), threads=1)
        assert isinstance(env.action_space, gymnasium.spaces.Box)
        np.testing.assert_array_equal(batch.actions.low, env.action_space.low)
        np.testing.assert_array_equal(batch.actions.high, env.action_space.high)
        assert (batch.observation_size,) == env.observation_space.shape
        env.close()


@pytest.mark.parametrize(("k", "each", "exact"), [(2, 7, False), (5, 3, False), (5, 3, True)])
def test_segment_does_not_depend_on_the_number_of_threads(k, each, exact):
    segments = []
    for threads in (1, 3):
        batch = MujocoBatch("Hopper-v4", k * each, np.random.default_rng(0), threads=threads, exact=exact)
        generator, moments = torch.Generator().manual_seed(0), ObservationMoments(batch.observation_size)
        nets = Policies(k, 11, batch.actions, hidden=(64, 64), trunk="own", sigma=1.0, generator=generator)
        start = batch.reset()
        moments.observe(start)
        segment = Collector(batch, nets, moments, k, threads).collect(start, 60, generator)
        assert segment.transition.terminated.any()  # so that copies were reset within lanes
        assert batch.elapsed.max() <= 60
        segments.append((dataclasses.asdict(segment.transition), segment[1:], batch.state()))
        batch.close()
    torch.testing.assert_close(*segments, rtol=0, atol=0, equal_nan=True)


def test_unusable_action_in_a_lane_is_named_by_its_copy():
    batch = MujocoBatch("Hopper-v4", 4, np.random.default_rng(0), threads=1)
    with pytest.raises(InputError, match=r"the action of copy 3 is .*nan"):
        batch.lane(np.array([1, 3]))(np.array([[0, 0, 0], [0, np.nan, 0]]))
