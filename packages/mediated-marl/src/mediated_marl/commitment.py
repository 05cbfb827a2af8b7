"""For how long a choice to commit, or not to, binds: the lock of each agent, as pure functions.

With a window of k steps an agent's lock counts towards zero, one per step.

- 0: the agent is free to choose.
- positive: it committed before and stays in the coalition; only the commit action is legal.
- negative: it stayed out before and stays out; its own actions are legal, committing is not.

A free agent that commits is locked to +k, one that does not to -k; one step later k - 1 steps of that remain, so
k = 1 means to decide anew at every step.  With the whole-episode threat (`lock_out = "episode"`), staying out once
bars the agent until the episode ends; having committed still binds for k steps only.  Locks are zero at reset.

All tensors are `[*batch, N]`; locks are int64.
"""

from typing import Literal

import torch
from gt_core.errors import InputError
from torch import Tensor

__all__ = ["checked_window", "may_act", "may_commit", "next_locks"]

LockOut = Literal["window", "episode"]
BARRED = torch.iinfo(torch.int64).min // 2


def checked_window(window: int, lock_out: str, horizon: int | None = None) -> None:
    """Check a window before anything is run with it.

    Raises:
        InputError: a window below 1 or beyond the horizon, or an unknown lock-out rule.
    """
    if window < 1:
        raise InputError(f"window is {window}; a commitment lasts at least one step, give 1 or more")
    if horizon is not None and window > horizon:
        raise InputError(f"window is {window}, but an episode has only {horizon} steps; give 1 to {horizon}")
    if lock_out not in ("window", "episode"):
        raise InputError(f'lock_out is {lock_out!r}; choose "window" or "episode"')


def may_commit(locks: Tensor) -> Tensor:
    """Where the commit action is legal."""
    return locks >= 0


def may_act(locks: Tensor) -> Tensor:
    """Where the agent's own actions are legal."""
    return locks <= 0


def next_locks(locks: Tensor, committed: Tensor, window: int, lock_out: LockOut = "window") -> Tensor:
    """The locks before the next step.

    Args:
        locks: the locks under which the agents just acted.
        committed: bool, who was in the coalition.
        window: k.
        lock_out: whether staying out binds for a window or for the rest of the episode.

    Returns:
        The new locks: fresh decisions take their window, then every lock moves one towards zero.
    """
    stays_out = -window if lock_out == "window" else BARRED
    decided = torch.where(committed, window, stays_out)
    current = torch.where(locks == 0, decided, locks)
    step = torch.where(current <= BARRED, 0, current.sign())
    return current - step
