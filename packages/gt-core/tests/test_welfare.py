"""Welfare of small populations by hand, and the inequalities that hold for all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gt_core.welfare import egalitarian, gini, nash, quantiles, utilitarian

quick = settings(derandomize=True, deadline=None, max_examples=100)
populations = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e6))
EVERY = [utilitarian, egalitarian, nash, gini, quantiles]


def test_welfare_by_hand() -> None:
    utilities = [1.0, 2.0, 4.0]
    assert utilitarian(utilities) == pytest.approx(7 / 3)
    assert egalitarian(utilities) == 1.0
    assert nash(utilities) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("utilities", "expected"),
    [
        ([5.0], 0.0),
        ([3.0, 3.0, 3.0], 0.0),
        ([0.0, 0.0, 0.0], 0.0),
        ([0.0, 0.0, 0.0, 8.0], 0.75),  # one has all: 1 - 1/n
        ([1.0, 3.0], 0.25),  # mean absolute difference (0 + 2 + 2 + 0) / 4 = 1, over twice the mean 2
        ([1.0, 2.0, 3.0, 4.0, 5.0], 4 / 15),
    ],
)
def test_gini_by_hand(utilities: list[float], expected: float) -> None:
    assert gini(utilities) == pytest.approx(expected, abs=1e-15)


@quick
@given(utilities=populations)
def test_gini_equals_its_definition_over_pairs(utilities: np.ndarray) -> None:
    mean = utilities.mean()
    pairs = np.abs(utilities[:, None] - utilities).mean()
    expected = pairs / (2 * mean) if mean > 0 else 0.0
    assert gini(utilities) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert -1e-12 <= gini(utilities) <= 1 - 1 / utilities.size + 1e-12


@quick
@given(utilities=populations, scale=st.floats(0.1, 100))
def test_gini_ignores_scale_and_order(utilities: np.ndarray, scale: float) -> None:
    assert gini(scale * utilities[::-1]) == pytest.approx(gini(utilities), abs=1e-9)


@quick
@given(utilities=populations)
def test_welfare_functions_are_ordered_by_their_care_for_the_worst_off(utilities: np.ndarray) -> None:
    slack = 1 + 1e-9
    assert egalitarian(utilities) <= nash(utilities) * slack
    assert nash(utilities) <= utilitarian(utilities) * slack


@quick
@given(utility=st.floats(1e-6, 1e6), count=st.integers(1, 20))
def test_welfare_of_equals_is_their_common_utility(utility: float, count: int) -> None:
    utilities = np.full(count, utility)
    for welfare in (utilitarian, egalitarian, nash):
        assert welfare(utilities) == pytest.approx(utility, rel=1e-12)
    assert gini(utilities) == pytest.approx(0.0, abs=1e-12)


def test_nash_is_exactly_zero_when_one_has_nothing() -> None:
    assert nash([0.0, 1e300, 1e300]) == 0.0


def test_nash_does_not_overflow_where_the_product_would() -> None:
    assert nash([1e200, 1e200]) == pytest.approx(1e200)


@pytest.mark.parametrize("index", [nash, gini])
def test_nash_and_gini_refuse_negative_utility(index) -> None:
    with pytest.raises(ValueError, match=r"needs utilities >= 0, got -0\.5: subtract the disagreement point"):
        index([[1.0, 2.0], [3.0, -0.5]])


def test_utilitarian_and_egalitarian_accept_negative_utility() -> None:
    assert utilitarian([-1.0, -3.0]) == -2.0
    assert egalitarian([-1.0, -3.0]) == -3.0


def test_quantiles_by_hand() -> None:
    assert quantiles([4.0, 0.0, 1.0, 3.0, 2.0]).tolist() == pytest.approx([0.4, 1.0, 2.0, 3.0, 3.6])
    assert quantiles([4.0, 0.0], levels=[0.0, 0.5, 1.0]).tolist() == [0.0, 2.0, 4.0]


def test_quantiles_refuse_percents() -> None:
    with pytest.raises(ValueError, match=r"got \[10\]: the first decile is 0.1"):
        quantiles([1.0, 2.0], levels=[10])


def test_welfare_keeps_leading_axes() -> None:
    batch = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    for welfare in (utilitarian, egalitarian, nash, gini):
        assert welfare(batch).shape == (2, 3)
        assert welfare(batch)[1, 2] == welfare(batch[1, 2])
        assert welfare(batch[0, 0]).shape == ()
    assert quantiles(batch, levels=[0.1, 0.9]).shape == (2, 3, 2)
    assert quantiles(batch)[1, 2].tolist() == quantiles(batch[1, 2]).tolist()


@pytest.mark.parametrize("welfare", EVERY)
def test_welfare_accepts_tensors_and_lists_alike(welfare) -> None:
    expected = welfare(np.array([1.0, 2.0, 5.0]))
    for utilities in ([1, 2, 5], torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 2.0, 5.0], requires_grad=True)):
        found = welfare(utilities)
        assert found.dtype == np.float64
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("welfare", EVERY)
def test_welfare_leaves_its_input_alone(welfare) -> None:
    utilities = np.array([3.0, 1.0, 2.0])
    welfare(utilities)
    assert utilities.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("welfare", EVERY)
@pytest.mark.parametrize(
    ("utilities", "message"),
    [
        ([], r"shape \(0,\): give at least one"),
        (3.0, r"shape \(\): give at least one"),
        ([1.0, math.nan], "utilities holds nan in 1 of 2 entries"),
        ([[1.0, math.inf]], "utilities holds inf"),
    ],
)
def test_welfare_refuses_what_is_not_a_population(welfare, utilities, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        welfare(utilities)
