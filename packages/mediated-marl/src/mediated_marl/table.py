"""Table 3 of the paper beside what was learnt and what is exact, from the results of finished runs.

Figures over seeds are interquartile means with 95 % bootstrap intervals (`gt_core.stats`).  Three kinds of runs are
told apart by their configs: the paper's estimators and hyperparameters (`paper`), ours from samples (`sampled`), and
ours with exact gradients (`exact`).  The exact equilibrium is the best one for its mediator: nobody contributes without
one, `k*` agents commit to a naive one, and all do under encouragement, where `p_{N-1}` may be at most its bound.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gt_core.run import read_cost, read_result
from gt_core.stats import summarise

from mediated_marl.closed_forms import encouragement_bounds, naive_pure_reward
from mediated_marl.config import TrainConfig
from mediated_marl.equilibria import mediated_optimum
from mediated_marl.games import sacrifice
from mediated_marl.games.public_goods import default_multiplier
from mediated_marl.published import PUBLISHED, Published
from mediated_marl.report import load_config

__all__ = ["exact_reward", "interval", "markdown", "number", "over_seeds", "rows"]

Row = dict[str, Any]


ORDER = ("none", "naive", "ic", "e", "constrained")
LEARNERS = ("paper", "sampled", "exact")


def rows(directories: Iterable[Path]) -> list[Row]:
    """One row per finished run of a one-step game, in the order of Table 3.

    Raises:
        RunError: if a directory holds no finished run.
    """
    found = []
    for directory in directories:
        config = load_config(directory)
        if isinstance(config, TrainConfig):
            found.append(row(config, read_result(directory)) | read_cost(directory))
    return sorted(
        found,
        key=lambda one: (
            one["game"],
            ORDER.index(one["mediator"]),
            one["n_agents"],
            LEARNERS.index(one["learner"]),
        ),
    )


def row(config: TrainConfig, result: Row) -> Row:
    """The figures of one run."""
    about = {
        "game": config.game,
        "mediator": config.mediator,
        "n_agents": config.n_agents,
        "learner": config.learner,
        "seeds": config.seeds,
        "reward": over_seeds(result["reward_per_seed"]),
        "reward_exact": exact_reward(config),
        "commitment": over_seeds(result["commitment_per_seed"]),
    }
    if config.game != "pgg":
        return about
    published = PUBLISHED.get((config.mediator, config.n_agents), Published(float("nan")))
    below_grand = [policy[-2] for policy in result["contribution_by_size_per_seed"]]
    bound = encouragement_bounds(config.n_agents, config.multiplier or default_multiplier(config.n_agents))[-2]
    mediated = config.mediator != "none"
    return about | {
        "contribution": over_seeds(result["mediated_contribution_per_seed"]) if mediated else None,
        "next_to_grand": over_seeds(below_grand) if mediated else None,
        "next_to_grand_bound": bound if config.imposes_e else None,
        "published": published._asdict(),
    }


def over_seeds(values: list[float]) -> list[float]:
    """Interquartile mean and the ends of its interval."""
    if len(values) < 2:
        return values * 3
    summary = summarise(values, np.random.default_rng(0))
    return [summary.interquartile_mean, summary.low, summary.high]


def exact_reward(config: TrainConfig) -> float | None:
    """The mean payoff of the equilibrium that the run should reach, None where this package has no formula."""
    if config.game == "pgg":
        multiplier = config.multiplier or default_multiplier(config.n_agents)
        naive = naive_pure_reward(config.n_agents, multiplier)
        return {"none": 0.0, "naive": naive, "e": 1.0, "constrained": 1.0}.get(config.mediator)
    if config.game == "pd":
        return {"none": 0.0, "naive": 2.0}.get(config.mediator)  # both defect; both commit
    if config.game == "sacrifice" and config.imposes_ic:
        return float(mediated_optimum(sacrifice().payoffs.tolist(), ic=True).values[3].mean())
    if config.game == "sacrifice" and config.mediator in ("none", "naive"):
        return 1.0  # both defect: a naive mediator would sacrifice agent 1, which therefore stays out
    return None


HEADER = (
    "| game | mediator | agents | learner | reward | paper | exact | commitment | paper | mediated contribution "
    "| paper | p_{N-1} | bound | seconds |\n" + "|---" * 14 + "|\n"
)


def markdown(table: list[Row]) -> str:
    """The rows as a Markdown table."""
    return HEADER + "".join("| " + " | ".join(cells(one)) + " |\n" for one in table)


def cells(one: Row) -> list[str]:
    """One row as text; what was not published or does not apply stays empty."""
    published = one.get("published", {})
    return [
        one["game"],
        one["mediator"],
        str(one["n_agents"]),
        one["learner"],
        interval(one["reward"]),
        number(published.get("reward")),
        number(one["reward_exact"]),
        interval(one["commitment"]),
        number(published.get("commitment")),
        interval(one.get("contribution")),
        number(published.get("contribution")),
        interval(one.get("next_to_grand")),
        number(one.get("next_to_grand_bound"), 4),
        f"{one['seconds']:.0f}",
    ]


def interval(values: list[float] | None) -> str:
    """A mean with its interval."""
    return "" if values is None else f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or nothing."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"
