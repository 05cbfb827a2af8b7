"""Myerson's optimal auction of one item (Myerson 1981, Optimal Auction Design).

A bidder whose value has distribution F and density f on [low, high] has the virtual value

    phi(v) = v - (1 - F(v)) / f(v).

Where phi falls, the distribution is irregular and phi is ironed: with q = 1 - F(v) the revenue curve R(q) = q v(q) is
replaced by its concave hull, and the ironed virtual value is the hull's slope, so it never falls. The item goes to the
bidder with the largest ironed virtual value that is at least 0, who pays the smallest value with which it would still
have won; ties go to the bidder with the lower index, which is truthful and costs no revenue. Expected revenue is the
expectation of the largest ironed virtual value, or 0 if none is positive.

Values lie on a table of some 4,097 knots with exact phi and linear interpolation between them. Prices are read off the
same table, so truthfulness does not depend on its accuracy.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regretformer.auction import Outcome
from regretformer.marginals import Marginal, convolution, interpolate

__all__ = ["BundleMyerson", "ItemwiseMyerson", "VirtualValue", "concave_hull", "virtual_value"]

_KNOTS = 4097
_LEVELS = 2**16


@dataclasses.dataclass(frozen=True)
class VirtualValue:
    """An ironed virtual value on a table, clamped to the table's ends outside it."""

    values: Tensor
    """Values of the bidder, increasing, [K], float64."""
    virtual: Tensor
    """Ironed virtual value of each, nondecreasing, [K], float64."""

    def __call__(self, values: Tensor) -> Tensor:
        """The ironed virtual value of each value, of the same shape."""
        return interpolate(values, self.values, self.virtual)

    def threshold(self, level: Tensor, *, strict: bool) -> Tensor:
        """The smallest value whose virtual value is at least `level`, or exceeds it if `strict`.

        Where no value does, the largest; there nobody asks for the price.
        """
        values, virtual = self.values.to(level.device), self.virtual.to(level.device)
        right = torch.searchsorted(virtual, level.contiguous(), right=strict).clamp(1, len(virtual) - 1)
        rise = virtual[right] - virtual[right - 1]
        share = torch.where(rise > 0, (level - virtual[right - 1]) / rise.clamp_min(1e-300), 0.0).clamp(0, 1)
        return values[right - 1] + share * (values[right] - values[right - 1])


def virtual_value(marginal: Marginal) -> VirtualValue:
    """The ironed virtual value of a distribution."""
    values = _knots(marginal)
    survival = 1 - marginal.cdf(values)
    virtual = torch.where(survival > 0, values - survival / marginal.pdf(values), values)
    virtual = virtual.clamp_min(-(marginal.high - marginal.low))  # minus infinity where the density vanishes
    hull = concave_hull(survival, survival * values)
    for start, end in itertools.pairwise(hull):
        if end > start + 1:
            rise = (survival[start] * values[start] - survival[end] * values[end]) / (survival[start] - survival[end])
            virtual[start : end + 1] = rise
    return VirtualValue(values, virtual.cummax(0).values)


def _knots(marginal: Marginal) -> Tensor:
    """Evenly spread values, and two on either side of each jump of the density, [K]."""
    width = marginal.high - marginal.low
    values = torch.linspace(marginal.low, marginal.high, _KNOTS, dtype=torch.float64)
    for value in marginal.breaks:
        if marginal.low < value < marginal.high:
            sides = torch.tensor([value - 1e-9 * width, value + 1e-9 * width], dtype=torch.float64)
            values = torch.cat([values[(values - value).abs() > 1e-8 * width], sides])
    return values.sort().values


def concave_hull(quantiles: Tensor, revenue: Tensor) -> list[int]:
    """Indices, increasing, of the points that span the concave hull of a revenue curve.

    Args:
        quantiles: probability of a sale q, falling as the price rises, [K].
        revenue: q times the price, [K]; among equal q the last point counts, where the price is the highest.
    """
    q, r = quantiles.tolist(), revenue.tolist()
    hull: list[int] = []
    for point in reversed(range(len(q))):
        if hull and q[point] <= q[hull[-1]]:
            continue
        while len(hull) > 1 and _is_under(q, r, hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull[::-1]


def _is_under(q: list[float], r: list[float], left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies under the line through the two others."""
    return (q[right] - q[left]) * (r[middle] - r[left]) < (q[middle] - q[left]) * (r[right] - r[left])


class ItemwiseMyerson:
    """Sells each item by its own optimal auction; optimal for one item, or among item-wise auctions for more.

    Args:
        marginals: the distribution of each bidder's value for each item, n lists of m. Bids outside a support count as
            its nearest end.
    """

    def __init__(self, marginals: Sequence[Sequence[Marginal]]) -> None:
        known = {id(entry): virtual_value(entry) for row in marginals for entry in row}
        self.marginals = marginals
        self.virtual_values = [[known[id(entry)] for entry in row] for row in marginals]
        """The ironed virtual value of each bidder for each item, n lists of m."""

    def __call__(self, bids: Tensor) -> Outcome:
        """Allocation [..., n, m] of zeros and ones, and payments [..., n]."""
        own = self._each(bids.detach().double(), lambda table, values: table(values))
        before, after = _best_before(own), _best_before(own.flip(-2)).flip(-2).clamp_min(0)
        wins = (own > before) & (own >= after)
        price = torch.maximum(
            self._each(before, lambda table, level: table.threshold(level, strict=True)),
            self._each(after, lambda table, level: table.threshold(level, strict=False)),
        )
        return Outcome(wins.to(bids), (wins * price).sum(-1).to(bids))

    @property
    def expected_revenue(self) -> float:
        """The auction's revenue if values follow the marginals: the integral over t of P(largest virtual value > t)."""
        return sum(
            _expected_best([row[item] for row in self.virtual_values], [row[item] for row in self.marginals])
            for item in range(len(self.marginals[0]))
        )

    def _each(self, numbers: Tensor, function: Callable[[VirtualValue, Tensor], Tensor]) -> Tensor:
        """The function of each bidder's and item's table and its numbers [..., n, m]; equal tables are called once."""
        places: dict[int, tuple[VirtualValue, list[int]]] = {}
        for column, table in enumerate(entry for row in self.virtual_values for entry in row):
            places.setdefault(id(table), (table, []))[1].append(column)
        flat = numbers.flatten(-2)
        result = torch.empty_like(flat)
        for table, columns in places.values():
            result[..., columns] = function(table, flat[..., columns])
        return result.reshape(numbers.shape)


class BundleMyerson:
    """Sells all items as one bundle by the optimal auction of the bundle.

    For bidders with the same regular distribution that is the second-price auction of the bundle with the monopoly
    reserve.

    Args:
        marginals: the distribution of each bidder's value for each item, n lists of m; the items' values must be
            independent of each other.
    """

    def __init__(self, marginals: Sequence[Sequence[Marginal]]) -> None:
        known = {tuple(map(id, row)): convolution(row) for row in marginals}
        self._auction = ItemwiseMyerson([[known[tuple(map(id, row))]] for row in marginals])
        self.expected_revenue = self._auction.expected_revenue
        """The auction's revenue if values follow the marginals."""

    @property
    def reserves(self) -> list[float]:
        """The lowest price of the bundle for each bidder."""
        zero = torch.zeros((), dtype=torch.float64)
        return [row[0].threshold(zero, strict=False).item() for row in self._auction.virtual_values]

    def __call__(self, bids: Tensor) -> Outcome:
        """Allocation [..., n, m] of zeros and ones, the same for all items, and payments [..., n]."""
        outcome = self._auction(bids.detach().double().sum(-1, keepdim=True))
        return Outcome(outcome.allocation.expand(bids.shape).to(bids), outcome.payments.to(bids))


def _best_before(virtual: Tensor) -> Tensor:
    """The largest virtual value among bidders of lower index, minus infinity for the first, [..., n, m]."""
    best = virtual.cummax(-2).values[..., :-1, :]
    return torch.cat([torch.full_like(virtual[..., :1, :], -torch.inf), best], dim=-2)


def _expected_best(tables: Sequence[VirtualValue], marginals: Sequence[Marginal]) -> float:
    """The expected largest virtual value or 0, by the midpoint rule over its distribution."""
    top = max(0.0, *(table.virtual[-1].item() for table in tables))
    levels = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) * (top / _LEVELS)
    below = [
        torch.where(levels < table.virtual[-1], marginal.cdf(table.threshold(levels, strict=True)), 1.0)
        for table, marginal in zip(tables, marginals, strict=True)
    ]
    return top * (1 - torch.stack(below).prod(0)).mean().item()
