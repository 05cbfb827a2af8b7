"""The inner problem: which report gains a bidder most.

With the opponents' bids fixed, a mechanism offers bidder i a menu: every report buys one row of the allocation at one
price, and the gain of value v_i from report b_i is linear in v_i (the taxation principle),

    u_i(v_i; b_i) = sum_j g_ij(b_i, v_-i) v_ij - p_i(b_i, v_-i).

So one evaluation of K reports serves every value that faces the same opponents: S values and K reports cost S + K
evaluations and are compared in all S * (S + K) pairs, truthful reports of the others included. With a single bidder
nobody has opponents, and the whole batch shares one menu.

What a search returns is a lower bound on the true regret, since it maximises over fewer reports.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regretformer.auction import Mechanism
from regretformer.captured import captured_utility, utility_and_slope
from regretformer.networks.handwritten.build import is_written_out, profiles_at_once, report_utility
from regretformer.networks.network import AuctionNetwork
from regretformer.networks.shared import SharedNetwork

__all__ = ["ascend", "best_of_menu", "frozen", "grid", "stratified"]


def best_of_menu(values: Tensor, allocation: Tensor, payments: Tensor) -> tuple[Tensor, Tensor]:
    """The most profitable menu entry for each value.

    Args:
        values: [..., S, m].
        allocation: what each entry buys, [..., K, m].
        payments: its price, [..., K].

    Returns:
        Utility [..., S] and index of the entry [..., S].
    """
    gains = values @ allocation.transpose(-1, -2) - payments.unsqueeze(-2)
    best = gains.max(dim=-1)
    return best.values, best.indices


def grid(resolution: int, items: int) -> Tensor:
    """The points of a regular grid on the unit box, faces included, [resolution ** items, items]."""
    axis = torch.linspace(0, 1, resolution)
    return torch.cartesian_prod(*[axis] * items).reshape(-1, items)


def stratified(shape: tuple[int, ...], count: int, items: int, generator: torch.Generator) -> Tensor:
    """Random points of the unit box that leave no large gap, [*shape, count, items].

    As many cells as `count` allows with the same number along each axis hold one point each; the remaining points are
    uniform on the box.
    """
    cells = max(1, math.floor(count ** (1 / items) + 1e-9))
    points = torch.rand((*shape, count, items), generator=generator, device=generator.device)
    if cells > 1:
        corners = torch.cartesian_prod(*[torch.arange(cells, device=points.device)] * items).reshape(-1, items)
        points[..., : len(corners), :] = (points[..., : len(corners), :] + corners) / cells
    return points


def ascend(
    mechanism: Mechanism,
    profiles: Tensor,
    bidder: int,
    reports: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    steps: int,
    rate: float,
    decay: bool = True,
    best_iterate: bool = True,
) -> tuple[Tensor, Tensor]:
    """Improve reports by Adam on the deviating bidder's utility, projected on the support.

    Args:
        mechanism: differentiable in the bids; freeze its weights (`frozen`) to save a third of the work.
        profiles: true values of everybody, [B, n, m].
        bidder: who deviates.
        reports: where to start, [B, m].
        low: smallest report per item, [m].
        high: largest report per item, [m].
        steps: gradient steps.
        rate: learning rate, as a share of the support's width.
        decay: lower the rate to zero along a half cosine.
        best_iterate: return the best report seen rather than the last; the published search returns the last.

    Returns:
        Reports [B, m] and their utility for the bidder [B].
    """
    options: Any = {"steps": steps, "rate": rate, "decay": decay, "best_iterate": best_iterate}
    if isinstance(mechanism, SharedNetwork):
        own, rows = mechanism.team.own(len(profiles)), len(profiles)
        mine = ascend(mechanism.network, profiles[own], bidder, reports[own], low, high, **options)
        best, best_utility = (mechanism.team.gather(side, rows) for side in mine)
        return best, best_utility
    if len(profiles) > (size := _profiles_at_once(mechanism, profiles)):
        parts = zip(profiles.split(size), reports.split(size), strict=True)
        found = [ascend(mechanism, part, bidder, start, low, high, **options) for part, start in parts]
        best, best_utility = (torch.cat(side) for side in zip(*found, strict=True))
        return best, best_utility
    evaluate = _differentiable(mechanism, profiles, bidder)
    width = high - low
    current = reports.detach()
    best, best_utility = current, torch.full_like(current[:, 0], -torch.inf)
    first, second = torch.zeros_like(current), torch.zeros_like(current)
    for step in range(steps + 1):
        utility, slope = evaluate(current, differentiate=step < steps)
        improved = (utility > best_utility) | (not best_iterate)
        best = torch.where(improved.unsqueeze(-1), current, best)
        best_utility = torch.where(improved, utility, best_utility)
        if slope is None:  # the last step; or no gradient ever moves a report where outcomes are menus
            return best, best_utility
        gradient = width * slope
        if step == 0 and not gradient.any():  # outcomes are steps, as in known auctions: no report would ever move
            return best, best_utility
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        direction = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        scale = rate * (0.5 * (1 + math.cos(math.pi * step / steps)) if decay else 1.0)
        current = (current + scale * width * direction).clamp(low, high)
    raise AssertionError("unreachable: the last step returns")


def _profiles_at_once(mechanism: Mechanism, profiles: Tensor) -> int:
    if is_written_out(mechanism, profiles):
        return profiles_at_once(mechanism, profiles)
    return mechanism.profiles_at_once(profiles) if isinstance(mechanism, AuctionNetwork) else len(profiles)


class _Differentiable(Protocol):
    def __call__(self, reports: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
        """Utility [B] of reports [B, m], and its gradient [B, m] if it is asked for and there is one."""


def _differentiable(mechanism: Mechanism, profiles: Tensor, bidder: int) -> _Differentiable:
    """The utility of the bidder in profiles [B, n, m] as a function of its report."""
    if is_written_out(mechanism, profiles):
        return report_utility(mechanism, profiles, bidder)
    if isinstance(mechanism, AuctionNetwork) and profiles.is_cuda:
        captured = captured_utility(mechanism, profiles, bidder)
        if captured is not None:
            return captured
    return partial(utility_and_slope, mechanism, profiles, bidder)


@contextmanager
def frozen(mechanism: object) -> Iterator[None]:
    """Keep a network's weights out of the gradient inside the block; anything that is no network is left alone."""
    weights = list(mechanism.parameters()) if isinstance(mechanism, nn.Module) else []
    required = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, before in zip(weights, required, strict=True):
            weight.requires_grad_(before)
