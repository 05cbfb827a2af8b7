"""Runs in games of several steps as a table: what was learnt, what is exact, and what the best deviation gains.

Figures over seeds are interquartile means with 95 % bootstrap intervals.  The exact welfare is that of the equilibrium
that the mediator should lead to, from the derivations in the games' own tables, and of the Coin Game by backward
induction; where there is none the cell is empty.  A deviation's gain is in discounted rewards, and beside it as a share
of the discounted return of an episode, but for returns that are smaller than it.  Where a game can be enumerated the
gain of the best policy over a whole episode stands beside it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gt_core.run import read_cost, read_result

from mediated_marl.markov_config import MarkovConfig
from mediated_marl.report import load_config
from mediated_marl.table import interval, number, over_seeds

__all__ = ["exact_welfare", "markov_markdown", "markov_row", "markov_rows"]

Row = dict[str, Any]


def markov_rows(directories: Iterable[Path]) -> list[Row]:
    """One row per finished run, by game, mediator and window.

    Raises:
        RunError: if a directory holds no finished run.
    """
    found = []
    for directory in directories:
        config = load_config(directory)
        if isinstance(config, MarkovConfig):
            found.append(markov_row(config, read_result(directory)) | read_cost(directory))
    return sorted(found, key=lambda one: (one["game"], one["endowments"], ORDER.index(one["mediator"]), one["window"]))


ORDER = ("none", "naive", "ic", "e", "constrained")


def markov_row(config: MarkovConfig, result: Row) -> Row:
    """The figures of one run."""
    last, share = result["commitment_by_step"][-1], over_seeds(result["deviation_gain_share_per_seed"])
    return {
        "game": config.env or config.game,
        "endowments": "random" if config.random_endowments else "",
        "mediator": config.mediator,
        "n_agents": result["n_agents"],
        "window": config.window,
        "seeds": config.seeds,
        "welfare": over_seeds(result["welfare_per_seed"]),
        "welfare_exact": exact_welfare(config),
        "balance": over_seeds(result["balance_per_seed"]) if "balance_per_seed" in result else None,
        "commitment": over_seeds(result["commitment_per_seed"]),
        "last_commitment": last,
        "deviation_gain": over_seeds(result["deviation_gain_per_seed"]),
        "deviation_gain_share": share if share[0] <= 1 else None,
        "response_gain": over_seeds(result["response_gain_per_seed"]) if "response_gain_per_seed" in result else None,
    }


def exact_welfare(config: MarkovConfig) -> float | None:
    """The undiscounted welfare of the equilibrium, where it was derived."""
    if config.game == "two-step-pd":
        return {("naive", 1): 4.0, ("naive", 2): 7.0, ("ic", 1): 6.875, ("none", 1): 0.0}.get(
            (config.mediator, config.window)
        )
    if config.game == "coin" and config.n_agents == 2:
        return coin_welfare(config)
    if config.game == "iterated-pgg" and not config.random_endowments and config.imposes_e:
        return config.n_agents * (1.5**config.horizon - 1)
    return None


def coin_welfare(config: MarkovConfig) -> float | None:
    """The Coin Game's welfare where agents move by themselves, and where committing for a whole episode pays all."""
    from mediated_marl.coin_rounds import first_placements, unfold_coin
    from mediated_marl.games import CoinGame
    from mediated_marl.optimum import equilibrium_values, optimal_values
    from mediated_marl.rollout import Rules

    game = CoinGame(horizon=config.horizon, egocentric=True)
    rounds, first = unfold_coin(game, Rules()), first_placements(game).double()
    apart, together = equilibrium_values(rounds), optimal_values(rounds)
    if not config.mediated:
        return float(first @ apart.sum(-1))
    pays = (together >= apart)[first > 0].all() and config.window == config.horizon
    return float(first @ together.sum(-1)) if pays else None


HEADER = (
    "| game | mediator | window | welfare | exact | final balance | commitment | at the last step "
    "| best deviation | / return | best policy | seconds |\n" + "|---" * 12 + "|\n"
)


def markov_markdown(table: list[Row]) -> str:
    """The rows as a Markdown table."""
    return HEADER + "".join("| " + " | ".join(cells(one)) + " |\n" for one in table)


def cells(one: Row) -> list[str]:
    """One row as text; what does not apply stays empty."""
    return [
        " ".join(filter(None, (one["game"], one["endowments"] and "random endowments"))),
        one["mediator"],
        str(one["window"]),
        interval(one["welfare"]),
        number(one["welfare_exact"]),
        interval(one["balance"]),
        interval(one["commitment"]),
        number(one["last_commitment"]),
        interval(one["deviation_gain"]),
        interval(one["deviation_gain_share"]),
        interval(one["response_gain"]),
        f"{one['seconds']:.0f}",
    ]
