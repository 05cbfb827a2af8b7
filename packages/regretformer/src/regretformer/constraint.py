"""How training holds regret down: what it adds to the loss -P, and how that moves.

Money is in units of the largest value, so that a step is the same whatever the currency. P is expected revenue and R_i
the regret of bidder i, R their sum.

- A budget on R / P (paper, section 3): gamma <- max(0, gamma + eta (ln(R / P) - ln R_max)) is moved first, at every
  iteration, and R_max falls to its final value on the way. The loss is the paper's, L = -P + gamma R, or the relative
  one, L = -ln P + gamma R / P, whose gradient is the same but for a factor near a solution (1 + gamma R / P on P, and
  1 / P on all). Early in training they differ: where regret is high the paper's loss can drive revenue to zero, whence
  no gradient leads back and R / P only grows; the relative loss pulls revenue up the harder the less there is.
- The augmented Lagrangian of RegretNet (Duetting et al. 2019, Algorithm 1): L = -P + sum_i (lambda_i R_i +
  rho / 2 R_i^2), with lambda_i <- lambda_i + rho R_i moved after the primal step at every 100th of 400,000 iterations,
  and rho growing 40 times. It knows no budget; how much regret remains follows from rho.

In a mixture **every setting has its own multipliers**. One multiplier for all could hold a budget on average only: the
settings whose regret is cheap to avoid would pay for the others, and none of the figures reported per setting would be
held to the budget. The price of regret differs between settings too, by more than an iteration's step.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from gt_core.dual import AugmentedLagrangian, LogRatioAscent, Multiplier, augmented_term, dual_first_lagrangian
from gt_core.schedules import geometric
from torch import Tensor

from regretformer.config import TrainConfig
from regretformer.setting import Setting

__all__ = ["AugmentedRegret", "Constraint", "RegretBudget", "published_penalty_step", "sum_of_regrets"]

_PUBLISHED_MOVES = 4000
_PUBLISHED_GROWTHS = 40


class Constraint(Protocol):
    """A rule for the regret of one setting or several."""

    def loss(self, revenue: Tensor, regrets: Mapping[int, Tensor], setting: int, progress: float) -> Tensor:
        """The primal loss, a scalar; moves the multipliers when they are due.

        Args:
            revenue: P, [], in units of the largest value.
            regrets: R_i of the bidders that deviated, each [], likewise; those of the others are not known.
            setting: which setting the batch belongs to.
            progress: share of the run that is done.
        """
        ...

    def figures(self, setting: int) -> dict[str, float]:
        """What to log of a setting, after `loss`."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Everything needed to continue."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        ...


def sum_of_regrets(regrets: Mapping[int, Tensor], bidders: int) -> Tensor:
    """R, estimated from the regrets of some of the n bidders, []."""
    return bidders / len(regrets) * torch.stack(list(regrets.values())).sum()


class RegretBudget:
    """Regret as a share of revenue, held to a budget by one multiplier per setting.

    Args:
        config: budget, its schedule and the rule of the multiplier.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.bidders = config, [setting.bidders for setting in config.auctions]
        rule = LogRatioAscent(config.dual_rate, config.dual_floor)
        self.multiplier = Multiplier(config.multiplier_start, rule, shape=(len(self.bidders),))
        self.budget = config.budget_start

    def loss(self, revenue: Tensor, regrets: Mapping[int, Tensor], setting: int, progress: float) -> Tensor:
        """The loss, once gamma has answered this batch."""
        config = self.config
        self.budget = geometric(progress, config.budget_start, config.regret_budget, until=config.budget_until)
        regret = sum_of_regrets(regrets, self.bidders[setting])
        ratio = (regret / revenue).item() / (config.budget_margin * self.budget)
        measured = torch.tensor([ratio], dtype=self.multiplier.value.dtype)
        relative = config.loss == "relative"
        return dual_first_lagrangian(
            -revenue.log() if relative else -revenue,
            self.multiplier,
            violation=(regret / revenue if relative else regret)[None],
            measured=measured,
            index=torch.tensor([setting]),
        )

    def figures(self, setting: int) -> dict[str, float]:
        """Budget and multiplier."""
        return {"dual/budget": self.budget, "dual/multiplier": self.multiplier.value[setting].item()}

    def state_dict(self) -> Mapping[str, Any]:
        """The multipliers."""
        return self.multiplier.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.multiplier.load_state_dict(state)


class AugmentedRegret:
    """The regret of every bidder under a growing quadratic penalty, with one multiplier per setting and bidder.

    The published periods are shares of a run: whatever its length, multipliers move 4,000 times and the penalty grows
    40 times, or each time a setting is visited if that is less often. Where one bidder of n deviates at a time, its
    term counts n times, which leaves the expected gradient as it is, and the multipliers move by what was seen last of
    each bidder.

    Args:
        config: first values, and the run's length.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        visits = config.iterations / len(config.auctions)
        self.parts = [
            AugmentedLagrangian(
                config.multiplier_start,
                config.penalty,
                config.penalty_step or published_penalty_step(setting),
                multiplier_every=max(1, round(visits / _PUBLISHED_MOVES)),
                penalty_every=max(1, round(visits / _PUBLISHED_GROWTHS)),
                shape=(setting.bidders,),
            )
            for setting in config.auctions
        ]
        self.latest = [torch.zeros_like(part.value) for part in self.parts]

    def loss(self, revenue: Tensor, regrets: Mapping[int, Tensor], setting: int, progress: float) -> Tensor:  # noqa: ARG002
        """The augmented Lagrangian; the multipliers then move, without effect on this step."""
        part, latest = self.parts[setting], self.latest[setting]
        observed, deviating = torch.stack(list(regrets.values())), list(regrets)
        terms = augmented_term(observed, part.value[deviating].to(observed), part.penalty)
        latest[deviating] = observed.detach().to(latest)
        part.ascend(latest)
        return -revenue + len(latest) / len(deviating) * terms.sum()

    def figures(self, setting: int) -> dict[str, float]:
        """The budget to compare with, the mean multiplier of the bidders, and the penalty."""
        part = self.parts[setting]
        return {
            "dual/budget": self.config.regret_budget,
            "dual/multiplier": part.value.mean().item(),
            "dual/penalty": part.penalty,
        }

    def state_dict(self) -> Mapping[str, Any]:
        """Multipliers, penalties and the regrets seen last."""
        return {"parts": [part.state_dict() for part in self.parts], "latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        self.latest = [latest.clone() for latest in state["latest"]]


def published_penalty_step(setting: Setting) -> float:
    """What the penalty grew by in RegretNet's experiments: 50 for 1x2, 5 for 2x2, 10 for 2x3, 1 for 3x10 and others."""
    return {(1, 2): 50.0, (2, 2): 5.0, (2, 3): 10.0}.get((setting.bidders, setting.items), 1.0)
