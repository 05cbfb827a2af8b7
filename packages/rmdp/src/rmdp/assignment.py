"""Who is served by whom: the table of returns, the E-step and the welfare.

Q is a (k, n) table: entry (j, i) estimates the episode return that user i gets from representative j. An assignment
is a vector of n representatives. With the policies fixed the best one is greedy, a_i = argmax_j Q[j, i]; that is the
E-step of the EM-like algorithm (arXiv 2401.06514, section 4).

Rules where argmax alone does not say:

- *ties*: a user stays with the present representative if it is among the best, else goes to the lowest index;
- *full clusters*, where a capacity is given: while a representative has more users than that, the one who loses least
  moves to the best representative with room;
- *empty clusters*: while a representative has no user, it receives the user who loses least by the move, among those
  who leave company behind.

Of users who lose equally the worst served moves, then the lowest index. No user is pinned, and every representative
has a user as long as k <= n. Welfare is utilitarian: the mean return of the users.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gt_core.errors import InputError
from numpy.typing import NDArray

from rmdp.envs.batch import Floats

__all__ = [
    "Assignment",
    "QTable",
    "balanced_assignment",
    "cluster_sizes",
    "flips",
    "greedy_assignment",
    "regrets",
    "require_budget",
    "social_welfare",
    "update",
]

Assignment = NDArray[np.int64]


@dataclass(frozen=True)
class QTable:
    """Mean return per episode, over a fading memory of experience.

    Returns are estimated by the ratio (reward received) / (episodes), both summed with fading weights. By the
    renewal-reward theorem it tends to the mean return of an episode, and unlike an average over finished episodes it
    uses the newest rewards without waiting for their episode to end. Fading both sums alike leaves no bias from a start
    at zero.

    Attributes:
        reward: (k, n) fading sums of rewards.
        episodes: (k,) fading counts of episodes.
    """

    reward: Floats
    episodes: Floats

    @classmethod
    def empty(cls, k: int, n: int) -> "QTable":
        """A table that has seen nothing."""
        return cls(np.zeros((k, n)), np.zeros(k))

    @property
    def values(self) -> Floats:
        """Estimated returns, (k, n); zero for a representative without any episode yet."""
        return np.asarray(self.reward / np.where(self.episodes > 0, self.episodes, np.inf)[:, None])

    @property
    def is_complete(self) -> bool:
        """Whether every representative has been through some episode, or a part of one where parts are counted."""
        return bool((self.episodes > 0).all())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Both sums."""
        return {"reward": torch.from_numpy(self.reward), "episodes": torch.from_numpy(self.episodes)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor]) -> "QTable":
        """The table that `state_dict` described."""
        return cls(state["reward"].numpy(), state["episodes"].numpy())


def update(table: QTable, reward: Floats, episodes: Floats, memory: float) -> QTable:
    """Fade the table and add new experience.

    Args:
        table: The table so far.
        reward: (k, n) summed rewards of each user over the new steps of each representative.
        episodes: (k,) how many episodes of each these steps are worth (`Segment.episodes`).
        memory: The weight of the old sums, in [0, 1); 0 keeps the newest experience only.

    Raises:
        InputError: The memory is outside [0, 1), or a reward is not finite.
    """
    if not 0 <= memory < 1:
        raise InputError(f"memory must be in [0, 1), got {memory}")
    if not np.isfinite(reward).all():
        row = int(np.flatnonzero(~np.isfinite(reward).all(axis=1))[0])
        raise InputError(f"the rewards of representative {row} are not finite: its policy or the users diverged")
    return QTable(memory * table.reward + reward, memory * table.episodes + episodes)


def greedy_assignment(values: Floats, present: Assignment, capacity: int | None = None) -> Assignment:
    """The E-step: every user to the best representative, none of which is left without users or with too many.

    Args:
        values: Estimated returns, (k, n) with k <= n.
        present: The present assignment, (n,), which decides ties.
        capacity: The most users a representative may have; as many as there are by default.

    Returns:
        The new assignment, (n,).

    Raises:
        InputError: There are more representatives than users, too little capacity, or a value is not finite.
    """
    k, n = values.shape
    require_budget(k, n)
    if not np.isfinite(values).all():
        raise InputError("cannot assign users by returns that are not finite")
    if capacity is not None and k * capacity < n:
        raise InputError(f"{k} representatives with at most {capacity} users each cannot serve {n} users")
    best = values.max(axis=0)
    stays = values[present, np.arange(n)] == best
    chosen = np.where(stays, present, values.argmax(axis=0))
    while (sizes := cluster_sizes(chosen, k)).max() > (capacity or n):
        room = np.flatnonzero(sizes < (capacity or n))
        user = _loses_least(values, chosen, room, sizes[chosen] > (capacity or n))
        chosen[user] = room[values[room, user].argmax()]
    while (sizes := cluster_sizes(chosen, k)).min() == 0:
        empty = np.flatnonzero(sizes == 0)[:1]
        chosen[_loses_least(values, chosen, empty, sizes[chosen] > 1)] = empty[0]
    return chosen


def balanced_assignment(k: int, n: int, generator: np.random.Generator | None = None) -> Assignment:
    """Clusters of equal size up to one: round-robin, in random order when a generator is given.

    Raises:
        InputError: k is less than 1 or more than n.
    """
    require_budget(k, n)
    order = np.arange(n) % k
    return order if generator is None else generator.permutation(order)


def social_welfare(values: Floats, assignment: Assignment) -> float:
    """Mean over users of the return from their representative.

    Args:
        values: Returns, (k, n).
        assignment: (n,).
    """
    return float(values[assignment, np.arange(values.shape[1])].mean())


def regrets(values: Floats, assignment: Assignment) -> Floats:
    """What each user would gain at the representative that is best for them, (n,), non-negative."""
    return np.asarray(values.max(axis=0) - values[assignment, np.arange(values.shape[1])])


def flips(before: Assignment, after: Assignment) -> int:
    """How many users changed their representative."""
    return int((before != after).sum())


def cluster_sizes(assignment: Assignment, k: int) -> Assignment:
    """How many users each of k representatives has, (k,)."""
    return np.bincount(assignment, minlength=k)


def require_budget(k: int, n: int) -> None:
    """Check that k representatives can serve n users.

    Raises:
        InputError: k is less than 1 or more than n.
    """
    if not 1 <= k <= n:
        raise InputError(f"the budget k must be between 1 and the number of users, got k = {k}, n = {n}")


def _loses_least(values: Floats, assignment: Assignment, targets: Assignment, may_move: NDArray[np.bool_]) -> int:
    """The user, of those who may move, for whom the best of the target representatives is the smallest loss."""
    users = np.flatnonzero(may_move)
    served = values[assignment[users], users]
    losses = served - values[np.ix_(targets, users)].max(axis=0)
    return int(users[np.lexsort((users, served, losses))[0]])
