"""Resource gathering as a batch: walks on a 5 x 5 grid that leave home and come back.

The published variant of MO-Gymnasium's `resource-gathering-v0` without gold, gem and enemies: the walker starts at
home, (row 4, column 2); the actions 0, 1, 2, 3 move up, down, left, right, and a move into the wall stays in place.
The episode terminates as soon as a step ends at home (a bump into the wall below home at the first step included) and
is truncated after 40 steps.

An observation has 29 numbers: row, column, gold and gem (always 0 here), and for each cell in row-major order whether
it was visited. The step's information: `visited`, (B, 25) booleans, and `elapsed`, (B,), the steps of the episode.
Nothing is random.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gt_core.errors import InputError
from numpy.typing import NDArray

from rmdp.envs.batch import DiscreteActions, Step, require_copies

__all__ = ["HOME", "SIDE", "ResourceGatheringBatch"]

SIDE = 5
"""Cells per side of the grid."""
HOME = (4, 2)
"""Row and column of the home cell."""
_HORIZON = 40
_MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])


class ResourceGatheringBatch:
    """B walkers on their own grids; a `BatchEnv`.

    Args:
        copies: B.

    Raises:
        InputError: There is less than one copy.
    """

    def __init__(self, copies: int) -> None:
        self.copies = require_copies(copies)
        self.observation_size = 4 + SIDE * SIDE
        self.actions = DiscreteActions(len(_MOVES))
        self.horizon: int | None = _HORIZON
        self.diverged = 0
        self._position = np.zeros((copies, 2), dtype=np.int64)
        self._visited = np.zeros((copies, SIDE * SIDE), dtype=bool)
        self._elapsed = np.zeros(copies, dtype=np.int64)

    def reset(self) -> NDArray[np.float64]:
        """Put every walker home.

        Returns:
            Observations, (B, 29).
        """
        self._go_home(np.ones(self.copies, dtype=bool))
        return self._observe()

    def step(self, actions: NDArray[Any]) -> Step:
        """Move every walker once.

        Args:
            actions: (B,) integers in 0..3.

        Raises:
            InputError: The shape is not (B,), or an action is not one of the four.
        """
        if actions.shape != (self.copies,) or not np.isin(actions, range(len(_MOVES))).all():
            raise InputError(f"expected {self.copies} actions out of 0, 1, 2, 3, got {actions}")
        self._position = np.clip(self._position + _MOVES[actions.astype(np.int64)], 0, SIDE - 1)
        self._visited[np.arange(self.copies), self._cell()] = True
        self._elapsed += 1
        terminated = (self._position == HOME).all(axis=1)
        truncated = self._elapsed >= _HORIZON
        final, info = self._observe(), {"visited": self._visited.copy(), "elapsed": self._elapsed.copy()}
        self._go_home(terminated | truncated)
        return Step(self._observe(), final, terminated, truncated, info)

    def state(self) -> dict[str, NDArray[Any]]:
        """See `BatchEnv`."""
        return {
            "position": self._position.copy(),
            "visited": self._visited.copy(),
            "elapsed": self._elapsed.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `BatchEnv`."""
        self._position[:], self._visited[:] = state["position"], state["visited"]
        self._elapsed[:] = state["elapsed"]
        return self._observe()

    def close(self) -> None:
        """There is nothing to release."""

    def _cell(self) -> NDArray[np.int64]:
        return np.asarray(self._position @ (SIDE, 1))

    def _go_home(self, which: NDArray[np.bool_]) -> None:
        self._position[which], self._visited[which], self._elapsed[which] = HOME, False, 0
        self._visited[which, self._cell()[which]] = True

    def _observe(self) -> NDArray[np.float64]:
        nothing_carried = np.zeros((self.copies, 2))
        return np.concatenate([self._position, nothing_carried, self._visited], axis=1, dtype=np.float64)
