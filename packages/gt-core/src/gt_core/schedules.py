"""Schedules: a number as a pure function of progress.

Progress is the share of a run that is done, a float in [0, 1], usually step / steps. No schedule keeps state, so a
resumed run continues on its schedule by knowing its step alone. `until` is the progress at which the end value is
reached; it is held from there on, exactly, without rounding.

The budget of RegretFormer (Ivanov et al., arXiv:2202.13110) is `geometric(progress, 0.01, 0.001, until=2 / 3)`: their
update, a factor of (end / start)^(1.5 / steps) at every step with a floor at the end value, is that in closed form.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["constant", "cosine", "geometric", "linear", "piecewise_linear"]


def constant(progress: float, value: float) -> float:
    """The value, whatever the progress.

    Raises:
        ValueError: if progress lies outside [0, 1], here and in every schedule below.
    """
    _require_progress(progress)
    return value


def linear(progress: float, start: float, end: float, until: float = 1.0) -> float:
    """Equal differences in equal times: start + (end - start) progress / until.

    Raises:
        ValueError: if `until` lies outside (0, 1].
    """
    return _between(start, end, _share(progress, until))


def geometric(progress: float, start: float, end: float, until: float = 1.0) -> float:
    """Equal ratios in equal times: start (end / start)^(progress / until).

    Raises:
        ValueError: if `start` or `end` is not positive and finite, or `until` lies outside (0, 1].
    """
    if not (0 < start < math.inf and 0 < end < math.inf):
        raise ValueError(
            f"a geometric schedule needs positive, finite ends, got {start} and {end}: linear() reaches zero, or "
            "choose a small positive end"
        )
    done = _share(progress, until)
    return end if done == 1 else start * (end / start) ** done


def cosine(progress: float, start: float, end: float, warm_up: float = 0.0) -> float:
    """Half a cosine wave from `start` to `end`, after an optional linear rise from zero to `start`.

    Flat at both ends of the wave and steepest in its middle (Loshchilov and Hutter, arXiv:1608.03983, equation 5,
    without restarts).

    Args:
        progress: share of the run done, in [0, 1].
        start: the value at progress `warm_up`.
        end: the value at progress 1.
        warm_up: the share of the run spent rising, in [0, 1).

    Raises:
        ValueError: if `warm_up` lies outside [0, 1).
    """
    if not 0 <= warm_up < 1:
        raise ValueError(f"warm_up must lie in [0, 1), got {warm_up}: it is a share of the run, not a number of steps")
    _require_progress(progress)
    if progress < warm_up:
        return start * progress / warm_up
    wave = math.cos(math.pi * (progress - warm_up) / (1 - warm_up))
    return _between(start, end, 0.5 * (1 - wave))


def piecewise_linear(progress: float, knots: Sequence[tuple[float, float]]) -> float:
    """Straight lines between knots (progress, value), constant before the first and after the last.

    Raises:
        ValueError: if there is no knot, or their progress does not rise strictly within [0, 1].
    """
    _require_progress(progress)
    at = [position for position, _ in knots]
    rising = all(left < right for left, right in pairwise(at))
    if not (at and rising and at[0] >= 0 and at[-1] <= 1):
        raise ValueError(f"knots need progress that rises strictly within [0, 1], got {at}: give at least one")
    following = bisect_right(at, progress)
    if following == 0 or following == len(at):
        return knots[max(following - 1, 0)][1]
    (left, start), (right, end) = knots[following - 1 : following + 1]
    return _between(start, end, (progress - left) / (right - left))


def _between(start: float, end: float, share: float) -> float:
    """The point that divides the way by `share`; in this form both ends come out exactly."""
    return (1 - share) * start + share * end


def _share(progress: float, until: float) -> float:
    """The share of the way to `until` that is done, in [0, 1]."""
    if not 0 < until <= 1:
        raise ValueError(f"until must lie in (0, 1], got {until}: it is a share of the run, not a number of steps")
    _require_progress(progress)
    return min(progress / until, 1.0)


def _require_progress(progress: float) -> None:
    if not 0 <= progress <= 1:  # written so that NaN fails it
        raise ValueError(f"progress must lie in [0, 1], got {progress}: pass step / steps")
