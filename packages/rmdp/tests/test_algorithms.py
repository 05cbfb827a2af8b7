"""The algorithms as a whole: the same seed, the same run; stopped and continued, the same run."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.errors import InputError
from gt_core.seeding import Streams

from rmdp.algorithms import ALGORITHMS
from rmdp.assignment import QTable, cluster_sizes, greedy_assignment, social_welfare
from rmdp.config import PRESETS, TrainConfig
from rmdp.evaluate import deterministic_returns, welfare_figures
from rmdp.representatives import Representatives, remember
from rmdp.rollout import by_representative
from rmdp.setup import build_ceiling, build_env, build_population
from rmdp.train import evaluate_model, snapshot

SMOKE = dataclasses.replace(PRESETS["smoke"], iterations=6, threads=1, hidden=(8, 8))
WALKS = dataclasses.replace(PRESETS["gathering"], k=3, iterations=12, warm_up=2, samples=512, threads=1)
POLE = dataclasses.replace(SMOKE, env="deep-sea-treasure-v0", n=6)
CONFIGS = {"robots": SMOKE, "walks": WALKS, "gymnasium": POLE}
OTHERS = {
    name: dataclasses.replace(
        SMOKE,
        algorithm=name,
        n=8,
        k={"one-for-all": 1, "one-each": 8}.get(name, 3),
        copies=4,
        samples=100,
        pretrain=0.3,
    )
    for name in ALGORITHMS
    if name != "em"
}
RUNS = CONFIGS | OTHERS
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")  # mo-gymnasium's spaces


@pytest.fixture(autouse=True)
def _registers_multi_objective_environments():
    import mo_gymnasium  # noqa: F401


def flat(state):
    """Tensors and numbers of a nested state by their path."""
    if isinstance(state, dict):
        return {f"{key}/{rest}": value for key, item in state.items() for rest, value in flat(item).items()}
    if isinstance(state, list | tuple):
        return flat(dict(enumerate(state)))
    return {"": state}


def assert_same(one, two):
    one, two = flat(one), flat(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name], name


def learner_of(config):
    return ALGORITHMS[config.algorithm](config, build_population(config))


@pytest.mark.parametrize(("name", "stop"), [*((name, 3) for name in RUNS), ("cluster", 1)])
def test_resumed_run_equals_the_straight_one_bit_for_bit(name, stop, tmp_path):
    straight, logs = learner_of(RUNS[name]), []
    for iteration in range(5):
        if iteration == stop:
            save_checkpoint(tmp_path / "half", straight.state_dict())
        logs.append(straight.iterate())
    resumed = learner_of(RUNS[name])
    resumed.load_state_dict(load_checkpoint(tmp_path / "half"))
    assert resumed.step == stop
    assert [resumed.iterate() for _ in range(5 - stop)] == logs[stop:]
    assert_same(resumed.state_dict(), straight.state_dict())
    assert sorted(set(straight.assignment.tolist())) == list(range(RUNS[name].k))


@pytest.mark.parametrize("name", ["robots", "gymnasium", "cluster"])
def test_what_is_collected_ahead_on_two_threads_changes_no_bit(name, tmp_path):
    alone, two = (learner_of(dataclasses.replace(RUNS[name], threads=threads)) for threads in (1, 2))
    for _ in range(3):
        assert alone.iterate() == two.iterate()
    assert two.representatives._ahead is not None
    assert_same(alone.state_dict(), two.state_dict())
    save_checkpoint(tmp_path / "half", two.state_dict())
    resumed = learner_of(RUNS[name])
    resumed.load_state_dict(load_checkpoint(tmp_path / "half"))
    for _ in range(3):
        assert alone.iterate() == two.iterate() == resumed.iterate()
    assert two.representatives._ahead is None  # nothing is collected that nobody learns from
    for other in (two, resumed):
        assert_same(other.state_dict(), alone.state_dict())


def test_same_seed_same_run_and_another_seed_another():
    one, two, other = learner_of(SMOKE), learner_of(SMOKE), learner_of(dataclasses.replace(SMOKE, seed=1))
    logs = [[run.iterate() for _ in range(2)] for run in (one, two, other)]
    assert logs[0] == logs[1] != logs[2]
    assert_same(one.state_dict(), two.state_dict())


def test_walks_are_learnt():
    learner = learner_of(dataclasses.replace(WALKS, iterations=25, samples=1024))
    first = learner.iterate()["train/welfare"]
    for _ in range(24):
        last = learner.iterate()["train/welfare"]
    assert last > 3 * first
    assert last > 0.4
    members = learner.representatives
    values = deterministic_returns(
        build_env(learner.config, 1, np.random.default_rng(0)), members.policies, members.moments, learner.population, 3
    )
    assert social_welfare(values, greedy_assignment(values, learner.assignment)) <= build_ceiling(
        learner.config, learner.population
    )


def test_clusters_are_of_equal_size_while_balanced():
    learner = learner_of(dataclasses.replace(WALKS, warm_up=0, balance_until=1.0))
    for _ in range(3):
        learner.iterate()
    assert sorted(cluster_sizes(learner.assignment, 3).tolist()) in ([7, 9, 9], [8, 8, 9])


@pytest.mark.parametrize("deadline", [True, False])
def test_nothing_is_expected_after_a_deadline_only(deadline):
    members = learner_of(dataclasses.replace(WALKS, deadline=deadline, copies=4)).representatives
    segment = members.collect()
    nothing = np.zeros((*segment.ended.shape, 25))
    targets = members._experience(segment, nothing, np.ones((3, 25))).value_target
    cut = by_representative(torch.as_tensor(segment.transition.truncated & ~segment.transition.terminated), 3)
    assert cut.any()
    assert (targets[cut].abs().max() < 1e-5) == deadline


@pytest.mark.parametrize(("k", "each"), [(1, 4096), (5, 3276), (25, 1024)])
def test_samples_are_spread_over_the_representatives(k, each):
    config = dataclasses.replace(PRESETS["gathering"], k=k)
    assert config.samples_each == each
    assert each <= config.segment * config.copies_each < each + config.copies_each
    assert dataclasses.replace(config, samples=77).samples_each == 77


def test_samples_are_sorted_by_representative():
    rows = torch.arange(2 * 6).view(2, 6, 1)  # two steps of three representatives with two copies each
    assert by_representative(rows, 3).squeeze(-1).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Pendulum-v1"])
def test_table_of_constant_rewards_is_their_sum_over_an_episode_in_every_iteration(name):
    config = dataclasses.replace(SMOKE, env=name, copies=7, samples=7 * 90)  # 90 steps divide neither time limit
    members = Representatives(config, 3, Streams(0))
    table = QTable.empty(config.k, 3)
    for _ in range(4):
        segment = members.collect()
        table = remember(table, np.ones((*segment.ended.shape, 3)), segment, 0.8)
        assert table.values == pytest.approx(members.env.horizon)


def test_cluster_shows_the_one_policy_until_users_are_clustered():
    config = OTHERS["cluster"]
    learner = learner_of(config)
    learner.iterate()
    early = snapshot(learner, config)
    assert (early.config.k, early.config.algorithm, early.assignment.max()) == (1, "one-for-all", 0)
    assert evaluate_model(early, episodes=1)["cluster_sizes"] == [8]
    assert early.policies is learner.alone.representatives.policies
    for _ in range(2):
        learner.iterate()
    assert snapshot(learner, config).config == config
    assert snapshot(learner, config).policies is learner.clusters.representatives.policies


def test_welfare_figures_by_hand():
    figures = welfare_figures(np.array([[4.0, 0.0, 2.0], [1.0, 6.0, 3.0]]), np.array([0, 1, 0]))
    assert figures["welfare"] == pytest.approx(4.0)
    assert figures["worst_user"] == 2.0
    assert figures["regret_mean"] == pytest.approx(1 / 3)
    assert figures["regret_max"] == 1.0
    assert figures["cluster_sizes"] == [2, 1]
    assert figures["quantile_0.5"] == 4.0
    assert figures["gini"] == pytest.approx(2 / 9)
    assert figures["nash"] == pytest.approx(48 ** (1 / 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 101}, "k = 101, n = 100"),
        ({"k": 0}, "k = 0, n = 100"),
        ({"env": "resource-gathering", "k": 26, "n": 25}, "k = 26, n = 25"),
        ({"env": "resource-gathering"}, "25 users, one per cell, got n = 100: use --n 25"),
        ({"n": 0, "k": 1}, "k = 1, n = 0"),
        ({"samples": -1}, "samples must be at least 0, got -1"),
        ({"warm_up": -1}, "warm_up must be at least 0, got -1"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"gamma": 1.5}, r"gamma must lie in \(0, 1\], got 1.5"),
        ({"memory": 1.0}, r"memory must lie in \[0, 1\), got 1.0"),
        ({"ease": 0.5}, "ease must be at least 1, got 0.5"),
        ({"ease_until": 0.0}, "ease_until must lie"),
        ({"balance_until": 2.0}, "balance_until must lie"),
        ({"algorithm": "one-for-all"}, "one-for-all has 1 policies, got k = 5: use --k 1"),
        ({"algorithm": "one-each"}, "one-each has 100 policies, got k = 5: use --k 100"),
        ({"algorithm": "cluster", "iterations": 1}, "cluster needs at least 2 iterations"),
        ({"pretrain": 1.0}, "pretrain must lie"),
        ({"assignment_rate": 0.0}, "assignment_rate must be positive"),
        ({"hidden": (64, 0)}, "at least 1 unit"),
    ],
)
def test_unusable_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**changes)


def test_environment_without_built_in_users_asks_for_a_factory():
    with pytest.raises(InputError, match="CartPole-v1 has no built-in users: give --users"):
        learner_of(dataclasses.replace(SMOKE, env="CartPole-v1"))


def test_environment_without_time_limit_is_named():
    gymnasium.register("rmdp-tests/Endless-v0", "gymnasium.envs.classic_control:PendulumEnv")
    try:
        with pytest.raises(InputError, match="rmdp-tests/Endless-v0 has no time limit"):
            build_env(dataclasses.replace(SMOKE, env="rmdp-tests/Endless-v0"), 1, np.random.default_rng(0))
    finally:
        del gymnasium.registry["rmdp-tests/Endless-v0"]


@pytest.mark.parametrize("name", ["robots", "walks"])
def test_learning_on_tensors_is_learning_on_arrays(name, monkeypatch):
    """What other devices do, done here: networks and updates on tensors instead of NumPy's arrays."""
    config = dataclasses.replace(CONFIGS[name], k=2)
    learner = ALGORITHMS["em"](config, build_population(config))
    found = [learner.iterate() for _ in range(3)]
    for module in ("adam", "backpropagation", "distributions", "learners", "policies", "ppo"):
        monkeypatch.setattr(f"rmdp.{module}.to_array", lambda tensor: tensor.detach())
    learner = ALGORITHMS["em"](config, build_population(config))
    assert isinstance(learner.representatives.collector._actors[0]._batch.output, torch.Tensor)
    for figures in found:
        assert learner.iterate() == pytest.approx(figures, rel=1e-3, abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["robots", "walks"])
def test_learning_on_a_gpu(name):
    config = dataclasses.replace(CONFIGS[name], k=2, device="cuda")
    learner = ALGORITHMS["em"](config, build_population(config))
    for _ in range(3):
        assert np.isfinite(list(learner.iterate().values())).all()
    assert all(parameter.is_cuda for parameter in learner.representatives.policies.parameters())
    assert evaluate_model(snapshot(learner, config))["welfare"] >= 0
