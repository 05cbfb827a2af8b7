"""Coalitions as bit masks, their probabilities, and commitment locks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mediated_marl.coalitions import (
    TooLargeError,
    coalition_members,
    coalition_number,
    coalition_probabilities,
    others_poisson_binomial,
    poisson_binomial,
    toggled,
)
from mediated_marl.commitment import BARRED, checked_window, may_act, may_commit, next_locks


def test_coalition_number_inverts_members():
    members = coalition_members(5)
    assert members.shape == (32, 5)
    assert torch.equal(coalition_number(members), torch.arange(32))
    assert members[0b01101].tolist() == [True, False, True, True, False]


def test_coalition_toggled_changes_one_member():
    assert toggled(torch.tensor([0b000, 0b101]), 3).tolist() == [[1, 2, 4], [0b100, 0b111, 0b001]]


def test_coalition_enumeration_refuses_too_many_agents():
    with pytest.raises(TooLargeError, match="21 agents form 2"):
        coalition_members(21)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_poisson_binomial_equals_enumeration(probabilities):
    commit = torch.tensor(probabilities, dtype=torch.float64)
    members = coalition_members(len(probabilities))
    by_coalition = coalition_probabilities(commit)
    by_size = torch.zeros(len(probabilities) + 1, dtype=torch.float64)
    by_size.index_add_(0, members.sum(-1), by_coalition)
    assert torch.allclose(poisson_binomial(commit), by_size, atol=1e-12)
    assert float(by_coalition.sum()) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.9, 1.0]), min_size=2, max_size=6))
def test_others_poisson_binomial_leaves_one_out(probabilities):
    commit = torch.tensor(probabilities, dtype=torch.float64)
    for agent, law in enumerate(others_poisson_binomial(commit)):
        rest = torch.cat([commit[:agent], commit[agent + 1 :]])
        assert torch.allclose(law, poisson_binomial(rest), atol=1e-12)


def test_poisson_binomial_is_binomial_for_equal_probabilities():
    law = poisson_binomial(torch.full((2, 300), 0.3, dtype=torch.float64))
    binomial = torch.distributions.Binomial(300, torch.tensor(0.3, dtype=torch.float64))
    expected = binomial.log_prob(torch.arange(301.0, dtype=torch.float64)).exp()
    assert torch.allclose(law, expected.expand(2, 301), atol=1e-12)


def test_poisson_binomial_gradient():
    commit = torch.rand(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(others_poisson_binomial, (commit,))


def walk(choices, window, lock_out="window"):
    """Locks after each step for one agent that wants `choices` and gets what its lock allows."""
    lock, trace, committed = torch.zeros(1, dtype=torch.int64), [], []
    for wish in choices:
        joins = bool(may_commit(lock)) and (bool(wish) or not bool(may_act(lock)))
        committed.append(joins)
        lock = next_locks(lock, torch.tensor([joins]), window, lock_out)
        trace.append(int(lock))
    return trace, committed


def test_lock_window_one_leaves_everyone_free():
    assert walk([1, 0, 1], 1) == ([0, 0, 0], [True, False, True])


def test_lock_window_three_binds_two_more_steps():
    assert walk([1, 0, 0, 0, 1, 1, 1], 3) == ([2, 1, 0, -2, -1, 0, 2], [True] * 3 + [False] * 3 + [True])


def test_lock_episode_bars_for_good_but_commitment_ends():
    trace, committed = walk([1, 1, 0, 1, 1, 1], 2, "episode")
    assert committed == [True, True, False, False, False, False]
    assert trace[:2] == [1, 0]
    assert trace[2:] == [BARRED] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, "window"), "window is 0"), ((11, "window", 10), "only 10 steps"), ((1, "always"), "lock_out is 'always'")],
)
def test_window_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        checked_window(*arguments)
