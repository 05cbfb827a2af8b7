"""What a learnt set of policies is worth, exactly: which constraints hold, by how much, and who would deviate.

In a one-step game everything can be summed, so nothing here is an estimate:

- the gain of each agent's best one-step deviation from its policy, and the largest over agents (the exploitability of
  the game with its mediator);
- at every coalition the slack of each agent's constraint, `V_i(C) - V_i(C without i)` for members (IC) and
  `V_j(C with j) - V_j(C)` for outsiders (E), negative where it is violated, with the coalition's probability: a
  constraint at a coalition that is never formed binds nobody.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mediated_marl.closed_forms import encouragement_bounds
from mediated_marl.constraints import violations
from mediated_marl.one_step import OneStepGame, SymmetricPublicGoods

__all__ = ["Audit", "audit_one_step", "flat_audit"]


class Audit(NamedTuple):
    """One audit of S seeds.

    Attributes:
        payoffs: `[S, N]`.
        commitment: `[S, N]`.
        deviation_gains: `[S, N]`, what the best pure action earns more than the policy; never negative.
        probabilities: `[S, C]`, how likely each coalition (or size) is.
        ic_slack: `[S, C, I]`, NaN where a slot has no member.
        e_slack: `[S, C, I]`, NaN where a slot has no outsider.
    """

    payoffs: Tensor
    commitment: Tensor
    deviation_gains: Tensor
    probabilities: Tensor
    ic_slack: Tensor
    e_slack: Tensor


def audit_one_step(game: OneStepGame, policies: Tensor, outside: Tensor, mediator: Tensor) -> Audit:
    """Audit policies of a one-step game.

    Args:
        game: the game.
        policies: `[S, N, A + 1]`.
        outside: `[S, N, A]`, what an agent plays when it does not commit.
        mediator: `[S, R, N, A]`, see `mediated_marl.one_step`.
    """
    choices = game.deviations(policies, mediator)
    payoffs = (policies * choices).sum(-1)
    found = violations(game.table(outside, mediator))
    nobody = torch.tensor(float("nan"), dtype=payoffs.dtype)
    return Audit(
        payoffs,
        policies[..., -1],
        (choices.amax(-1) - payoffs).clamp(min=0),
        game.probabilities(policies[..., -1]),
        torch.where(game.members > 0, -found.ic, nobody),
        torch.where(game.outsiders > 0, -found.e, nobody),
    )


def flat_audit(game: OneStepGame, audit: Audit, mediator: Tensor) -> dict[str, Any]:
    """The audit as figures by name, for `result.json`: per seed as a list, over seeds as mean and extremes."""
    rewards, gains = audit.payoffs.mean(-1), audit.deviation_gains.amax(-1)
    figures: dict[str, Any] = {
        "reward": rewards.mean().item(),
        "reward_min": rewards.min().item(),
        "reward_per_seed": rewards.tolist(),
        "welfare": audit.payoffs.sum(-1).mean().item(),
        "payoff_per_agent": audit.payoffs.mean(0).tolist(),
        "payoffs_per_seed": audit.payoffs.tolist(),
        "commitment": audit.commitment.mean().item(),
        "commitment_per_seed": audit.commitment.mean(-1).tolist(),
        "deviation_gain_max": gains.max().item(),
        "deviation_gain_per_seed": gains.tolist(),
        "ic_slack_min": visited_minimum(audit.ic_slack, audit.probabilities),
        "e_slack_min": visited_minimum(audit.e_slack, audit.probabilities),
    }
    if isinstance(game, SymmetricPublicGoods):
        contribution = game.contribution(mediator)
        figures["mediated_contribution_per_seed"] = mediated_contribution(audit.probabilities, contribution)
        figures["contribution_by_size"] = contribution.mean(0).tolist()
        figures["contribution_by_size_per_seed"] = contribution.tolist()
        figures["contribution_next_to_grand_max"] = contribution[:, -2].max().item()
        figures["exact_bound_by_size"] = encouragement_bounds(game.n_agents, game.game.multiplier)
    return figures


def mediated_contribution(probabilities: Tensor, contribution: Tensor) -> list[float | None]:
    """How likely a member contributes, per seed; None where nobody ever commits.

    Args:
        probabilities: `[S, N + 1]`, of each size.
        contribution: `[S, N]`, the mediator's policy at sizes 1 to N.
    """
    members = probabilities[:, 1:] * torch.arange(1, contribution.shape[1] + 1)
    shares = (members * contribution).sum(-1) / members.sum(-1)
    return [None if math.isnan(share) else share for share in shares.tolist()]


def visited_minimum(slack: Tensor, probabilities: Tensor, threshold: float = 0.01) -> float | None:
    """The smallest slack at a coalition that is formed with more than `threshold`; None if there is none."""
    counted = slack[(probabilities > threshold).unsqueeze(-1) & ~slack.isnan()]
    return counted.min().item() if counted.numel() else None
