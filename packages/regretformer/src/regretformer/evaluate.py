"""Evaluation of a mechanism: its revenue, and its regret measured honestly.

Whatever finds misreports finds a lower bound on the regret, so the search decides how true the figure is; see
`regretformer.attacks`. What the published protocol finds on the same valuations is reported beside the honest figure
for comparison with the paper, never instead of it.

Regret is summed over bidders and set in relation to revenue, as the budget is. Mechanisms of different regret P and R
are ranked by the score

    (sqrt(P) - sqrt(R))^2

of Rahme, Jelassi and Weinberg (2021, Auction learning as a two-player game): what remains of the revenue once part of
it is given back to make lying not worth while.

Intervals are of 95 %. Those of means are normal; the ratio's treats revenue, known from far more profiles, as exact;
the score's spans the ends of both. Those of quantiles lie between two order statistics and assume no distribution.
Bidders of one profile are not independent, so profiles are counted, not pairs of profile and bidder.
"""

import dataclasses
import math
from typing import Any

import torch
from gt_core.errors import InputError
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.attacks import (
    grid_misreports,
    item_grid_misreports,
    menu_misreports,
    protocol_misreports,
    strong_misreports,
)
from regretformer.auction import Mechanism, utilities
from regretformer.config import Attack
from regretformer.misreports import frozen
from regretformer.setting import Setting
from regretformer.valuations import Valuations

__all__ = [
    "EvaluationConfig",
    "evaluate",
    "find_misreports",
    "measure_regret",
    "measure_revenue",
    "require_searchable",
    "resolve_attack",
    "score",
]

_LARGEST_MENU = 2**22  # reports of one bidder
_MOST_EVALUATIONS = 3 * 10**7
_CHUNK = 8192
_ASCENT_CHUNK = 512
_LEAST_REVENUE = 1e-30  # regret over revenue is 0 for an auction that has neither, such as VCG with one bidder
_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_NORMAL = 1.96


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate."""

    attack: Attack
    """Search for misreports: grid, item-grid, strong or protocol."""
    valuations: int
    """Fresh profiles on which regret is measured."""
    revenue_valuations: int = 1_000_000
    """Fresh profiles on which revenue is measured."""
    grid_resolution: int = 201
    """Grid points per item of the attack grid."""
    item_resolution: int = 51
    """Grid points per item of the attack item-grid."""
    passes: int = 4
    """Passes over all items of the attack item-grid, at most."""
    starts: int = 20
    """Starts of the strong attack per profile and bidder."""
    steps: int = 300
    """Steps of the strong attack per start."""
    protocol_valuations: int = 1_000
    """Of the profiles, those on which the published protocol is measured beside the attack."""
    seed: int = 0
    """Of the valuations and starts; training never draws from the same streams."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least = {"passes": 1, "seed": None, "attack": None}.get(field.name, 2)
            if least is not None and getattr(self, field.name) < least:
                raise InputError(f"{field.name} must be at least {least}, got {getattr(self, field.name)}")


def resolve_attack(attack: Attack, setting: Setting) -> Attack:
    """For `auto` the exhaustive grid where it is cheap, with one bidder and at most two items, else `strong`."""
    cheap = setting.bidders == 1 and setting.items <= 2
    return attack if attack != "auto" else "grid" if cheap else "strong"


def require_searchable(config: EvaluationConfig, setting: Setting) -> None:
    """Refuse a grid that would take too long to search.

    Raises:
        InputError: if so.
    """
    if config.attack == "grid":
        field, reports = "grid_resolution", config.grid_resolution**setting.items
    elif config.attack == "item-grid":
        field, reports = "item_resolution", config.item_resolution * setting.items * config.passes
    else:
        return
    shared = config.attack == "grid" and setting.bidders == 1  # one menu for all values
    count = reports if shared else reports * setting.bidders * config.valuations
    limit = _LARGEST_MENU if shared else _MOST_EVALUATIONS
    if count > limit:
        raise InputError(
            f"the attack {config.attack} on {setting.name} with {field} {getattr(config, field)} and valuations "
            f"{config.valuations} needs {count:,} evaluations, more than {limit:,}: lower {field}"
            f"{'' if shared else ' or valuations'}, or use the attack strong"
        )


def score(revenue: float, regret_sum: float) -> float:
    """(sqrt(revenue) - sqrt(regret))^2, or 0 where regret is no less than revenue."""
    return max(0.0, math.sqrt(max(0.0, revenue)) - math.sqrt(max(0.0, regret_sum))) ** 2


def evaluate(mechanism: Mechanism, valuations: Valuations, config: EvaluationConfig) -> dict[str, Any]:
    """Revenue and regret of a mechanism, as flat named figures.

    Returns:
        `revenue`; `score`; of the regret `regret_mean` over bidders, `regret_sum`, `regret_sum_over_revenue`,
        `regret_per_bidder` and `regret_quantiles` (50, 90, 99, 99.9 %), each with its interval under `..._ci`;
        `regret_max`, and `regret_max_exceeded` the share of profiles that at most have a larger one; `attack`,
        `n_valuations`, `n_revenue_valuations`; and what the published protocol sees, which is not run again where it is
        the attack itself: `protocol_regret_mean`, `protocol_regret_sum_over_revenue` and its interval,
        `protocol_n_valuations`.

    Raises:
        InputError: if the grid is too large to search.
    """
    require_searchable(config, valuations.setting)
    streams = Streams(config.seed, valuations.device)
    with frozen(mechanism):
        revenue, revenue_se = measure_revenue(mechanism, valuations, config.revenue_valuations, streams)
        profiles = valuations.profiles(config.valuations, streams.torch("evaluation/profiles"))
        regret = measure_regret(mechanism, valuations, profiles, config, streams)
        beside = dataclasses.replace(config, attack="protocol")
        some = profiles[: config.protocol_valuations]
        seen = regret if config.attack == "protocol" else measure_regret(mechanism, valuations, some, beside, streams)
    figures = regret_figures(regret, revenue)
    low, high = revenue - _NORMAL * revenue_se, revenue + _NORMAL * revenue_se
    least, most = figures["regret_sum_ci"]
    return {
        "revenue": revenue,
        "revenue_ci": [low, high],
        "score": score(revenue, figures["regret_sum"]),
        "score_ci": [score(low, most), score(high, least)],
        **figures,
        "attack": config.attack,
        "n_valuations": config.valuations,
        "n_revenue_valuations": config.revenue_valuations,
        **_protocol_figures(seen, revenue),
    }


def regret_figures(regret: Tensor, revenue: float) -> dict[str, Any]:
    """What `evaluate` reports of the regret [B, n]; a regret is never negative, nor is an end of an interval."""
    total, share = regret.sum(-1), max(revenue, _LEAST_REVENUE)
    low, high = _mean_interval(total)
    bidders, count = regret.shape[1], len(regret)
    return {
        "regret_mean": regret.mean().item(),
        "regret_mean_ci": [low / bidders, high / bidders],
        "regret_sum": total.mean().item(),
        "regret_sum_ci": [low, high],
        "regret_sum_over_revenue": total.mean().item() / share,
        "regret_sum_over_revenue_ci": [low / share, high / share],
        "regret_per_bidder": regret.mean(0).tolist(),
        "regret_per_bidder_ci": [_mean_interval(column) for column in regret.unbind(1)],
        "regret_max": regret.max().item(),
        "regret_max_exceeded": 1 - 0.05 ** (1 / count),
        "regret_quantiles": regret.flatten().quantile(torch.tensor(_QUANTILES).to(regret)).tolist(),
        "regret_quantiles_ci": [_quantile_interval(regret.flatten(), share, count) for share in _QUANTILES],
    }


def _protocol_figures(regret: Tensor, revenue: float) -> dict[str, Any]:
    figures = regret_figures(regret, revenue)
    names = ("regret_mean", "regret_sum_over_revenue", "regret_sum_over_revenue_ci")
    return {f"protocol_{name}": figures[name] for name in names} | {"protocol_n_valuations": len(regret)}


def _mean_interval(values: Tensor) -> list[float]:
    mean, error = values.mean().item(), _NORMAL * values.std().item() / math.sqrt(len(values))
    return [max(0.0, mean - error), mean + error]


def _quantile_interval(values: Tensor, share: float, count: int) -> list[float]:
    """The interval of a quantile as if `count` of the values were independent: their quantiles at share -+ error."""
    error = _NORMAL * math.sqrt(share * (1 - share) / count)
    ends = torch.tensor([max(0.0, share - error), min(1.0, share + error)]).to(values)
    result: list[float] = values.quantile(ends).tolist()
    return result


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
    with torch.no_grad():
        truthful = utilities(profiles, mechanism(profiles))
    return (find_misreports(mechanism, valuations, profiles, config, streams)[1] - truthful).clamp_min(0)


def find_misreports(
    mechanism: Mechanism, valuations: Valuations, profiles: Tensor, config: EvaluationConfig, streams: Streams
) -> tuple[Tensor, Tensor]:
    """The best report that the attack of `config` finds for each bidder, [B, n, m], and its utility, [B, n]."""
    generator = streams.torch(f"evaluation/{config.attack}")

    def search(part: Tensor, bidder: int) -> tuple[Tensor, Tensor]:
        if config.attack == "grid" and part.shape[1] == 1:
            return menu_misreports(mechanism, valuations, part, config.grid_resolution)
        if config.attack == "grid":
            return grid_misreports(mechanism, valuations, part, bidder, config.grid_resolution)
        if config.attack == "item-grid":
            return item_grid_misreports(mechanism, valuations, part, bidder, config.item_resolution, config.passes)
        if config.attack == "protocol":
            return protocol_misreports(mechanism, valuations, part, bidder, generator)
        return strong_misreports(mechanism, valuations, part, bidder, config.starts, config.steps, generator)

    parts = [profiles] if config.attack == "grid" else profiles.split(_ASCENT_CHUNK)
    found = [[search(part, bidder) for part in parts] for bidder in range(profiles.shape[1])]
    reports, utility = (
        torch.stack([torch.cat([part[side] for part in of_bidder]) for of_bidder in found], dim=1) for side in (0, 1)
    )
    return reports, utility
