r"""The mediator's constraints and the Lagrangian they enter.

For every coalition C, agent i and value `V_i(C)`, with the sign convention of `gt_core.dual` (positive = violated):

    IC, i in C:      g = V_i(C without i) + margin |V_i(C without i)| - V_i(C)
    E,  i not in C:  g = V_i(C) + margin |V_i(C)| - V_i(C with i)

One and the same inequality links C to C without i: IC moves it at the larger coalition, E at the smaller one.  Where
many coalitions are linked in a chain and all bind, as in public goods games, the two feed on each other.  At size k the
price of E must outweigh what members gain and the price of IC, so per constraint

    lambda_k^E = (k - N / n) / (N - k) * (1 + lambda_k^IC),    lambda_k^IC = lambda_(k-1)^E,

which grows like a product over sizes.  For ten agents training copes, for 25 the multipliers reach their clip and the
mediator contributes where it should not.  Impose E alone there, as the paper does.

The margin makes committing strictly better instead of not worse; at 0 a perfect mediator leaves the agents indifferent,
and the slightest entropy keeps them from committing.  It is relative to what staying out pays, so that it asks nothing
where staying out pays nothing.

Both are imposed at *every* coalition, single members and the empty coalition's neighbours included, and every member's
action feels every constraint of its coalition.  Only the policy at C is moved by the constraints at C: the neighbour's
value is a constant there (paper, section 4).  The Lagrangian at C is

    sum_{i in C} V_i(C) - sum_{i in C} lambda^IC g - sum_{i not in C} lambda^E g.

Values are linear in the mediator's probabilities, so plain descent and ascent circle around the solution instead of
reaching it.  A damping rho uses `lambda exp(rho g)` in place of lambda, the proportional part of a controller whose
integral part is the ascent: it draws the circle inwards and leaves its centre, where g is 0, where it is.

Shapes are those of `mediated_marl.one_step`: S seeds, C coalitions or sizes, I slots that stand for `members` and
`outsiders` agents.
"""

from typing import NamedTuple

import torch
from gt_core.dual import ExponentialAscent, Multiplier
from torch import Tensor
from torch.nn.functional import one_hot

from mediated_marl.config import MultiplierForm
from mediated_marl.one_step import CoalitionTable, OneStepGame

__all__ = ["ConstraintMultipliers", "Violations", "coalition_lagrangian", "violations"]

UNOBSERVED = 1e-12
MAX_DAMPING = 3.0


class Violations(NamedTuple):
    """g of every constraint, `[S, C, I]` each; entries of slots that stand for nobody mean nothing."""

    ic: Tensor
    e: Tensor


def violations(table: CoalitionTable, margin: float = 0.0) -> Violations:
    """How far each constraint is violated; differentiable in the values at C, not in their neighbours'."""
    neighbours = table.neighbours.detach()
    ic = neighbours + margin * neighbours.abs() - table.values
    return Violations(ic, table.values + margin * table.values.abs() - neighbours)


def coalition_lagrangian(
    game: OneStepGame, table: CoalitionTable, found: Violations, ic: Tensor | float = 0.0, e: Tensor | float = 0.0
) -> Tensor:
    """What the mediator maximises at each coalition, `[S, C]`.

    Args:
        game: says whom the slots stand for.
        table: the values.
        found: the violations.
        ic: multipliers `[S, C, I]`, or 0 where incentive compatibility is not imposed.
        e: multipliers `[S, C, I]`, or 0 where encouragement is not imposed.
    """
    inside = game.members * (table.values - ic * found.ic)
    return (inside - game.outsiders * (e * found.e)).sum(-1)


class ConstraintMultipliers:
    """The multipliers of one kind of constraint, for all seeds.

    Args:
        game: the game whose coalitions are constrained.
        counts: `[C, I]`, how many agents each constraint stands for: `game.members` for IC, `game.outsiders` for E.
        form: which constraints share a multiplier.
        seeds: S.
        rate: step in log space; the published rule starts at 1 and clips to [exp(-4), exp(4)].
    """

    def __init__(self, game: OneStepGame, counts: Tensor, form: MultiplierForm, seeds: int, rate: float) -> None:
        self.counts = counts
        self._group = multiplier_groups(game, form).flatten()
        self._membership = one_hot(self._group).double()
        self.n_groups = self._membership.shape[1]
        self.multiplier = Multiplier(1.0, ExponentialAscent(rate), (seeds, self.n_groups))

    def damped(self, violation: Tensor, damping: float) -> Tensor:
        """The multiplier of each constraint with its damping, `[S, C, I]`, a constant; `violation` is g `[S, C, I]`."""
        value = self.multiplier.value.to(violation).index_select(1, self._group).view_as(violation)
        if not damping:
            return value
        return value * (damping * violation.detach()).clamp_(-MAX_DAMPING, MAX_DAMPING).exp_()

    def ascend(self, violation: Tensor, weights: Tensor) -> None:
        """Move each multiplier by the mean violation of the constraints that share it; unobserved ones stay.

        Args:
            violation: g, `[S, C, I]`.
            weights: how much each coalition counts, `[S, C]`.
        """
        share = weights.detach().unsqueeze(-1) * self.counts
        self.ascend_mean(share * violation.detach(), share)

    def ascend_mean(self, total: Tensor, mass: Tensor) -> None:
        """As `ascend`, from weighted sums of violations and the sums of their weights, `[S, C, I]` each."""
        self.multiplier.ascend(self._grouped(total) / self._grouped(mass).clamp_(min=UNOBSERVED))

    def _grouped(self, entries: Tensor) -> Tensor:
        return entries.flatten(1).double() @ self._membership


def multiplier_groups(game: OneStepGame, form: MultiplierForm) -> Tensor:
    """Which multiplier each constraint uses, int64 `[C, I]`."""
    slots = torch.arange(game.members.shape[-1]).expand(game.members.shape)
    coalitions = torch.arange(len(game.sizes)).unsqueeze(-1).expand(game.members.shape)
    sizes = game.sizes.unsqueeze(-1).expand(game.members.shape)
    each = coalitions * game.members.shape[-1] + slots
    return {"scalar": torch.zeros_like(slots), "agent": slots, "size": sizes, "coalition": each}[form]
