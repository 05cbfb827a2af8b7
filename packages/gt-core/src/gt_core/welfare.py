"""Welfare: one number for the well-being of many, and how evenly it is spread.

Utilities have shape [..., individuals]; leading axes (seeds, iterations, episodes) are kept. All results are float64
arrays of the leading shape, of shape [] for one population. Utilities may come as arrays, lists or CPU tensors.

Three welfare functions run from blind to inequality to blind to all but the worst off, all in the unit of utility and
all equal to the common utility when everyone has the same, so that they compare across populations of any size:

    egalitarian (Rawls)  <=  Nash  <=  utilitarian (Bentham)
    min_i u_i            <=  (prod_i u_i)^(1/n)  <=  (1/n) sum_i u_i

Welfare is higher for better; the Gini index is 0 for equality and grows with inequality.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gt_core.stats import FloatArray, finite_array

__all__ = ["egalitarian", "gini", "nash", "quantiles", "utilitarian"]


def utilitarian(utilities: npt.ArrayLike) -> FloatArray:
    """Mean utility. The sum orders outcomes alike, but grows with the population.

    Args:
        utilities: shape [..., individuals].

    Raises:
        ValueError: if there is no individual or a utility is not finite, here and in every function below.
    """
    return np.asarray(finite_array(utilities, "utilities").mean(axis=-1))


def egalitarian(utilities: npt.ArrayLike) -> FloatArray:
    """The utility of the worst off (Rawls 1971).

    Args:
        utilities: shape [..., individuals].
    """
    return np.asarray(finite_array(utilities, "utilities").min(axis=-1))


def nash(utilities: npt.ArrayLike) -> FloatArray:
    """Nash welfare: the geometric mean of the utilities (Nash 1950; Kaneko and Nakamura 1979).

    It is exactly 0 as soon as one utility is 0. It has no meaning for negative utility, since two losses would multiply
    to a gain: subtract each individual's disagreement point, what it gets without agreement, first.

    Args:
        utilities: gains over the disagreement point, >= 0, shape [..., individuals].

    Raises:
        ValueError: if a utility is negative.
    """
    gains = _non_negative(utilities, "Nash welfare")
    with np.errstate(divide="ignore"):  # ln 0 = -inf is meant: it makes the product exactly 0
        return np.asarray(np.exp(np.log(gains).mean(axis=-1)))


def gini(utilities: npt.ArrayLike) -> FloatArray:
    """The Gini index: half the mean absolute difference of two individuals over the mean utility.

    Pairs include each individual with itself, so it runs from 0, all equal, to 1 - 1/n, one has all. A population in
    which everyone has 0 is equal: its index is 0.

    Args:
        utilities: non-negative, shape [..., individuals].

    Raises:
        ValueError: if a utility is negative, for then the index is no longer bounded by 1.
    """
    ordered = np.sort(_non_negative(utilities, "the Gini index"), axis=-1)
    count = ordered.shape[-1]
    # sum_ij |u_i - u_j| = 2 sum_k (2k - n - 1) u_(k) over utilities in rising order, k from 1.
    differences = (ordered * (2 * np.arange(1, count + 1) - count - 1)).sum(axis=-1)
    total = ordered.sum(axis=-1)
    return np.asarray(np.divide(differences, count * total, out=np.zeros_like(total), where=total > 0))


def quantiles(utilities: npt.ArrayLike, levels: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)) -> FloatArray:
    """Quantiles of utility over the individuals, by linear interpolation between order statistics.

    Args:
        utilities: shape [..., individuals].
        levels: shares of the population, each in [0, 1].

    Returns:
        Shape [..., levels].

    Raises:
        ValueError: if a level lies outside [0, 1].
    """
    if not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"levels must lie in [0, 1], got {list(levels)}: the first decile is 0.1, not 10")
    found = np.quantile(finite_array(utilities, "utilities"), levels, axis=-1)
    return np.moveaxis(found, 0, -1)


def _non_negative(utilities: npt.ArrayLike, index: str) -> FloatArray:
    array = finite_array(utilities, "utilities")
    lowest = array.min()
    if lowest < 0:
        raise ValueError(f"{index} needs utilities >= 0, got {lowest}: subtract the disagreement point first")
    return array
