"""What every batched environment offers: many copies of one Markov decision process, advanced together.

A batch holds `copies` independent copies of one environment. `step` applies one action to each and returns a `Step`;
a copy whose episode ended is reset at once, and the state it ended in is kept as `final_observation`, because the two
ways to end differ for learning:

- *terminated*: the decision process itself is over, the value of the final observation is zero;
- *truncated*: only the watching stopped (a time limit), so the value of the final observation is bootstrapped.

Rewards are absent on purpose: they belong to the users (`rmdp.population`), who see a `Transition`.

Shapes: `B` copies, observations of `D` numbers, actions of `A` numbers (Box) or one index (Discrete).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from gt_core.errors import InputError
from numpy.typing import NDArray

__all__ = ["Actions", "BatchEnv", "BoxActions", "DiscreteActions", "Floats", "Step", "Transition", "require_copies"]

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoxActions:
    """Actions are vectors within bounds; `low` and `high` have shape (A,) and may be infinite."""

    low: Floats
    high: Floats

    @property
    def size(self) -> int:
        """How many numbers one action has."""
        return len(self.low)


@dataclass(frozen=True)
class DiscreteActions:
    """Actions are indices 0, ..., count - 1."""

    count: int


Actions = BoxActions | DiscreteActions


class Step(NamedTuple):
    """What one step of all copies brought.

    Attributes:
        observation: (B, D) where each copy stands now: after its reset, if its episode ended.
        final_observation: (B, D) where the step led, before any reset.
        terminated: (B,) the decision process ended.
        truncated: (B,) the time limit, or a diverged simulator, cut the episode.
        info: named quantities of the step with leading dimension B, such as `x_velocity` in m/s.
    """

    observation: Floats
    final_observation: Floats
    terminated: Bools
    truncated: Bools
    info: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Transition:
    """Transitions (s, a, s') as the users see them, with any leading batch dimensions.

    Attributes:
        observation: (..., D) the state acted in.
        action: (..., A) or (...,) the action.
        next_observation: (..., D) the state it led to, before any reset.
        terminated: (...,) whether the decision process ended with it.
        truncated: (...,) whether the episode was cut after it.
        info: named quantities of the step, each with the same leading dimensions.
    """

    observation: Floats
    action: NDArray[Any]
    next_observation: Floats
    terminated: Bools
    truncated: Bools
    info: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class BatchEnv(Protocol):
    """The contract between environments and everything that collects experience.

    Attributes:
        copies: B, how many copies run.
        observation_size: D.
        horizon: steps after which an episode is truncated; None without a limit.
        diverged: how many times a copy's simulator blew up and was reset so far.
    """

    copies: int
    observation_size: int
    horizon: int | None
    diverged: int

    @property
    def actions(self) -> Actions:
        """The action space."""
        ...

    def reset(self) -> Floats:
        """Start a new episode in every copy; observations (B, D)."""
        ...

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply one action per copy, (B, A) or (B,)."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides the future, as arrays."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Floats:
        """Go back to a saved state; the observations (B, D) there."""
        ...

    def close(self) -> None:
        """Release threads and simulators."""
        ...


def require_copies(copies: int) -> int:
    """Return `copies`, the number of simultaneous environments, when it is usable.

    Raises:
        InputError: There is less than one copy.
    """
    if copies < 1:
        raise InputError(f"an environment needs at least 1 copy, got {copies}")
    return copies
