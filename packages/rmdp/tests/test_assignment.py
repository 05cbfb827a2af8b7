"""The table of returns, the E-step and the welfare."""

import numpy as np
import pytest
from gt_core.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

from rmdp.assignment import (
    QTable,
    balanced_assignment,
    cluster_sizes,
    flips,
    greedy_assignment,
    regrets,
    social_welfare,
    update,
)


@st.composite
def problems(draw):
    """Random returns with many ties, and a present assignment."""
    n = draw(st.integers(1, 8))
    k = draw(st.integers(1, n))
    values = draw(st.lists(st.integers(0, 3), min_size=k * n, max_size=k * n))
    present = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return np.array(values, dtype=float).reshape(k, n), np.array(present)


@given(problems())
def test_every_user_gets_the_best_unless_needed_elsewhere(problem):
    values, present = problem
    k, n = values.shape
    chosen = greedy_assignment(values, present)
    assert (cluster_sizes(chosen, k) > 0).all()
    off = regrets(values, chosen) > 0
    assert (cluster_sizes(chosen, k)[chosen[off]] == 1).all()
    stays = values[present, np.arange(n)] == values.max(axis=0)
    assert ((chosen == present) | ~stays | (cluster_sizes(chosen, k)[chosen] == 1)).all()


@given(problems())
def test_assignment_is_a_fixed_point(problem):
    values, present = problem
    once = greedy_assignment(values, present)
    if not regrets(values, once).any():
        np.testing.assert_array_equal(greedy_assignment(values, once), once)


@given(st.integers(0, 2**32 - 1))
def test_empty_cluster_is_filled_by_the_cheapest_single_move(seed):
    values = np.random.default_rng(seed).uniform(size=(3, 5))
    values[1] -= 2  # nobody wants representative 1
    wanted = values.argmax(axis=0)
    moves = [np.where(np.arange(5) == user, 1, wanted) for user in range(5)]
    allowed = [
        social_welfare(values, move) for move in moves if len(set(move.tolist())) == len(set(wanted.tolist())) + 1
    ]
    if len(set(wanted.tolist())) == 2:
        assert social_welfare(values, greedy_assignment(values, np.zeros(5, dtype=int))) == max(allowed)


def test_no_user_is_pinned():
    # the published rule keeps the last user of every cluster: here both, for ever
    np.testing.assert_array_equal(greedy_assignment(np.array([[0.0, 5.0], [5.0, 0.0]]), np.array([0, 1])), [1, 0])


def test_ties_keep_the_present_representative_else_take_the_lowest():
    values = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(greedy_assignment(values, np.array([1, 2, 0, 0])), [1, 2, 1, 0])


def test_empty_cluster_takes_the_user_who_loses_least_then_the_worst_served():
    values = np.array([[9.0, 4.0, 6.0, 6.0], [8.0, 3.0, 2.0, 5.0]])
    np.testing.assert_array_equal(greedy_assignment(values, np.zeros(4, dtype=int)), [0, 1, 0, 0])


def test_full_cluster_sheds_the_user_who_loses_least():
    values = np.array([[9.0, 8.0, 7.0, 6.0], [5.0, 7.5, 1.0, 1.0], [0.0, 7.0, 6.5, 0.0]])
    present = np.zeros(4, dtype=int)
    np.testing.assert_array_equal(greedy_assignment(values, present, capacity=2), [0, 1, 2, 0])
    np.testing.assert_array_equal(greedy_assignment(values, present, capacity=3), [0, 1, 2, 0])  # 2 must not stay empty


@given(problems(), st.integers(0, 3))
def test_capacity_is_kept(problem, slack):
    values, present = problem
    k, n = values.shape
    capacity = -(-n // k) + slack
    sizes = cluster_sizes(greedy_assignment(values, present, capacity), k)
    assert sizes.min() > 0
    assert sizes.max() <= capacity


def test_q_table_step_by_hand():
    table = update(QTable.empty(2, 2), np.array([[4.0, 8.0], [1.0, 0.0]]), np.array([2, 0]), memory=0.5)
    np.testing.assert_allclose(table.values, [[2.0, 4.0], [0.0, 0.0]])  # the start at zero leaves no trace
    assert not table.is_complete
    table = update(table, np.array([[1.0, 0.0], [3.0, 2.0]]), np.array([1, 2]), memory=0.5)
    np.testing.assert_allclose(table.reward, [[3.0, 4.0], [3.5, 2.0]])
    np.testing.assert_allclose(table.episodes, [2.0, 2.0])
    np.testing.assert_allclose(table.values, [[1.5, 2.0], [1.75, 1.0]])
    assert table.is_complete


def test_welfare_regret_flips_and_sizes_by_hand():
    values, assignment = np.array([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]]), np.array([0, 0, 1])
    assert social_welfare(values, assignment) == pytest.approx(3.0)
    np.testing.assert_array_equal(regrets(values, assignment), [3.0, 0.0, 0.0])
    assert flips(assignment, np.array([1, 0, 0])) == 2
    np.testing.assert_array_equal(cluster_sizes(assignment, 4), [2, 1, 0, 0])


def test_balanced_assignment_is_even_and_shuffled_by_the_generator():
    np.testing.assert_array_equal(balanced_assignment(3, 7), [0, 1, 2, 0, 1, 2, 0])
    shuffled = balanced_assignment(3, 7, np.random.default_rng(0))
    np.testing.assert_array_equal(cluster_sizes(shuffled, 3), [3, 2, 2])
    assert shuffled.tolist() != [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balanced_assignment(4, 3), "k = 4, n = 3"),
        (lambda: balanced_assignment(0, 3), "k = 0, n = 3"),
        (lambda: greedy_assignment(np.zeros((3, 2)), np.zeros(2, dtype=int)), "k = 3, n = 2"),
        (lambda: greedy_assignment(np.zeros((2, 5)), np.zeros(5, dtype=int), 2), "at most 2 users each cannot serve 5"),
        (lambda: greedy_assignment(np.full((1, 2), np.nan), np.zeros(2, dtype=int)), "not finite"),
        (lambda: update(QTable.empty(1, 1), np.zeros((1, 1)), np.ones(1), 1.0), r"memory must be in \[0, 1\), got 1.0"),
        (
            lambda: update(QTable.empty(1, 1), np.full((1, 1), np.inf), np.ones(1), 0.5),
            "rewards of representative 0 are not finite",
        ),
    ],
)
def test_unusable_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
