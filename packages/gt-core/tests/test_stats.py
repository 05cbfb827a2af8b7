"""Summaries over seeds, against scipy and against values known by hand."""

import math
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gt_core.stats import Interval, bootstrap_interval, finite_array, interquartile_mean, summarise

quick = settings(derandomize=True, deadline=None, max_examples=100)
samples = arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e3, 1e3))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7.0], 7.0), ([1.0, 2.0, 6.0], 3.0), ([0.0, 1.0, 3.0, 100.0], 2.0), ([5.0, 1.0, 2.0, 3.0, -50.0], 2.0)],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == expected


@quick
@given(values=samples)
def test_interquartile_mean_equals_scipy(values: np.ndarray) -> None:
    assert interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-9)


def test_interquartile_mean_ignores_one_failed_seed() -> None:
    assert interquartile_mean([1.0, 1.0, 1.0, 1.0, -1e6]) == 1.0


def test_interquartile_mean_reduces_the_axis_named() -> None:
    values = generator().normal(size=(3, 8, 2))
    assert interquartile_mean(values, axis=1).shape == (3, 2)
    assert interquartile_mean(values, axis=1)[2, 1] == interquartile_mean(values[2, :, 1])
    assert interquartile_mean(values).shape == (3, 8)


def test_bootstrap_interval_equals_scipy() -> None:
    values = generator(1).gamma(2.0, size=10)
    expected = scipy.stats.bootstrap((values,), np.mean, method="BCa", rng=generator()).confidence_interval
    assert bootstrap_interval(values, generator(), statistic=np.mean) == pytest.approx(tuple(expected))


def test_bootstrap_interval_covers_the_mean_of_a_normal_as_often_as_it_says() -> None:
    """200 samples of 20: 90 % intervals cover in 180 +- 4.2; BCa's known shortfall at this size is 1 to 3 points."""
    draws, resamples = generator(2).normal(size=(200, 20)), generator(3)
    intervals = [bootstrap_interval(row, resamples, 0.9, np.mean, resamples=500) for row in draws]
    assert 165 <= sum(low <= 0 <= high for low, high in intervals) <= 193


def test_bootstrap_interval_is_deterministic_in_its_generator() -> None:
    values = generator(4).normal(size=9)
    assert bootstrap_interval(values, generator(5)) == bootstrap_interval(values, generator(5))
    assert bootstrap_interval(values, generator(5)) != bootstrap_interval(values, generator(6))


def test_bootstrap_interval_narrows_with_less_confidence() -> None:
    values = generator(7).normal(size=12)
    (low, high), (inner_low, inner_high) = (bootstrap_interval(values, generator(), share) for share in (0.95, 0.5))
    assert low < inner_low < inner_high < high


def test_bootstrap_interval_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval([2.0, 2.0, 2.0], generator()) == Interval(2.0, 2.0)


def test_bootstrap_interval_falls_back_to_percentiles() -> None:
    """Leaving one of these out never moves the maximum, so BCa divides 0 by 0; 11 % of resamples lack both ones."""
    values = [0.0] * 9 + [1.0, 1.0]
    with pytest.warns(scipy.stats.DegenerateDataWarning), np.errstate(invalid="ignore"):
        undefined = scipy.stats.bootstrap((values,), np.max, rng=generator()).confidence_interval
    assert np.isnan(undefined).all()
    assert bootstrap_interval(values, generator(), statistic=np.max) == Interval(0.0, 1.0)


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0], [3.0, 4.0]]])
def test_bootstrap_interval_refuses_too_few_values(values) -> None:
    with pytest.raises(ValueError, match="at least two; run more seeds"):
        bootstrap_interval(values, generator())


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, math.nan])
def test_bootstrap_interval_refuses_a_confidence_that_is_no_share(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"got {confidence}: 0.95 is usual"):
        bootstrap_interval([1.0, 2.0], generator(), confidence)


def test_summary_by_hand() -> None:
    summary = summarise([4.0, 1.0, 3.0, 2.0, 10.0], generator(), confidence=0.9)
    low, high = bootstrap_interval([4.0, 1.0, 3.0, 2.0, 10.0], generator(), 0.9)
    assert asdict(summary) == {
        "count": 5,
        "mean": 4.0,
        "standard_deviation": pytest.approx(math.sqrt(50 / 4)),
        "interquartile_mean": 3.0,
        "low": low,
        "high": high,
        "confidence": 0.9,
        "minimum": 1.0,
        "maximum": 10.0,
    }
    assert {type(figure) for figure in asdict(summary).values()} == {int, float}


@settings(quick, max_examples=25)
@given(values=arrays(np.float64, st.integers(2, 12), elements=st.floats(-1e3, 1e3)))
def test_summary_is_finite_and_ordered(values: np.ndarray) -> None:
    summary = summarise(values, generator())
    slack = 1e-9 * (1 + abs(summary.minimum) + abs(summary.maximum))
    assert summary.minimum - slack <= summary.low <= summary.high <= summary.maximum + slack
    assert summary.minimum - slack <= summary.interquartile_mean <= summary.maximum + slack


def test_finite_array_reads_lists_and_tensors() -> None:
    for values in ([1, 2], (1.0, 2.0), torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1, 2])):
        array = finite_array(values)
        assert array.dtype == np.float64
        assert array.tolist() == [1.0, 2.0]


def test_finite_array_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"welfare holds nan in 2 of 3 entries: leave failed runs out"):
        finite_array([1.0, math.nan, math.nan], "welfare")


def test_metrics_import_neither_scipy_nor_torch() -> None:
    imports = "import sys, gt_core.welfare, gt_core.constraints, gt_core.schedules, gt_core.stats"
    code = f"{imports}; print({{'scipy', 'torch'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
