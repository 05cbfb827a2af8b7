"""Searches for the report that gains a bidder most, each a lower bound on its regret.

- `grid`: every report on a regular grid over the support, faces included. With one bidder all values share one menu,
  so that tens of thousands of valuations are searched exhaustively in seconds; with several, each profile has its own.
- `item-grid`: the report of one item at a time moves over a grid and stays where it gains most, all items in turn,
  until nothing improves (arXiv:2601.13489). No gradient misleads it, and any number of items is affordable.
- `strong`: many starts of a long projected ascent with decaying steps, the best iterate of all kept.
- `protocol`: the published validation, one uniform start, 1000 Adam steps of 0.1 without decay, the last iterate.
"""

import torch
from torch import Tensor

from regretformer.auction import Mechanism, replace_report, utilities
from regretformer.misreports import ascend, best_of_menu, grid
from regretformer.valuations import Valuations

__all__ = [
    "grid_misreports",
    "item_grid_misreports",
    "menu_misreports",
    "protocol_misreports",
    "random_reports",
    "strong_misreports",
]

_ROWS = 2**16  # reports that are evaluated at once
_COMPARED = 2**24  # pairs of a value and a report that are compared at once


@torch.no_grad()
def menu_misreports(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    """The best of all reports of a single bidder on a grid: reports [B, m] and utility [B]."""
    reports = valuations.scale(grid(resolution, profiles.shape[-1]).to(profiles), 0)
    outcomes = [mechanism(part.unsqueeze(1)) for part in reports.split(_ROWS)]
    allocation = torch.cat([outcome.allocation[:, 0] for outcome in outcomes])
    payments = torch.cat([outcome.payments[:, 0] for outcome in outcomes])
    size = max(1, _COMPARED // len(reports))
    found = [best_of_menu(part[:, 0], allocation, payments) for part in profiles.split(size)]
    utility, index = (torch.cat(side) for side in zip(*found, strict=True))
    return reports[index], utility


@torch.no_grad()
def grid_misreports(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, bidder: int, resolution: int
) -> tuple[Tensor, Tensor]:
    """The best of all reports of one of several bidders on a grid, the others truthful: [B, m], and utility [B]."""
    points = valuations.scale(grid(resolution, profiles.shape[-1]).to(profiles), bidder)
    reports, best = profiles[:, bidder], torch.full_like(profiles[:, bidder, 0], -torch.inf)
    for part in points.split(_ROWS):
        tried = part.expand(len(profiles), -1, -1)
        utility, index = _report_utilities(mechanism, profiles, bidder, tried).max(dim=1)
        reports = torch.where((utility > best).unsqueeze(-1), part[index], reports)
        best = torch.maximum(best, utility)
    return reports, best


@torch.no_grad()
def item_grid_misreports(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, bidder: int, resolution: int, passes: int
) -> tuple[Tensor, Tensor]:
    """Start from the truth and, item by item, take the level that gains most: reports [B, m] and utility [B].

    A pass is over all items. A profile that a pass does not improve will not be improved by another, so only the
    others go on.
    """
    levels = valuations.scale(torch.linspace(0, 1, resolution).to(profiles).unsqueeze(1), bidder)  # [K, m]
    reports = profiles[:, bidder].clone()
    best = _report_utilities(mechanism, profiles, bidder, reports.unsqueeze(1))[:, 0]
    going = torch.arange(len(profiles), device=profiles.device)
    for _ in range(passes):
        before = best[going]
        for item in range(profiles.shape[-1]):
            tried = reports[going].unsqueeze(1).repeat(1, resolution, 1)
            tried[:, :, item] = levels[:, item]
            utility, level = _report_utilities(mechanism, profiles[going], bidder, tried).max(dim=1)
            gained = utility > best[going]
            best[going[gained]] = utility[gained]
            reports[going[gained], item] = levels[level[gained], item]
        going = going[best[going] > before]
        if len(going) == 0:
            break
    return reports, best


def _report_utilities(mechanism: Mechanism, profiles: Tensor, bidder: int, reports: Tensor) -> Tensor:
    """Utility of a bidder in each profile [B, n, m] from each of its reports [B, K, m], [B, K]."""
    tried = reports.shape[1]
    found = []
    for part, told in zip(profiles.split(max(1, _ROWS // tried)), reports.split(max(1, _ROWS // tried)), strict=True):
        repeated = part.repeat_interleave(tried, dim=0)
        outcome = mechanism(replace_report(repeated, bidder, told.flatten(0, 1)))
        found.append(utilities(repeated, outcome)[:, bidder].view(-1, tried))
    return torch.cat(found)


def strong_misreports(
    mechanism: Mechanism,
    valuations: Valuations,
    profiles: Tensor,
    bidder: int,
    starts: int,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The best over ascents from the truth, shaded, lowest, middling and random reports: reports [B, m], utility [B].

    All starts ascend in one batch, which serves small networks better than one after the other.
    """
    own, low, high = profiles[:, bidder], valuations.low[bidder], valuations.high[bidder]
    fixed = [own, low + 0.8 * (own - low), low.expand_as(own), ((low + high) / 2).expand_as(own)][:starts]
    drawn = [random_reports(valuations, len(own), bidder, generator) for _ in range(starts - len(fixed))]
    repeated = profiles.repeat(starts, 1, 1)
    reports, utility = ascend(
        mechanism, repeated, bidder, torch.cat([*fixed, *drawn]), low, high, steps=steps, rate=0.05
    )
    best = utility.view(starts, -1).max(dim=0)
    return reports.view(starts, *own.shape)[best.indices, torch.arange(len(own), device=own.device)], best.values


def protocol_misreports(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, bidder: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the published validation finds: reports [B, m] and utility [B]."""
    start = random_reports(valuations, len(profiles), bidder, generator)
    low, high = valuations.low[bidder], valuations.high[bidder]
    return ascend(mechanism, profiles, bidder, start, low, high, steps=1000, rate=0.1, decay=False, best_iterate=False)


def random_reports(valuations: Valuations, count: int, bidder: int, generator: torch.Generator) -> Tensor:
    """Reports that are uniform on the bidder's box, however its values are distributed, [count, m]."""
    unit = torch.rand((count, valuations.setting.items), generator=generator, device=generator.device)
    return valuations.scale(unit, bidder)
