"""Mechanisms side by side: what each earns, and what its bidders gain by lying, under one and the same attack.

Revenue that is bought with regret is no better revenue, so figures are comparable only where regret was searched for
equally hard, on the same valuations. Mechanisms of different regret are ranked by the score of `regretformer.evaluate`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from regretformer.config import Attack
from regretformer.evaluate import EvaluationConfig, evaluate, resolve_attack
from regretformer.mechanisms import NamedMechanism
from regretformer.setting import Setting
from regretformer.valuations import Valuations

__all__ = ["compare", "comparison_table", "equal_evaluation", "markdown"]

_HEADER = ("mechanism", "revenue", "honest regret / revenue", "largest regret", "published protocol sees", "score")


def equal_evaluation(
    setting: Setting, attack: Attack = "auto", valuations: int | None = None, seed: int = 0
) -> EvaluationConfig:
    """The evaluation that all mechanisms of a setting get.

    Args:
        setting: of all.
        attack: auto is the strongest that is feasible.
        valuations: profiles on which regret is measured, by default 10,000 by grid and 1,000 by ascent; revenue is
            measured on a hundred or a thousand times as many.
        seed: of valuations and misreports.

    Raises:
        InputError: if the attack is not feasible, or the valuations are too few.
    """
    attack = resolve_attack(attack, setting)
    usual, share = (10_000, 100) if attack == "grid" else (1_000, 1_000)
    count = usual if valuations is None else valuations
    return EvaluationConfig(attack, count, revenue_valuations=share * count, seed=seed)


def compare(
    mechanisms: Iterable[NamedMechanism], valuations: Valuations, evaluation: EvaluationConfig
) -> list[dict[str, Any]]:
    """The figures of each mechanism as one flat object, best score first.

    Besides the figures of `evaluate` there are `mechanism`, its name, and `net`, `preset` and `regret_budget`, which
    are null for known auctions.
    """
    rows = [_row(one, valuations, evaluation) for one in mechanisms]
    return sorted(rows, key=lambda row: -row["score"])


def _row(one: NamedMechanism, valuations: Valuations, evaluation: EvaluationConfig) -> dict[str, Any]:
    return {
        "mechanism": one.name,
        "setting": valuations.setting.name,
        "net": one.config and one.config.net,
        "preset": one.config and one.config.preset,
        "regret_budget": one.config and one.config.regret_budget,
        **evaluate(one.mechanism, valuations, evaluation),
    }


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def comparison_table(rows: Iterable[dict[str, Any]]) -> str:
    """What `compare` found, in Markdown."""
    return markdown(_HEADER, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["revenue_ci"]
    least, most = row["regret_sum_over_revenue_ci"]
    return [
        row["mechanism"],
        f"{row['revenue']:.4f} ± {(high - low) / 2:.4f}",
        f"{row['regret_sum_over_revenue']:.6f} ± {(most - least) / 2:.6f}",
        f"{row['regret_max']:.6f}",
        f"{row['protocol_regret_sum_over_revenue']:.6f}",
        f"{row['score']:.4f}",
    ]
