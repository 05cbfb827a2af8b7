"""Users and their rewards."""

import sys

import numpy as np
import pytest
from gt_core.errors import InputError

from rmdp.envs.batch import Transition
from rmdp.population import FunctionPopulation, LinearScalarisation, ResourceGathering, TargetVelocity


def transition(batch=(2,), terminated=False, **info):
    end = np.full(batch, terminated)
    return Transition(np.zeros((*batch, 3)), np.zeros((*batch, 1)), np.ones((*batch, 3)), end, ~end, info)


def test_velocity_rewards_by_hand():
    users = TargetVelocity(np.array([1.0, 1.1, 3.0]), width=0.2)
    rewards = users.rewards(transition(x_velocity=np.array([1.0, 2.95])))
    np.testing.assert_allclose(rewards, [[0.1, 0.05, 0.0], [0.0, 0.0, 0.075]])


def test_rewards_keep_leading_dimensions():
    users = TargetVelocity(np.linspace(0, 4, 7), width=0.2)
    assert users.rewards(transition((5, 4), x_velocity=np.zeros((5, 4)))).shape == (5, 4, 7)


@pytest.mark.parametrize(
    ("robot", "high"), [("HalfCheetah-v4", 4), ("Hopper-v5", 2.5), ("Walker2d-v4", 2.5), ("Ant-v4", 3)]
)
def test_paper_users_are_the_mersenne_twisters_draws(robot, high):
    users = TargetVelocity.paper(robot, 100, seed=0)
    # the first three numbers of MT19937 with seed 0, as printed in NumPy's documentation of random.rand
    np.testing.assert_allclose(users.targets[:3] / high, [0.5488135, 0.71518937, 0.60276338], atol=1e-8)
    assert users.width == high / 20
    assert users.n == 100


def test_uniform_users_come_from_the_generator():
    one, two = (TargetVelocity.uniform(50, 1.0, 3.0, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.targets, two.targets)
    assert one.targets.min() >= 1.0
    assert one.targets.max() < 3.0
    assert one.width == pytest.approx(0.1)


def test_scalarised_rewards_by_hand():
    users = LinearScalarisation(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]]))
    rewards = users.rewards(transition(vector_reward=np.array([[2.0, -4.0], [0.0, 1.0]])))
    np.testing.assert_allclose(rewards, [[2.0, -1.0, -8.0], [0.0, 0.5, 2.0]])


def test_simplex_weights_are_distributions():
    weights = LinearScalarisation.simplex(20, 3, np.random.default_rng(0)).weights
    assert weights.shape == (20, 3)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def write_factory(tmp_path, monkeypatch, body):
    (tmp_path / "my_users.py").write_text("import numpy as np\n" + body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_users", raising=False)


LIKES = """
def likes(n, generator):
    taste = generator.uniform(size=n)
    return lambda transition: transition.next_observation[..., :1] * taste
"""


def test_factory_of_ones_own(tmp_path, monkeypatch):
    write_factory(tmp_path, monkeypatch, LIKES)
    users = FunctionPopulation.from_factory("my_users:likes", 4, np.random.default_rng(0))
    expected = np.tile(np.random.default_rng(0).uniform(size=4), (2, 1))
    np.testing.assert_array_equal(users.rewards(transition()), expected)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_users", "package.module:name, got 'my_users'"),
        (":likes", "package.module:name"),
        ("no_such_module:likes", "no_such_module:likes cannot be imported"),
        ("my_users:hates", "my_users has no 'hates'; it has likes, nothing"),
        ("math:pi", "must be a function of .n, generator., it is float"),
        ("my_users:nothing", "must return a function of a transition, it returned NoneType"),
    ],
)
def test_unusable_factory_is_named(tmp_path, monkeypatch, path, message):
    write_factory(tmp_path, monkeypatch, LIKES + "\ndef nothing(n, generator):\n    return None\n")
    with pytest.raises(InputError, match=message):
        FunctionPopulation.from_factory(path, 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.zeros((2, 3)), r"mine:f returned rewards of shape \(2, 3\), expected \(2, 4\)"),
        (np.zeros(4), r"shape \(4,\), expected \(2, 4\)"),
        (np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]]), "not finite for user 2"),
    ],
)
def test_wrong_rewards_are_named(rewards, message):
    users = FunctionPopulation(lambda transition: rewards, 4, "mine:f")
    with pytest.raises(InputError, match=message):
        users.rewards(transition())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TargetVelocity.uniform(5, 4.0, 0.0, np.random.default_rng(0)), "low = 4.0, high = 0.0"),
        (lambda: TargetVelocity.uniform(0, 0.0, 4.0, np.random.default_rng(0)), "at least 1 user, got n = 0"),
        (lambda: TargetVelocity.paper("Swimmer-v4", 5, 0), "'Swimmer-v4': the paper has HalfCheetah, Hopper"),
        (lambda: TargetVelocity.paper("Ant-v4", 5, -1), "seed of the users must be 0 or more, got -1"),
        (lambda: TargetVelocity(np.array([1.0, np.nan]), 0.2), "finite velocity"),
        (lambda: TargetVelocity(np.array([1.0]), 0.0), "width must be a positive .* got 0"),
        (lambda: LinearScalarisation(np.zeros(3)), "weights must be a finite matrix"),
        (
            lambda: TargetVelocity(np.ones(2), 1.0).rewards(transition(speed=np.ones(2))),
            "'x_velocity', .* reports speed",
        ),
        (
            lambda: LinearScalarisation(np.ones((2, 3))).rewards(transition(vector_reward=np.ones((2, 2)))),
            "weigh 3 objectives, the environment has 2",
        ),
        (lambda: ResourceGathering(np.arange(3)).rewards(transition()), "need 'visited', .* reports nothing"),
    ],
)
def test_unusable_users_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
