"""Learning with an assignment that was fixed beforehand: M-steps alone.

What `random`, `oracle`, the two bounds and the second half of `cluster` have in common. Each representative maximises
the summed return of the users it was given; users never move.
"""

from typing import Any

import torch
from gt_core.seeding import Streams

from rmdp.assignment import Assignment, QTable, cluster_sizes, social_welfare
from rmdp.config import TrainConfig
from rmdp.population import Population
from rmdp.representatives import Representatives, one_hot, remember, tolerance, users_and_eased

__all__ = ["Fixed"]


class Fixed:
    """A run with a fixed assignment.

    Args:
        config: The run's config.
        population: The users.
        assignment: Who is served by whom, (n,).
    """

    def __init__(self, config: TrainConfig, population: Population, assignment: Assignment) -> None:
        self.config, self.population, self.assignment = config, population, assignment
        self.step = 0
        self.representatives = Representatives(config, population.n, Streams(config.seed, config.device))
        self.table = QTable.empty(config.k, population.n)

    def iterate(self) -> dict[str, float]:
        """Collect and M-step; the figures to log."""
        config = self.config
        ease = tolerance(config, self.step)
        segment = self.representatives.collect()
        rewards, eased = users_and_eased(self.population, ease, segment)
        self.table = remember(self.table, rewards, segment, config.memory)
        weights, progress = one_hot(self.assignment, config.k), self.step / config.iterations
        figures = self.representatives.improve(segment, eased, weights, progress)
        self.step += 1
        return figures | {
            "train/welfare": social_welfare(self.table.values, self.assignment),
            "train/flips": 0,
            "train/largest_cluster": int(cluster_sizes(self.assignment, config.k).max()),
            "train/ease": ease,
            "train/env_steps": self.step * config.steps_per_iteration,
        }

    def state_dict(self) -> dict[str, Any]:
        """The representatives, the table and the assignment."""
        return {
            "step": self.step,
            "representatives": self.representatives.state_dict(),
            "assignment": torch.from_numpy(self.assignment),
            "table": self.table.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.representatives.load_state_dict(state["representatives"])
        self.assignment, self.table = state["assignment"].numpy(), QTable.from_state_dict(state["table"])
