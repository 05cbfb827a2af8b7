r"""Equilibria of the public goods games in closed form.

One step.  N agents, multiplier 1 < n < N, `p_k` the probability with which the mediator lets a member of a
coalition of size k contribute, outsiders keep.  In units where all contributing pays 1,

    member at k:   p_k (n k / N - 1) / (n - 1),        outsider at k:   p_k (n k / N) / (n - 1).

- Naive mediator: `p_k = 1` if `n k > N`, else 0.  Exactly `k* = min{k : n k > N}` agents commit in its pure
  equilibria; there is also a symmetric mixed one, and "nobody commits" whenever `k* >= 2`.
- Encouragement at k, "an outsider at k gets at most what a member gets at k + 1":
  `p_k <= p_{k+1} (n (k + 1) - N) / (n k)`.
- Price of that constraint: letting a member contribute at k moves the members' sum by `n k / N - 1` and the mean
  outsider by `n / N`, so a multiplier on the mean outsider is critical at `k - N / n`: below it the mediator
  contributes, above it not.  One multiplier shared by all sizes can therefore bind at one size only.

Iterated.  Balances grow, so keeping today also costs tomorrow's income: `free_riding` and `best_free_riding` say when
staying out pays.  `last_step_bound` is the encouragement bound of the last step with unequal balances.

All derived for this package; the paper's own figures are in its section 5.
"""

import math
from collections.abc import Sequence

from gt_core.errors import InputError
from scipy.optimize import brentq
from scipy.stats import binom

__all__ = [
    "best_free_riding",
    "check_dilemma",
    "contributing_growth",
    "critical_multiplier",
    "encouragement_bounds",
    "free_riding",
    "last_step_bound",
    "naive_contributions",
    "naive_pure_reward",
    "naive_symmetric_equilibrium",
    "naive_threshold",
]


def naive_threshold(n_agents: int, multiplier: float) -> int:
    """`k*`, the smallest coalition for which contributing is worth more than it costs.

    Raises:
        InputError: see `check_dilemma`.
    """
    check_dilemma(n_agents, multiplier)
    return next(size for size in range(1, n_agents + 1) if multiplier * size > n_agents * (1 + 1e-12))


def naive_contributions(n_agents: int, multiplier: float) -> list[float]:
    """The naive mediator's `p_1 … p_N`; where it is indifferent (`n k = N`) it keeps."""
    threshold = naive_threshold(n_agents, multiplier)
    return [float(size >= threshold) for size in range(1, n_agents + 1)]


def naive_pure_reward(n_agents: int, multiplier: float) -> float:
    """Mean reward, and share of committed agents, when exactly `k*` agents commit: `k* / N`."""
    return naive_threshold(n_agents, multiplier) / n_agents


def naive_symmetric_equilibrium(n_agents: int, multiplier: float) -> tuple[float, float]:
    """The symmetric mixed equilibrium under the naive mediator.

    An agent is pivotal if exactly `k* - 1` others commit; then committing earns `n k* / N - 1`.  If at least
    `k*` others do, committing only costs `1 - n / N`.  The commitment probability q balances the two.

    Returns:
        `q` and the mean reward.
    """
    threshold = naive_threshold(n_agents, multiplier)
    gain, loss = multiplier * threshold / n_agents - 1, 1 - multiplier / n_agents

    def advantage(commit: float) -> float:
        others = binom(n_agents - 1, commit)
        return float(others.pmf(threshold - 1) * gain - others.sf(threshold - 1) * loss)

    commit = 1.0 if threshold == n_agents else float(brentq(advantage, 1e-9, 1 - 1e-9, xtol=1e-14))
    sizes = range(threshold, n_agents + 1)
    return commit, sum(size * float(binom.pmf(size, n_agents, commit)) for size in sizes) / n_agents


def encouragement_bounds(n_agents: int, multiplier: float) -> list[float]:
    """The optimal `p_1 … p_N` under encouragement at every size, from `p_N = 1` downwards.

    Below the naive threshold contributing is worth less to the members than it costs them: there `p_k = 0`.

    Raises:
        InputError: see `check_dilemma`.
    """
    check_dilemma(n_agents, multiplier)
    bounds = [1.0]
    for size in range(n_agents - 1, 0, -1):
        worth = (multiplier * (size + 1) - n_agents) / (multiplier * size)
        bounds.append(min(1.0, bounds[-1] * worth) if size >= naive_threshold(n_agents, multiplier) else 0.0)
    return bounds[::-1]


def critical_multiplier(size: int, n_agents: int, multiplier: float) -> float:
    """`k - N / n`: where a multiplier on the mean outsider's constraint makes the mediator indifferent at size k."""
    check_dilemma(n_agents, multiplier)
    return size - n_agents / multiplier


def contributing_growth(contributors: int, n_agents: int, multiplier: float, share: float) -> float:
    """A contributor's growth per step when `contributors` agents of equal balance contribute, and nobody else."""
    return 1 - share + share * multiplier * contributors / n_agents


def free_riding(steps: int, n_agents: int, multiplier: float, share: float) -> float:
    """What one agent multiplies its balance by when it keeps for `steps` steps while all others contribute.

    The others' balances grow by g per step, and each step pays the outsider `phi n (N - 1) / N` of them:
    `1 + phi n (N - 1) / N * (g^w - 1) / (g - 1)`.
    """
    growth = contributing_growth(n_agents - 1, n_agents, multiplier, share)
    series = steps if math.isclose(growth, 1) else (growth**steps - 1) / (growth - 1)
    return 1 + share * multiplier * (n_agents - 1) / n_agents * series


def best_free_riding(n_agents: int, multiplier: float, share: float, horizon: int) -> tuple[float, list[bool]]:
    """The best reply to others who contribute in every step, which is also the best reply to a naive mediator.

    The value to go is linear, `a * own balance + b * sum of the others'`, with `a = 1, b = 0` at the end, so
    whether to contribute does not depend on the balances: it costs `a phi (1 - n / N)` and raises the others by
    `phi n (N - 1) / N`, worth `b` each.  An outsider may contribute of its own accord, so a commitment window
    does not change this: whoever stays out for the whole episode is free to play it.

    Returns:
        The final balance from balances of 1, and for each step whether to contribute.
    """
    income = share * multiplier / n_agents
    growth = contributing_growth(n_agents - 1, n_agents, multiplier, share)
    own, others, plan = 1.0, 0.0, []
    for _ in range(horizon):
        worth = others * income * (n_agents - 1) - own * (share - income)
        plan.append(worth > 0)
        own, others = own + max(0.0, worth), own * income + others * growth
    return own + others * (n_agents - 1), plan[::-1]


def last_step_bound(balances: Sequence[float], outsider: int, multiplier: float) -> float:
    """The largest contribution probability at the last step that leaves `outsider` no reason to stay out.

    With all others of unequal balances committed, staying out is not better if
    `p <= (sum_i b_i - N b_j / n) / sum_{i != j} b_i`.
    """
    total, own = math.fsum(balances), balances[outsider]
    return min(1.0, max(0.0, (total - len(balances) * own / multiplier) / (total - own)))


def check_dilemma(n_agents: int, multiplier: float) -> None:
    """Check that contributing is costly alone and worth it together.

    Raises:
        InputError: fewer than two agents or a multiplier outside (1, N).
    """
    if n_agents < 2 or not 1 < multiplier < n_agents:
        raise InputError(
            f"n_agents is {n_agents} and the multiplier is {multiplier}, which is no dilemma; give at least 2 agents "
            "and a multiplier strictly between 1 and the number of agents"
        )
