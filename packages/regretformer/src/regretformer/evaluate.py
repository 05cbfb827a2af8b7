"""Evaluation of a mechanism: its revenue, and its regret measured honestly.

Whatever finds misreports finds a lower bound on the regret, so the search decides how true the figure is:

- `grid`: every report on a regular grid over the support, faces included (201 x 201 for two items). For one bidder all
  values share one menu, so tens of thousands of valuations are searched exhaustively in seconds.
- `strong`: many starts of a long projected ascent with decaying steps, the best iterate of all kept.
- `protocol`: the published validation, one uniform start, 1000 Adam steps of 0.1 without decay, the last iterate. It is
  reported beside the honest figure for comparison with the paper, never instead of it.

Regret is summed over bidders and set in relation to revenue, as the budget is. Intervals are 95 % normal intervals of
the mean; the ratio's treats revenue, known from far more profiles, as exact.
"""

import dataclasses
import math
from typing import Any

import torch
from gt_core.errors import InputError
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Mechanism, utilities
from regretformer.config import Attack
from regretformer.misreports import ascend, best_of_menu, frozen, grid
from regretformer.setting import Setting
from regretformer.valuations import Valuations

__all__ = ["EvaluationConfig", "evaluate", "measure_regret", "resolve_attack"]

_LARGEST_GRID_ITEMS = 2
_CHUNK = 8192
_MENU_CHUNK = 256
_ASCENT_CHUNK = 512
_LEAST_REVENUE = 1e-30  # regret over revenue is 0 for an auction that has neither, such as VCG with one bidder


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate."""

    attack: Attack
    """Search for misreports: grid, strong or protocol."""
    valuations: int
    """Fresh profiles on which regret is measured."""
    revenue_valuations: int = 1_000_000
    """Fresh profiles on which revenue is measured."""
    grid_resolution: int = 201
    """Grid points per item."""
    starts: int = 20
    """Starts of the strong attack per profile and bidder."""
    steps: int = 300
    """Steps of the strong attack per start."""
    seed: int = 0
    """Of the valuations and starts; training never draws from the same streams."""

    def __post_init__(self) -> None:
        for name in ("valuations", "revenue_valuations", "grid_resolution", "starts", "steps"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2, got {getattr(self, name)}")


def resolve_attack(attack: Attack, setting: Setting) -> Attack:
    """The strongest feasible attack for `auto`, else `attack` itself.

    Raises:
        InputError: if `grid` is asked for where it cannot be exhaustive.
    """
    feasible = setting.bidders == 1 and setting.items <= _LARGEST_GRID_ITEMS
    if attack == "grid" and not feasible:
        raise InputError(
            f"an exhaustive grid needs one bidder and at most {_LARGEST_GRID_ITEMS} items, not {setting.name}: "
            "use the attack strong"
        )
    return attack if attack != "auto" else "grid" if feasible else "strong"


def evaluate(mechanism: Mechanism, valuations: Valuations, config: EvaluationConfig) -> dict[str, Any]:
    """Revenue and regret of a mechanism, as flat named figures.

    Returns:
        `revenue` and `revenue_ci`; `regret_mean` (per bidder), `regret_sum`, `regret_sum_over_revenue` and its
        `..._ci`, `regret_max`, `regret_quantiles` (50, 90, 99, 99.9 %); `attack`, `n_valuations`,
        `n_revenue_valuations`.
    """
    streams = Streams(config.seed)
    with frozen(mechanism):
        revenue, revenue_se = measure_revenue(mechanism, valuations, config.revenue_valuations, streams)
        profiles = valuations.profiles(config.valuations, streams.torch("evaluation/profiles"))
        regret = measure_regret(mechanism, valuations, profiles, config, streams)
    total = regret.sum(-1)
    share = max(revenue, _LEAST_REVENUE)
    error = 1.96 * total.std().item() / math.sqrt(len(total))
    return {
        "revenue": revenue,
        "revenue_ci": [revenue - 1.96 * revenue_se, revenue + 1.96 * revenue_se],
        "regret_mean": regret.mean().item(),
        "regret_sum": total.mean().item(),
        "regret_sum_over_revenue": total.mean().item() / share,
        "regret_sum_over_revenue_ci": [(total.mean().item() + sign * error) / share for sign in (-1, 1)],
        "regret_max": regret.max().item(),
        "regret_quantiles": regret.flatten().quantile(torch.tensor([0.5, 0.9, 0.99, 0.999])).tolist(),
        "attack": config.attack,
        "n_valuations": config.valuations,
        "n_revenue_valuations": config.revenue_valuations,
    }


@torch.no_grad()
def measure_revenue(mechanism: Mechanism, valuations: Valuations, count: int, streams: Streams) -> tuple[float, float]:
    """Mean revenue over `count` fresh truthful profiles, and its standard error."""
    generator = streams.torch("evaluation/revenue")
    sizes = [_CHUNK] * (count // _CHUNK) + [count % _CHUNK]
    payments = torch.cat([mechanism(valuations.profiles(size, generator)).payments.sum(-1) for size in sizes if size])
    return payments.mean().item(), payments.std().item() / math.sqrt(count)


def measure_regret(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, config: EvaluationConfig, streams: Streams
) -> Tensor:
    """Regret of each bidder at each profile, [B, n], by the attack of `config`."""
    if config.attack == "grid":
        return grid_regret(mechanism, valuations, profiles, config.grid_resolution)
    generator = streams.torch(f"evaluation/{config.attack}")

    def search(part: Tensor, bidder: int) -> Tensor:
        if config.attack == "protocol":
            return protocol_misreports(mechanism, valuations, part, bidder, generator)[1]
        return strong_misreports(mechanism, valuations, part, bidder, config.starts, config.steps, generator)[1]

    with torch.no_grad():
        truthful = utilities(profiles, mechanism(profiles))
    parts = profiles.split(_ASCENT_CHUNK)
    found = [torch.cat([search(part, bidder) for part in parts]) for bidder in range(profiles.shape[1])]
    return (torch.stack(found, dim=1) - truthful).clamp_min(0)


@torch.no_grad()
def grid_regret(mechanism: Mechanism, valuations: Valuations, profiles: Tensor, resolution: int) -> Tensor:
    """Regret of a single bidder against every report on a grid, [B, 1]."""
    reports = valuations.scale(grid(resolution, profiles.shape[-1]).to(profiles), 0)
    outcomes = [mechanism(part.unsqueeze(1)) for part in reports.split(_CHUNK)]
    allocation = torch.cat([outcome.allocation[:, 0] for outcome in outcomes])
    payments = torch.cat([outcome.payments[:, 0] for outcome in outcomes])
    best = torch.cat([best_of_menu(part[:, 0], allocation, payments)[0] for part in profiles.split(_MENU_CHUNK)])
    truthful = utilities(profiles, mechanism(profiles))
    return (best.unsqueeze(-1) - truthful).clamp_min(0)


def strong_misreports(
    mechanism: Mechanism,
    valuations: Valuations,
    profiles: Tensor,
    bidder: int,
    starts: int,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The best of ascents from the truth, shaded, lowest, middling and random reports: [B, m], and utility [B]."""
    own, low, high = profiles[:, bidder], valuations.low[bidder], valuations.high[bidder]
    fixed = [own, low + 0.8 * (own - low), low.expand_as(own), ((low + high) / 2).expand_as(own)][:starts]
    drawn = [random_reports(valuations, len(own), bidder, generator) for _ in range(starts - len(fixed))]
    reports, best = own, torch.full_like(own[:, 0], -torch.inf)
    for start in (*fixed, *drawn):
        found, utility = ascend(mechanism, profiles, bidder, start, low, high, steps=steps, rate=0.05)
        reports = torch.where((utility > best).unsqueeze(-1), found, reports)
        best = torch.maximum(best, utility)
    return reports, best


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
