"""The distribution F of one bidder's value for one item, with density f on a bounded support [low, high].

Myerson's auction needs F and f; sampling needs a map from uniform numbers to values, such as the quantile function
F^-1. An unbounded distribution is truncated to a stated support, F(v | low <= v <= high): choose `high` where little is
left above it to keep the distribution as it is. Values have the unit of money; computations are in float64.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gt_core.errors import InputError
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Marginal", "convolution", "from_cdf", "from_pdf", "from_torch", "interpolate", "mixture", "uniform"]

_KNOTS = 4097
_CELLS = 2**14
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Marginal:
    """A continuous distribution of one value; the functions accept float64 tensors of any shape."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    cdf: Callable[[Tensor], Tensor]
    """Probability of a value at most this large: 0 below the support and 1 above it."""
    pdf: Callable[[Tensor], Tensor]
    """Density: 0 outside the support."""
    draw: Callable[[Tensor], Tensor]
    """One value for each number in [0, 1); uniform numbers become values of this distribution."""
    breaks: tuple[float, ...] = ()
    """Values at which the density may jump."""


def uniform(low: float, high: float) -> Marginal:
    """The uniform distribution on [low, high].

    Raises:
        InputError: if the support is empty or infinite.
    """
    _require_support(low, high)
    width = high - low
    return _confined(low, high, lambda v: (v - low) / width, lambda v: torch.full_like(v, 1 / width))


def from_torch(distribution: Distribution, low: float = -math.inf, high: float = math.inf) -> Marginal:
    """A torch distribution, truncated to [low, high] where that is narrower than its own support.

    Sampling inverts the distribution function: by the distribution's own `icdf` or, where it has none (Beta, Gamma,
    StudentT), by the table of `from_pdf`.

    Raises:
        InputError: if it is discrete, a batch or of several dimensions, if the support is infinite on a side where no
            bound is given, or if the distribution has no mass between the bounds.
    """
    if distribution.batch_shape or distribution.event_shape:
        shape = tuple(distribution.batch_shape + distribution.event_shape)
        raise InputError(f"one bidder and item need one distribution; {distribution} has shape {shape}")
    support = distribution.support
    if support is None or support.is_discrete:
        raise InputError(f"{distribution} is discrete; valuations need a density")
    low = max(low, float(getattr(support, "lower_bound", -math.inf)))
    high = min(high, float(getattr(support, "upper_bound", math.inf)))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{distribution} reaches from {low} to {high}: state finite bounds with low=, high=")
    _require_support(low, high)
    edge = 1e-12 * (high - low)  # some distributions refuse their own limits

    def inside(values: Tensor) -> Tensor:
        return values.clamp(low + edge, high - edge)

    try:
        start, end = distribution.cdf(inside(torch.tensor([low, high], dtype=torch.float64))).tolist()
        distribution.icdf(torch.tensor([0.5], dtype=torch.float64))
    except NotImplementedError:
        return from_pdf(lambda v: distribution.log_prob(inside(v)).exp(), low, high)
    mass = end - start
    if not mass > 1e-9:
        raise InputError(f"{distribution} has no mass between {low} and {high}: widen the bounds")
    return _confined(
        low,
        high,
        lambda v: (distribution.cdf(inside(v)) - start) / mass,
        lambda v: distribution.log_prob(inside(v)).exp() / mass,
        lambda u: distribution.icdf(start + mass * u),
    )


def from_cdf(cdf: Callable[[Tensor], Tensor], pdf: Callable[[Tensor], Tensor], low: float, high: float) -> Marginal:
    """A distribution given by its cdf and pdf on [low, high]; its quantiles are interpolated between 4,097 points.

    Raises:
        InputError: if the support is empty or infinite, the cdf does not rise from 0 to 1 on it, or the pdf is negative
            or NaN.
    """
    _require_support(low, high)
    knots = torch.linspace(low, high, _KNOTS, dtype=torch.float64)
    shares, densities = cdf(knots), pdf(knots)
    ends = shares[0].item(), shares[-1].item()
    if not (abs(ends[0]) < _TOLERANCE and abs(ends[1] - 1) < _TOLERANCE and bool((shares.diff() >= -1e-12).all())):
        raise InputError(f"the cdf must rise from 0 at {low} to 1 at {high}; it goes from {ends[0]:g} to {ends[1]:g}")
    if not bool((densities >= 0).all()):
        raise InputError(f"the pdf must be at least 0 on [{low}, {high}], got {densities.min().item():g}")
    return _confined(low, high, cdf, pdf, lambda u: interpolate(u, shares.cummax(0).values, knots))


def from_pdf(pdf: Callable[[Tensor], Tensor], low: float, high: float) -> Marginal:
    """The distribution on [low, high] with a density proportional to `pdf`, which may be infinite at the ends.

    The density is integrated by a Gauss rule in 2^14 cells that narrow towards the ends; the cdf and its inverse are
    linear in each.

    Raises:
        InputError: if the support is empty or infinite, or the density has no finite positive integral.
    """
    _require_support(low, high)
    share = torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(4))
    inner = share[:-1].unsqueeze(-1) + (1 + nodes) / (2 * _CELLS)
    slopes = 6 * (high - low) * inner * (1 - inner) * weights / (2 * _CELLS)
    masses = (pdf(low + (high - low) * _smooth_step(inner)) * slopes).sum(-1)
    knots = low + (high - low) * _smooth_step(share)
    total = masses.sum().item()
    if not (0 < total < math.inf and bool((masses >= 0).all())):
        raise InputError(f"the density must be at least 0 with a finite positive integral, got {total:g}")
    shares = torch.cat([torch.zeros(1, dtype=torch.float64), masses.cumsum(0) / total])
    return _confined(
        low,
        high,
        lambda v: interpolate(v, knots, shares),
        lambda v: pdf(v) / total,
        lambda u: interpolate(u, shares, knots),
    )


def mixture(weights: Sequence[float], parts: Sequence[Marginal]) -> Marginal:
    """Part k with probability weights[k]; sampling chooses a part and then its value from the same uniform number.

    Raises:
        InputError: if weights and parts differ in number, or the weights are negative or do not sum to 1.
    """
    if len(weights) != len(parts) or not parts:
        raise InputError(f"a mixture needs one weight per part, got {len(weights)} weights and {len(parts)} parts")
    if not (min(weights) >= 0 and abs(sum(weights) - 1) < _TOLERANCE):
        raise InputError(f"the weights of a mixture must be at least 0 and sum to 1, got {list(weights)}")
    pairs = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight > 0]
    starts = [0.0, *itertools.accumulate(weight for weight, _ in pairs)]

    def draw(numbers: Tensor) -> Tensor:
        values = torch.empty_like(numbers)
        for start, (weight, part) in zip(starts, pairs, strict=False):
            values = torch.where(numbers >= start, part.draw(((numbers - start) / weight).clamp(0, 1)), values)
        return values

    return Marginal(
        min(part.low for _, part in pairs),
        max(part.high for _, part in pairs),
        lambda v: torch.stack([weight * part.cdf(v) for weight, part in pairs]).sum(0),
        lambda v: torch.stack([weight * part.pdf(v) for weight, part in pairs]).sum(0),
        draw,
        tuple(sorted({value for _, part in pairs for value in (part.low, part.high, *part.breaks)})),
    )


def convolution(parts: Sequence[Marginal]) -> Marginal:
    """The distribution of the sum of independent values, on a lattice of 2^14 cells; its errors are about 1e-8."""
    if len(parts) == 1:
        return parts[0]
    low, high = sum(part.low for part in parts), sum(part.high for part in parts)
    step = (high - low) / _CELLS
    spectrum = np.ones(_CELLS + 1, dtype=complex)
    for part in parts:
        edges = part.low + step * (torch.arange(_CELLS + 2, dtype=torch.float64) - 0.5)
        spectrum = spectrum * np.fft.rfft(part.cdf(edges).diff().numpy(), 2 * _CELLS)
    masses = torch.from_numpy(np.fft.irfft(spectrum, 2 * _CELLS)[: _CELLS + 1].copy()).clamp_min(0)
    points = low + step * torch.arange(_CELLS + 1, dtype=torch.float64)
    shares = ((masses.cumsum(0) - masses / 2) / masses.sum()).clamp(0, 1)  # half of a point's mass lies below it
    shares[0], shares[-1] = 0.0, 1.0
    return _confined(
        low,
        high,
        lambda v: interpolate(v, points, shares),
        lambda v: interpolate(v, points, masses / step),
        lambda u: interpolate(u, shares, points),
    )


def interpolate(points: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """The function through (knots, heights), linear between knots and constant outside them.

    Args:
        points: where to evaluate, any shape.
        knots: [K], nondecreasing.
        heights: [K].
    """
    knots, heights = knots.to(points.device), heights.to(points.device)
    right = torch.searchsorted(knots, points.detach().contiguous(), right=True).clamp(1, len(knots) - 1)
    start, width = knots[right - 1], knots[right] - knots[right - 1]
    share = torch.where(width > 0, (points - start) / width.clamp_min(1e-300), 1.0).clamp(0, 1)
    return heights[right - 1] + share * (heights[right] - heights[right - 1])


def _smooth_step(share: Tensor) -> Tensor:
    """From 0 to 1 with slope 0 at both ends."""
    return share.square() * (3 - 2 * share)


def _require_support(low: float, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise InputError(f"the support needs finite low < high, got [{low}, {high}]")


def _confined(
    low: float,
    high: float,
    cdf: Callable[[Tensor], Tensor],
    pdf: Callable[[Tensor], Tensor],
    quantile: Callable[[Tensor], Tensor] | None = None,
) -> Marginal:
    """Functions that hold on the support only, extended to all values."""

    def share(values: Tensor) -> Tensor:
        inner = cdf(values.clamp(low, high)).clamp(0, 1)
        return torch.where(values <= low, 0.0, torch.where(values >= high, 1.0, inner))

    def density(values: Tensor) -> Tensor:
        return torch.where((values < low) | (values > high), 0.0, pdf(values.clamp(low, high)))

    def draw(numbers: Tensor) -> Tensor:
        drawn = low + (high - low) * numbers if quantile is None else quantile(numbers)
        return drawn.clamp(low, high)

    return Marginal(low, high, share, density, draw)
