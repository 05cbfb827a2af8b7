"""Auctions that are known exactly, as mechanisms: optima, and baselines that any learnt auction is compared with.

All are truthful, so their regret is zero. With one bidder every truthful auction is a menu of lotteries: the bidder
takes the entry with the largest utility. Optimal auctions of several items to several bidders are unknown.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from gt_core.errors import InputError
from torch import Tensor

from regretformer.auction import Mechanism, Outcome
from regretformer.misreports import best_of_menu
from regretformer.myerson import BundleMyerson, ItemwiseMyerson
from regretformer.valuations import IndependentValuations, UniformValuations, Valuations

__all__ = [
    "MenuAuction",
    "Optimum",
    "baselines",
    "known_optimum",
    "straight_jacket",
    "straight_jacket_prices",
    "straight_jacket_revenue",
    "vcg",
]

_LARGEST_STRAIGHT_JACKET = 6
_REVENUE_POINTS = 2**17


def vcg(bids: Tensor) -> Outcome:
    """The Vickrey-Clarke-Groves auction for additive values: each item by a second-price auction without reserve.

    Args:
        bids: [..., n, m]; of equal bids, that of the lowest index wins.

    Returns:
        Allocation [..., n, m] of zeros and ones, and payments [..., n].
    """
    order = bids.argsort(dim=-2, descending=True, stable=True)
    allocation = torch.zeros_like(bids).scatter(-2, order[..., :1, :], 1.0)
    if bids.shape[-2] == 1:
        return Outcome(allocation, torch.zeros_like(bids[..., 0]))
    second = bids.gather(-2, order[..., 1:2, :])
    return Outcome(allocation, (allocation * second).sum(-1))


class MenuAuction:
    """The single-bidder auction that offers a menu; buying nothing for nothing is always on it.

    Args:
        lotteries: probability of each item per entry, [K, m].
        prices: price of each entry, [K].
    """

    def __init__(self, lotteries: Sequence[Sequence[float]], prices: Sequence[float]) -> None:
        items = len(lotteries[0])
        self._lotteries = torch.tensor([[0.0] * items, *lotteries], dtype=torch.float64)
        self._prices = torch.tensor([0.0, *prices], dtype=torch.float64)

    def __call__(self, bids: Tensor) -> Outcome:
        """Allocation [B, 1, m] and payments [B, 1] for bids [B, 1, m]; ties go to the dearer entry."""
        lotteries = self._lotteries.to(bids)
        prices = self._prices.to(bids)
        order = prices.argsort(descending=True)  # max() returns the first of equals
        _, index = best_of_menu(bids, lotteries[order], prices[order])
        return Outcome(lotteries[order][index], prices[order][index])


@dataclasses.dataclass(frozen=True)
class Optimum:
    """A revenue-optimal auction and what it earns in expectation."""

    mechanism: Mechanism
    """The auction."""
    revenue: float
    """Its expected revenue."""
    source: str
    """Who proved it."""


def known_optimum(setting: str) -> Optimum | None:
    """The exact optimum of a named setting, or None where none is known."""
    if setting == "1x1":
        return Optimum(MenuAuction([[1.0]], [0.5]), 0.25, "Myerson 1981")
    if setting == "1x2":
        both = (4 - math.sqrt(2)) / 3
        menu = MenuAuction([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2 / 3, 2 / 3, both])
        return Optimum(menu, (12 + 2 * math.sqrt(2)) / 27, "Manelli and Vincent 2006")
    if setting == "1x2-unit":
        price = 1 / math.sqrt(3)  # the larger value exceeds p with probability 1 - p^2
        menu = MenuAuction([[1.0, 0.0], [0.0, 1.0]], [price, price])
        return Optimum(menu, 2 * price / 3, "Pavlov 2011")
    if setting == "416x47":
        menu = MenuAuction([[0.5, 1.0], [1.0, 1.0]], [8.0, 12.0])
        return Optimum(menu, 88 / 9, "Daskalakis, Deckelbaum and Tzamos 2017")
    if setting in {f"1x{items}" for items in range(3, _LARGEST_STRAIGHT_JACKET + 1)}:
        items = int(setting.removeprefix("1x"))
        source = "Giannakopoulos and Koutsoupias 2014"
        return Optimum(straight_jacket(items), straight_jacket_revenue(straight_jacket_prices(items)), source)
    return None


def baselines(valuations: Valuations) -> dict[str, Mechanism]:
    """The simple auctions that need no learning, by name: VCG, and Myerson's per item and for the bundle.

    Myerson's need the distribution of each value, so they are absent for recorded profiles and functions. All of them
    are for additive values: with unit demand there are none.
    """
    if valuations.setting.demand == "unit":
        return {}
    if not isinstance(valuations, UniformValuations | IndependentValuations):
        return {"vcg": vcg}
    marginals = valuations.marginals
    return {"vcg": vcg, "itemwise-myerson": ItemwiseMyerson(marginals), "bundle-myerson": BundleMyerson(marginals)}


def straight_jacket(items: int) -> MenuAuction:
    """The straight-jacket auction: one bidder with uniform values on [0, 1] buys any r items for the price p_r.

    Optimal for up to six items (Giannakopoulos and Koutsoupias 2014, Duality and optimality of auctions for uniform
    distributions).

    Raises:
        InputError: if there are fewer than one or more than six items.
    """
    prices = straight_jacket_prices(items)
    bundles = [bundle for bundle in itertools.product([0.0, 1.0], repeat=items) if any(bundle)]
    return MenuAuction(bundles, [prices[int(sum(bundle)) - 1] for bundle in bundles])


def straight_jacket_prices(items: int) -> list[float]:
    """The prices p_1, ..., p_m of the straight-jacket auction.

    By definition the price p_r makes the values of r items that would buy none of them, if only these were for sale,
    have the volume 1 - r / (m + 1). It is found by bisection.

    Raises:
        InputError: if there are fewer than one or more than six items.
    """
    if not 1 <= items <= _LARGEST_STRAIGHT_JACKET:
        raise InputError(f"straight-jacket auctions are for 1 to {_LARGEST_STRAIGHT_JACKET} items, got {items}")
    prices = [items / (items + 1)]
    for count in range(2, items + 1):
        low, high = prices[-1] / 2, prices[-1] + prices[0]
        for _ in range(48):
            middle = (low + high) / 2
            enough = _unsold_volume([*prices, middle]) > 1 - count / (items + 1)
            low, high = (low, middle) if enough else (middle, high)
        prices.append((low + high) / 2)
    return prices


def straight_jacket_revenue(prices: Sequence[float]) -> float:
    """What a single bidder with uniform values on [0, 1] pays in expectation for bundles priced by size, to 1e-6.

    The bidder's utility u is convex with the allocation as its gradient, so payments are v . grad u - u, and by the
    divergence theorem their mean over the unit cube is the sum over items of the mean of u where that item's value
    is 1, minus (m + 1) times the mean of u. Both means are over 2^17 points of a Sobol sequence.

    Args:
        prices: of 1, ..., m items.
    """
    items = len(prices)
    points = torch.quasirandom.SobolEngine(items).draw(_REVENUE_POINTS, dtype=torch.float64) + 0.5 / _REVENUE_POINTS
    faces = torch.cat([torch.ones_like(points[:, :1]), points[:, 1:]], dim=1)

    def mean_utility(values: Tensor) -> float:
        sums = values.sort(dim=1, descending=True).values.cumsum(1)
        return (sums - torch.tensor(prices, dtype=torch.float64)).amax(1).clamp_min(0).mean().item()

    return items * mean_utility(faces) - (items + 1) * mean_utility(points)


def _unsold_volume(prices: Sequence[float]) -> float:
    """Volume of the values x in [0, 1]^r of which no k sum to more than prices[k - 1]; prices[0] is at most 1.

    Sorted, x is a sum of steps y_k = x_(k) - x_(k+1) >= 0, of which the k largest values hold sum_l min(k, l) y_l. So
    the volume is r! times that of the polytope {y >= 0, sum_l min(k, l) y_l <= prices[k - 1]}, which is a sum over its
    vertices (Lawrence 1991, Polytope volume computation): with the tight constraints A y = b at a vertex y, any
    direction c in general position and A^T gamma = c, a vertex adds (c . y)^r / (r! |det A| prod gamma).
    """
    size = len(prices)
    counts = torch.arange(1, size + 1, dtype=torch.float64)
    sides = torch.cat([-torch.eye(size, dtype=torch.float64), torch.minimum(counts, counts.unsqueeze(-1))])
    limits = torch.cat([torch.zeros(size, dtype=torch.float64), torch.tensor(prices, dtype=torch.float64)])
    chosen = torch.tensor(list(itertools.combinations(range(2 * size), size)))
    chosen = chosen[torch.linalg.det(sides[chosen]).abs() > 0.5]  # determinants are whole numbers
    corners = torch.linalg.solve(sides[chosen], limits[chosen])
    inside = (corners @ sides.T <= limits + 1e-12).all(-1)
    tight, corners = sides[chosen[inside]], corners[inside]
    direction = counts.sqrt()
    gamma = torch.linalg.solve(tight.mT, direction.expand_as(corners))
    terms = (corners @ direction) ** size / (torch.linalg.det(tight).abs() * gamma.prod(-1))
    volume: float = terms.sum().item()
    return volume
