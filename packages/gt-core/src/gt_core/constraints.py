"""How well constraints g <= 0 are satisfied, in absolute terms and against a budget.

The sign convention is that of `gt_core.dual`: a positive g is a violation, a negative g is slack. Slack in one entry
does not repair a violation in another, so averages are of the violated part max(0, g).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gt_core.stats import finite_array

__all__ = ["ConstraintSatisfaction", "constraint_satisfaction"]


@dataclass(frozen=True)
class ConstraintSatisfaction:
    """Violations over all entries measured; three absolute figures, and the same three against the budget."""

    largest: float
    """max(0, largest g), in the unit of g; 0 if every constraint holds."""
    mean: float
    """Mean of max(0, g), in the unit of g."""
    share_violated: float
    """Share of the entries with g > 0."""
    largest_over_budget: float
    """`largest` divided by the budget; at most 1 if every entry keeps to it."""
    mean_over_budget: float
    """`mean` divided by the budget; at most 1 if the entries keep to it on average."""
    share_beyond_budget: float
    """Share of the entries with g > budget."""


def constraint_satisfaction(violation: npt.ArrayLike, budget: float) -> ConstraintSatisfaction:
    """Measure satisfaction over every entry of `violation`.

    Whether an entry is one constraint averaged over samples or one sample of it is the caller's choice, and changes
    the result: a constraint that holds on average may be violated in half of its samples.

    Args:
        violation: g, any shape with at least one entry and one axis: array, nested list or CPU tensor.
        budget: the violation that is still acceptable, > 0, in the unit of g.

    Raises:
        ValueError: if there is no entry, one is not finite, or the budget is not positive and finite.
    """
    if not 0 < budget < math.inf:
        raise ValueError(f"budget must be positive and finite, got {budget}: the figures are divided by it")
    measured = finite_array(violation, "violation")
    violated = np.maximum(measured, 0.0)
    largest, mean = float(violated.max()), float(violated.mean())
    return ConstraintSatisfaction(
        largest=largest,
        mean=mean,
        share_violated=float((measured > 0).mean()),
        largest_over_budget=largest / budget,
        mean_over_budget=mean / budget,
        share_beyond_budget=float((measured > budget).mean()),
    )
