"""The oracle baseline: users clustered by what the learner is not told, their target velocities.

The interval of targets is cut into k parts of equal width and each representative serves one of them (arXiv
2401.06514, section 5). A part without any user receives the user who is nearest to its middle without being alone
elsewhere, so that no policy is idle. Only users with target velocities have such a geometry.
"""

import numpy as np
from gt_core.errors import InputError

from rmdp.algorithms.fixed import Fixed
from rmdp.assignment import Assignment, greedy_assignment
from rmdp.config import TrainConfig
from rmdp.envs.batch import Floats
from rmdp.population import PAPER_INTERVALS, Population, TargetVelocity

__all__ = ["equal_intervals", "oracle"]


def oracle(config: TrainConfig, population: Population) -> Fixed:
    """A run with the users of one interval of target velocities at each representative.

    Raises:
        InputError: The users have no target velocities.
    """
    if not isinstance(population, TargetVelocity):
        raise InputError(f"oracle needs users with target velocities, {config.env} has others: use another --algorithm")
    low, high = PAPER_INTERVALS[config.env.partition("-")[0]]
    return Fixed(config, population, equal_intervals(population.targets, low, high, config.k))


def equal_intervals(targets: Floats, low: float, high: float, k: int) -> Assignment:
    """Which of k equal parts of [low, high] each target (n,) lies in: the one whose middle is nearest."""
    middles = low + (high - low) * (np.arange(k) + 0.5) / k
    return greedy_assignment(-np.abs(middles[:, None] - targets), np.zeros(len(targets), dtype=np.int64))
