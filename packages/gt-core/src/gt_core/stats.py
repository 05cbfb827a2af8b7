"""Few numbers from many: robust averages of the results of several seeds, and how far to trust them.

The interquartile mean discards the lowest and the highest quarter of the values and averages the rest. It moves less
with one lucky or failed seed than the mean does, and uses more of the values than the median does (Agarwal et al.,
NeurIPS 2021, arXiv:2108.13264). Its interval is a bootstrap interval: the values are redrawn with replacement, and the
interval spans what the statistic then does, corrected for bias and skew (BCa: Efron 1987). Over the three to ten seeds
that are usual such an interval is too narrow; `Summary` therefore carries the number of seeds beside it.

Inputs are anything numpy reads as numbers: arrays, lists, CPU tensors with or without gradient.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "FloatArray",
    "Interval",
    "Summary",
    "bootstrap_interval",
    "finite_array",
    "interquartile_mean",
    "summarise",
]

FloatArray = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval, in the unit of the values."""

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What several seeds say about one figure; every field but `count` and `confidence` is in its unit."""

    count: int
    """How many values were summarised."""
    mean: float
    """Their mean."""
    standard_deviation: float
    """Their sample standard deviation (n - 1 in the denominator)."""
    interquartile_mean: float
    """The mean of their middle half."""
    low: float
    """Lower end of the bootstrap interval of the interquartile mean."""
    high: float
    """Upper end of that interval."""
    confidence: float
    """The share of such intervals that should cover the true value."""
    minimum: float
    """The smallest value."""
    maximum: float
    """The largest value."""


def finite_array(values: npt.ArrayLike, name: str = "values") -> FloatArray:
    """The values as a float64 array, if it has a last axis to reduce and every entry is finite.

    Args:
        values: array, nested sequence or CPU tensor, shape [..., n] with n >= 1.
        name: what an error calls them.

    Raises:
        ValueError: if there is no value, or one is NaN or infinite.
    """
    detach = getattr(values, "detach", None)  # a tensor that requires gradients refuses to become an array
    array = np.asarray(values if detach is None else detach(), dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: give at least one value along a last axis")
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"{name} holds {array[~finite][0]} in {np.count_nonzero(~finite)} of {array.size} entries: "
            "leave failed runs out explicitly, and say so beside the result"
        )
    return array


def interquartile_mean(values: npt.ArrayLike, axis: int = -1) -> FloatArray:
    """The mean after floor(n / 4) values are cut from each end.

    Whole values are cut, never fractions of one, as `scipy.stats.trim_mean(values, 0.25)` does; below four values this
    is the mean.

    Args:
        values: shape [..., n] for the default axis.
        axis: the axis to average over.

    Returns:
        Shape [...].

    Raises:
        ValueError: as `finite_array` does.
    """
    ordered = np.sort(np.moveaxis(finite_array(values), axis, -1), axis=-1)
    count = ordered.shape[-1]
    cut = count // 4
    return np.asarray(ordered[..., cut : count - cut].mean(axis=-1))


def bootstrap_interval(
    values: npt.ArrayLike,
    generator: np.random.Generator,
    confidence: float = 0.95,
    statistic: Callable[..., FloatArray] = interquartile_mean,
    resamples: int = 9_999,
) -> Interval:
    """A bootstrap confidence interval of a statistic: BCa, or percentile where BCa is undefined.

    BCa is undefined if the statistic lies outside everything the resamples gave, or if leaving any one value out gives
    the same statistic; the percentile interval of the same resamples then stands in. Values that are all equal give an
    interval of width zero.

    Args:
        values: one value per seed, shape [n] with n >= 2.
        generator: source of the resamples; the interval is a function of its state.
        confidence: coverage aimed at, in (0, 1).
        statistic: called as statistic(sample, axis=-1).
        resamples: how many samples are redrawn.

    Raises:
        ValueError: if there are fewer than two values or more than one axis, a value is not finite, or the confidence
            lies outside (0, 1).
    """
    from scipy.stats import DegenerateDataWarning, bootstrap  # a second of import that most callers never need

    sample = finite_array(values)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"values has shape {sample.shape}: an interval needs one axis of at least two; run more seeds")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}: 0.95 is usual")
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (sample,),
            statistic,
            confidence_level=confidence,
            n_resamples=resamples,
            method="BCa",
            axis=-1,
            rng=generator,
        )
    low, high = result.confidence_interval
    if not np.isfinite([low, high]).all():
        tail = (1 - confidence) / 2
        low, high = np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
    return Interval(float(low), float(high))


def summarise(values: npt.ArrayLike, generator: np.random.Generator, confidence: float = 0.95) -> Summary:
    """Summarise one figure over seeds.

    Args:
        values: one value per seed, shape [n] with n >= 2.
        generator: source of the bootstrap's resamples.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: as `bootstrap_interval` does.
    """
    sample = finite_array(values)
    low, high = bootstrap_interval(sample, generator, confidence)
    return Summary(
        count=sample.size,
        mean=float(sample.mean()),
        standard_deviation=float(sample.std(ddof=1)),
        interquartile_mean=float(interquartile_mean(sample)),
        low=low,
        high=high,
        confidence=confidence,
        minimum=float(sample.min()),
        maximum=float(sample.max()),
    )
