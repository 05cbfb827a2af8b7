"""Schedules at their ends, at points known by hand, and against the recursions they replace."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gt_core.schedules import constant, cosine, geometric, linear, piecewise_linear

quick = settings(derandomize=True, deadline=None, max_examples=100)
shares = st.floats(0, 1)
KNOTS = [(0.2, 1.0), (0.5, 4.0), (0.6, 2.0)]


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_constant_ignores_progress(progress: float) -> None:
    assert constant(progress, 3.0) == 3.0


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 2.0), (0.25, 1.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)])
def test_linear_by_hand(progress: float, expected: float) -> None:
    assert linear(progress, 2.0, 1.0, until=0.5) == expected


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.01), (1 / 3, 0.01 / math.sqrt(10)), (2 / 3, 0.001), (0.9, 0.001), (1.0, 0.001)]
)
def test_geometric_by_hand(progress: float, expected: float) -> None:
    assert geometric(progress, 0.01, 0.001, until=2 / 3) == pytest.approx(expected, rel=1e-14)


def test_geometric_equals_the_published_recursion() -> None:
    """R(t + 1) = max(R(t) (end / start)^(1.5 / T), end), Ivanov et al., arXiv:2202.13110."""
    steps, start, end = 3000, 0.01, 0.001
    budget = start
    for step in range(steps + 1):
        assert geometric(step / steps, start, end, until=2 / 3) == pytest.approx(budget, rel=1e-11)
        budget = max(budget * (end / start) ** (1.5 / steps), end)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.4, 1 + math.sqrt(0.5)), (0.6, 1.0), (1.0, 0.0)]
)
def test_cosine_after_warm_up_by_hand(progress: float, expected: float) -> None:
    assert cosine(progress, 2.0, 0.0, warm_up=0.2) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 1.0), (0.2, 1.0), (0.35, 2.5), (0.5, 4.0), (0.55, 3.0), (0.6, 2.0), (1.0, 2.0)]
)
def test_piecewise_linear_by_hand(progress: float, expected: float) -> None:
    assert piecewise_linear(progress, KNOTS) == pytest.approx(expected, abs=1e-12)


def test_piecewise_linear_with_one_knot_is_constant() -> None:
    assert {piecewise_linear(progress, [(0.5, 7.0)]) for progress in (0.0, 0.5, 1.0)} == {7.0}


@quick
@given(progress=shares, start=st.floats(1e-6, 1e6), end=st.floats(1e-6, 1e6), until=st.floats(0.01, 1))
def test_schedules_stay_between_their_ends_and_reach_the_last(
    progress: float, start: float, end: float, until: float
) -> None:
    low, high = min(start, end) * (1 - 1e-12), max(start, end) * (1 + 1e-12)
    for schedule in (linear, geometric):
        assert schedule(0.0, start, end, until) == start
        assert low <= schedule(progress, start, end, until) <= high
        assert schedule(max(progress, until), start, end, until) == end
    assert cosine(0.0, start, end) == start
    assert low <= cosine(progress, start, end) <= high
    assert cosine(1.0, start, end) == end


@quick
@given(one=shares, other=shares)
def test_schedules_are_monotone(one: float, other: float) -> None:
    earlier, later = min(one, other), max(one, other)
    for schedule in (linear, geometric, cosine):
        assert schedule(earlier, 1.0, 2.0) <= schedule(later, 1.0, 2.0) + 1e-15


@quick
@given(progress=shares, start=st.floats(-10, 10), end=st.floats(-10, 10))
def test_piecewise_linear_between_two_knots_is_linear(progress: float, start: float, end: float) -> None:
    value = piecewise_linear(progress, [(0.0, start), (1.0, end)])
    assert value == pytest.approx(linear(progress, start, end), abs=1e-12)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan, math.inf])
def test_schedules_refuse_progress_outside_the_run(progress: float) -> None:
    for schedule in (
        lambda share: constant(share, 1.0),
        lambda share: linear(share, 1.0, 2.0),
        lambda share: geometric(share, 1.0, 2.0),
        lambda share: cosine(share, 1.0, 2.0),
        lambda share: piecewise_linear(share, KNOTS),
    ):
        with pytest.raises(ValueError, match=rf"got {progress}: pass step / steps"):
            schedule(progress)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_geometric_refuses_ends_that_are_not_positive(start: float, end: float) -> None:
    with pytest.raises(ValueError, match=r"positive, finite ends.*linear\(\) reaches zero"):
        geometric(0.5, start, end)


@pytest.mark.parametrize("until", [0.0, 1.5, math.nan, 1000])
def test_schedules_refuse_an_until_outside_the_run(until: float) -> None:
    for schedule in (linear, geometric):
        with pytest.raises(ValueError, match="not a number of steps"):
            schedule(0.5, 1.0, 2.0, until)


@pytest.mark.parametrize("warm_up", [-0.1, 1.0, math.nan, 500])
def test_cosine_refuses_a_warm_up_outside_the_run(warm_up: float) -> None:
    with pytest.raises(ValueError, match="not a number of steps"):
        cosine(0.5, 1.0, 2.0, warm_up=warm_up)


@pytest.mark.parametrize(
    "knots",
    [
        [],
        [(0.5, 1.0), (0.5, 2.0)],
        [(0.6, 1.0), (0.5, 2.0)],
        [(-0.1, 1.0)],
        [(0.5, 1.0), (1.1, 2.0)],
        [(math.nan, 1.0)],
    ],
)
def test_piecewise_linear_refuses_knots_out_of_order(knots: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="rises strictly within"):
        piecewise_linear(0.5, knots)
