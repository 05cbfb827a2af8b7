"""Constraint satisfaction by hand, and what must hold between its figures."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gt_core.constraints import ConstraintSatisfaction, constraint_satisfaction

quick = settings(derandomize=True, deadline=None, max_examples=100)
violations = arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e3, 1e3))


def test_satisfaction_by_hand() -> None:
    found = constraint_satisfaction([[-4.0, 0.0], [1.0, 3.0]], budget=2.0)
    assert found == ConstraintSatisfaction(
        largest=3.0,
        mean=1.0,  # (0 + 0 + 1 + 3) / 4: the slack of 4 repairs nothing
        share_violated=0.5,
        largest_over_budget=1.5,
        mean_over_budget=0.5,
        share_beyond_budget=0.25,
    )


def test_satisfaction_is_all_zero_when_every_constraint_holds() -> None:
    assert astuple(constraint_satisfaction([-1.0, 0.0], budget=0.1)) == (0.0,) * 6


def test_satisfaction_counts_the_budget_itself_as_kept() -> None:
    found = constraint_satisfaction([0.5, 0.5], budget=0.5)
    assert (found.share_violated, found.share_beyond_budget, found.largest_over_budget) == (1.0, 0.0, 1.0)


@quick
@given(violation=violations, budget=st.floats(1e-3, 1e3))
def test_satisfaction_figures_agree_with_each_other(violation: np.ndarray, budget: float) -> None:
    found = constraint_satisfaction(violation, budget)
    assert 0 <= found.mean <= found.largest * (1 + 1e-12)
    assert found.share_beyond_budget <= found.share_violated
    assert (found.share_violated > 0) == (found.largest > 0)
    assert (found.share_beyond_budget > 0) == (found.largest > budget)
    assert found.mean_over_budget * budget == pytest.approx(found.mean)


@quick
@given(violation=violations, budget=st.floats(1e-2, 1e2), scale=st.floats(1e-2, 1e2))
def test_satisfaction_against_the_budget_ignores_units(violation: np.ndarray, budget: float, scale: float) -> None:
    before, after = (
        constraint_satisfaction(violation, budget),
        constraint_satisfaction(scale * violation, scale * budget),
    )
    assert after.largest_over_budget == pytest.approx(before.largest_over_budget, rel=1e-9)
    assert after.mean_over_budget == pytest.approx(before.mean_over_budget, rel=1e-9)


def test_satisfaction_accepts_tensors() -> None:
    violation = torch.tensor([-1.0, 0.5], requires_grad=True)
    assert constraint_satisfaction(violation, 1.0) == constraint_satisfaction([-1.0, 0.5], 1.0)


def test_satisfaction_holds_plain_numbers() -> None:
    assert {type(figure) for figure in astuple(constraint_satisfaction(np.array([1.0]), 1.0))} == {float}


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
def test_satisfaction_refuses_a_budget_that_is_not_positive(budget: float) -> None:
    with pytest.raises(ValueError, match=f"budget must be positive and finite, got {budget}"):
        constraint_satisfaction([1.0], budget)


@pytest.mark.parametrize(
    ("violation", "message"), [([], "at least one"), ([1.0, math.nan], "violation holds nan in 1")]
)
def test_satisfaction_refuses_what_was_not_measured(violation: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        constraint_satisfaction(violation, 1.0)
