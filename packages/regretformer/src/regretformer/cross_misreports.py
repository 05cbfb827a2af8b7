"""Cross-misreports: whether regret that one mechanism hides shows in the misreports found against another.

Misreports are optimised against each mechanism, the source, and every mechanism, the target, is scored on them:

    R[s, t] = mean over v of sum_i max(0, u_i^t(v_i; (b_i^s(v), v_-i)) - u_i^t(v_i; v)),

where b_i^s(v) is the report that the search finds to gain bidder i most at the source. On the diagonal stands the
regret that a mechanism's own search finds; a larger entry in its column is regret that this search misses. All
mechanisms face the same valuations, and every search starts afresh from the same points, so that the order of the
mechanisms does not matter; the published code starts each search from the optimum of the one before.

A bidder that gains nothing by lying tells the truth. So truthful auctions have a column of zeros, and a row of zeros
too: nothing found against them is a lie.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Mechanism, replace_report, utilities
from regretformer.compare import markdown
from regretformer.evaluate import EvaluationConfig, find_misreports, measure_revenue, require_searchable
from regretformer.mechanisms import NamedMechanism
from regretformer.misreports import frozen
from regretformer.valuations import Valuations

__all__ = ["cross_misreports", "cross_regret", "cross_table", "optimal_misreports"]

_FORWARD_CHUNK = 8192
_LEAST_GAIN = 1e-6  # as a share of the largest possible value; a smaller one is rounding
_LEAST_REVENUE = 1e-30


def cross_misreports(
    mechanisms: Sequence[NamedMechanism], valuations: Valuations, evaluation: EvaluationConfig
) -> dict[str, Any]:
    """The table of all mechanisms against all misreports.

    Returns:
        `mechanisms`, their names; `revenue` of each; and, with one row per source and one column per target,
        `regret_sum`, `regret_sum_ci` (95 %) and `regret_sum_over_revenue`; `setting`, `attack`, `n_valuations`.

    Raises:
        InputError: if the grid is too large to search.
    """
    require_searchable(evaluation, valuations.setting)
    profiles = valuations.profiles(evaluation.valuations, Streams(evaluation.seed).torch("evaluation/profiles"))
    revenue = [
        measure_revenue(one.mechanism, valuations, evaluation.revenue_valuations, Streams(evaluation.seed))[0]
        for one in mechanisms
    ]
    regrets, intervals = [], []
    for source in mechanisms:
        misreports = optimal_misreports(source.mechanism, valuations, profiles, evaluation)
        totals = [cross_regret(target.mechanism, profiles, misreports).sum(-1) for target in mechanisms]
        regrets.append([total.mean().item() for total in totals])
        intervals.append([_interval(total) for total in totals])
    return {
        "setting": valuations.setting.name,
        "mechanisms": [one.name for one in mechanisms],
        "revenue": revenue,
        "regret_sum": regrets,
        "regret_sum_ci": intervals,
        "regret_sum_over_revenue": [
            [regret / max(earned, _LEAST_REVENUE) for regret, earned in zip(row, revenue, strict=True)]
            for row in regrets
        ],
        "attack": evaluation.attack,
        "n_valuations": evaluation.valuations,
    }


def _interval(samples: Tensor) -> list[float]:
    """The 95 % normal interval of the mean."""
    mean, error = samples.mean().item(), 1.96 * samples.std().item() / math.sqrt(len(samples))
    return [mean - error, mean + error]


@torch.no_grad()
def cross_regret(target: Mechanism, profiles: Tensor, misreports: Tensor) -> Tensor:
    """What each bidder gains at a mechanism by the given reports, at least 0, [B, n].

    Args:
        target: the mechanism.
        profiles: true values, [B, n, m].
        misreports: the report of each bidder when it is the one that lies, [B, n, m].
    """
    gains = []
    for values, lies in zip(profiles.split(_FORWARD_CHUNK), misreports.split(_FORWARD_CHUNK), strict=True):
        truthful = utilities(values, target(values))
        lying = [
            utilities(values, target(replace_report(values, bidder, lies[:, bidder])))[:, bidder]
            for bidder in range(values.shape[1])
        ]
        gains.append((torch.stack(lying, dim=1) - truthful).clamp_min(0))
    return torch.cat(gains)


def optimal_misreports(
    source: Mechanism, valuations: Valuations, profiles: Tensor, evaluation: EvaluationConfig
) -> Tensor:
    """The report of each bidder that gains it most at `source`, its own values if none gains, [B, n, m].

    Starts depend on `evaluation.seed` alone.
    """
    with frozen(source):
        misreports, _ = find_misreports(source, valuations, profiles, evaluation, Streams(evaluation.seed))
    gain = cross_regret(source, profiles, misreports)
    lies = gain > _LEAST_GAIN * valuations.high.sum(-1)
    return torch.where(lies.unsqueeze(-1), misreports, profiles)


def cross_table(table: dict[str, Any]) -> str:
    """What `cross_misreports` found, in Markdown: the sum of regret over the target's revenue."""
    header = ["misreports against", *(f"regret of {name}" for name in table["mechanisms"])]
    rows = []
    for source, name in enumerate(table["mechanisms"]):
        cells = zip(
            table["regret_sum_over_revenue"][source], table["regret_sum_ci"][source], table["revenue"], strict=True
        )
        rows.append([name, *(_cell(*cell) for cell in cells)])
    return markdown(header, rows)


def _cell(share: float, interval: list[float], revenue: float) -> str:
    low, high = interval
    return f"{share:.6f} ± {(high - low) / 2 / max(revenue, _LEAST_REVENUE):.6f}"
