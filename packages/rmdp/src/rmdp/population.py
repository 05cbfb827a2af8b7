"""Users: a population is n reward functions over transitions, evaluated by one vectorised call.

In a decision process with n users (Ivanov and Ben-Porat, "Personalized Reinforcement Learning with a Budget of
Policies", AAAI 2024, arXiv 2401.06514) every transition (s, a, s') earns a vector of rewards, entry i for user i.

Built in:

- `TargetVelocity`: user i likes to move at t_i m/s; the reward is scale * clip(1 - |velocity - t_i| / width, 0, 1);
- `ResourceGathering`: user i owns cell i; a walk of t steps that ends at home earns (1 - t / 100) * visited_i;
- `LinearScalarisation`: user i weighs the objectives of a multi-objective environment by w_i;
- `FunctionPopulation`: rewards of one's own, named on the command line as `package.module:factory`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gt_core.errors import InputError
from gt_core.imports import import_named
from numpy.typing import NDArray

from rmdp.envs.batch import Floats, Transition

__all__ = [
    "PAPER_INTERVALS",
    "FunctionPopulation",
    "LinearScalarisation",
    "Population",
    "ResourceGathering",
    "TargetVelocity",
    "require_users",
]

PAPER_INTERVALS: Mapping[str, tuple[float, float]] = {
    "HalfCheetah": (0.0, 4.0),
    "Hopper": (0.0, 2.5),
    "Walker2d": (0.0, 2.5),
    "Ant": (0.0, 3.0),
}
"""Intervals of target velocities in m/s of the paper's experiments, by robot."""

_ROWS = 256

Rewards = Callable[[Transition], Any]


class Population(Protocol):
    """What the algorithms know of the users.

    Attributes:
        n: how many users there are.
    """

    @property
    def n(self) -> int:
        """How many users there are."""
        ...

    def rewards(self, transition: Transition) -> Floats:
        """Rewards of all users, (..., n), for transitions with leading dimensions (...)."""
        ...

    def eased(self, factor: float) -> "Population":
        """Users `factor` >= 1 times as tolerant, for the start of learning; themselves where it means nothing."""
        ...


@dataclass(frozen=True)
class TargetVelocity:
    """Users who each like one velocity; needs the information `x_velocity`."""

    targets: Floats
    """Liked velocities in m/s, (n,)."""
    width: float
    """Distance in m/s from the target at which the reward has fallen to zero."""
    scale: float = 0.1
    """Reward per step at the target; 0.1 makes 1000 perfect steps worth 100."""

    def __post_init__(self) -> None:
        targets = np.asarray(self.targets, dtype=np.float64)
        if targets.ndim != 1 or not len(targets) or not np.isfinite(targets).all():
            raise InputError(f"targets must be a vector of at least one finite velocity, got {self.targets!r}")
        if not 0 < self.width < np.inf:
            raise InputError(f"width must be a positive velocity in m/s, got {self.width}")
        object.__setattr__(self, "targets", targets)

    @classmethod
    def uniform(cls, n: int, low: float, high: float, generator: np.random.Generator) -> "TargetVelocity":
        """Draw n targets uniformly from [low, high) m/s; the width is a twentieth of the interval.

        Raises:
            InputError: n is less than 1, or the interval is empty or reversed.
        """
        require_users(n)
        _require_interval(low, high)
        return cls(generator.uniform(low, high, n), (high - low) / 20)

    @classmethod
    def paper(cls, robot: str, n: int, seed: int) -> "TargetVelocity":
        """The paper's users: its interval, and its stream of draws (a Mersenne Twister with this seed).

        Args:
            robot: An environment name, such as HalfCheetah-v4.
            n: How many users.
            seed: 0 or more.

        Raises:
            InputError: The paper has no interval for this robot, n is less than 1 or the seed negative.
        """
        family = robot.partition("-")[0]
        if family not in PAPER_INTERVALS:
            raise InputError(f"no target velocities for {robot!r}: the paper has {', '.join(PAPER_INTERVALS)}")
        if seed < 0:
            raise InputError(f"the seed of the users must be 0 or more, got {seed}")
        require_users(n)
        low, high = PAPER_INTERVALS[family]
        return cls(np.random.RandomState(seed).uniform(low, high, n), (high - low) / 20)

    @property
    def n(self) -> int:
        """How many users there are."""
        return len(self.targets)

    def rewards(self, transition: Transition) -> Floats:
        """See `Population`."""
        velocity = _information(transition, "x_velocity", "a target velocity")
        rewards = np.empty((*velocity.shape, self.n))
        rows, speeds = rewards.reshape(-1, self.n), np.reshape(velocity, (-1, 1))
        for start in range(0, len(rows), _ROWS):  # some at a time stay in a core's cache
            row = rows[start : start + _ROWS]
            np.abs(np.subtract(speeds[start : start + _ROWS], self.targets, out=row), out=row)
            row /= self.width
            np.clip(np.subtract(1.0, row, out=row), 0.0, 1.0, out=row)
            row *= self.scale
        return rewards

    def eased(self, factor: float) -> "TargetVelocity":
        """See `Population`; the reward reaches zero `factor` times as far from the target."""
        return TargetVelocity(self.targets, self.width * factor, self.scale)


@dataclass(frozen=True)
class ResourceGathering:
    """Users who each own one cell of the grid; needs the information `visited` and `elapsed`."""

    cells: NDArray[np.int64]
    """The cell of each user in row-major order, (n,)."""

    @classmethod
    def shuffled(cls, generator: np.random.Generator, cells: int = 25) -> "ResourceGathering":
        """One user per cell, numbered in random order, so that no round-robin assignment is lucky by geometry."""
        return cls(generator.permutation(require_users(cells)))

    @property
    def n(self) -> int:
        """How many users there are."""
        return len(self.cells)

    def rewards(self, transition: Transition) -> Floats:
        """See `Population`; zero unless the walk ended at home with this step."""
        visited = _information(transition, "visited", "gathering")[..., self.cells]
        elapsed = _information(transition, "elapsed", "gathering")
        worth = np.where(transition.terminated, 1.0 - elapsed / 100.0, 0.0)
        return np.asarray(worth[..., None] * visited)

    def eased(self, factor: float) -> "ResourceGathering":  # noqa: ARG002 (part of the contract)
        """See `Population`; these users know no tolerance."""
        return self


@dataclass(frozen=True)
class LinearScalarisation:
    """Users who weigh the objectives of a multi-objective environment; needs the information `vector_reward`."""

    weights: Floats
    """Weight of each of m objectives for each user, (n, m)."""

    def __post_init__(self) -> None:
        weights = np.asarray(self.weights, dtype=np.float64)
        if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
            raise InputError(f"weights must be a finite matrix (users, objectives), got {self.weights!r}")
        object.__setattr__(self, "weights", weights)

    @classmethod
    def simplex(cls, n: int, objectives: int, generator: np.random.Generator) -> "LinearScalarisation":
        """Draw n weightings uniformly from the simplex: non-negative, summing to one."""
        return cls(generator.dirichlet(np.ones(objectives), size=require_users(n)))

    @property
    def n(self) -> int:
        """How many users there are."""
        return len(self.weights)

    def rewards(self, transition: Transition) -> Floats:
        """See `Population`."""
        vector = _information(transition, "vector_reward", "a scalarisation")
        if vector.shape[-1] != self.weights.shape[1]:
            raise InputError(f"users weigh {self.weights.shape[1]} objectives, the environment has {vector.shape[-1]}")
        return np.asarray(vector @ self.weights.T)

    def eased(self, factor: float) -> "LinearScalarisation":  # noqa: ARG002 (part of the contract)
        """See `Population`; these users know no tolerance."""
        return self


@dataclass(frozen=True)
class FunctionPopulation:
    """Users given by a function from transitions to (..., n) rewards, whose every answer is checked."""

    function: Rewards
    """Maps a `Transition` to an array (..., n)."""
    n: int
    """How many users there are."""
    name: str = "the users' function"
    """How error messages call the function."""

    @classmethod
    def from_factory(cls, path: str, n: int, generator: np.random.Generator) -> "FunctionPopulation":
        """Call the factory `package.module:factory` with (n, generator) for its reward function.

        Raises:
            InputError: There is no such factory, it does not return a function, or n is less than 1.
        """
        factory = import_named(path)
        if not callable(factory):
            raise InputError(f"{path} must be a function of (n, generator), it is {type(factory).__name__}")
        function = factory(require_users(n), generator)
        if not callable(function):
            raise InputError(f"{path} must return a function of a transition, it returned {type(function).__name__}")
        return cls(function, n, path)

    def rewards(self, transition: Transition) -> Floats:
        """See `Population`.

        Raises:
            InputError: The function returned another number of rewards, or one that is not finite.
        """
        rewards = np.asarray(self.function(transition), dtype=np.float64)
        expected = (*transition.terminated.shape, self.n)
        if rewards.shape != expected:
            raise InputError(
                f"{self.name} returned rewards of shape {rewards.shape}, expected {expected}: batch, users"
            )
        if not np.isfinite(rewards).all():
            user = int(np.argwhere(~np.isfinite(rewards))[0][-1])
            raise InputError(f"{self.name} returned a reward that is not finite for user {user}")
        return rewards

    def eased(self, factor: float) -> "FunctionPopulation":  # noqa: ARG002 (part of the contract)
        """See `Population`; these users know no tolerance."""
        return self


def require_users(n: int) -> int:
    """Return n, the number of users, when there is at least one.

    Raises:
        InputError: n is less than 1.
    """
    if n < 1:
        raise InputError(f"a population needs at least 1 user, got n = {n}")
    return n


def _require_interval(low: float, high: float) -> None:
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"target velocities need finite low < high, got low = {low}, high = {high}")


def _information(transition: Transition, key: str, users: str) -> NDArray[Any]:
    if key not in transition.info:
        known = ", ".join(sorted(transition.info)) or "nothing"
        raise InputError(f"users of {users} need {key!r}, which this environment does not report: it reports {known}")
    return transition.info[key]
