"""The EM-like algorithm: improve the policies for their users, then move the users to their best policies.

Utilitarian welfare of k policies and an assignment of n users is maximised by turns (Ivanov and Ben-Porat, AAAI 2024,
arXiv 2401.06514, section 4):

- *M-step*: each policy learns, by proximal policy optimisation, the sum of its users' rewards;
- *E-step*: each user moves to the policy with the highest estimated return.

With exact steps neither lowers welfare. What this version does beyond the published one:

- users move without being pinned (`rmdp.assignment`), and the table of returns uses the newest rewards;
- learning begins with tolerant users (`Population.eased`), who become themselves by and by. A user who only values
  velocities within 0.2 m/s of a target that no policy reaches yet gives no gradient and no preference between policies,
  so that the first assignment would decide the last; tolerant users tell policies and E-steps the way. The rewards
  that are reported are those of the users themselves;
- clusters have equal size at the start of learning, so that policies spread over the users before they compete for
  them: the first policy that gets going would otherwise win nearly all, and leave nobody for the others to learn from.
"""

import math
from typing import Any

import torch
from gt_core.seeding import Streams

from rmdp.assignment import QTable, balanced_assignment, cluster_sizes, flips, greedy_assignment, social_welfare
from rmdp.config import TrainConfig
from rmdp.population import Population
from rmdp.representatives import Representatives, one_hot, remember, tolerance, users_and_eased

__all__ = ["EM"]


class EM:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: The run's config.
        population: The users.
    """

    def __init__(self, config: TrainConfig, population: Population) -> None:
        self.config, self.population = config, population
        self.step = 0
        self.streams = Streams(config.seed, config.device)
        self.representatives = Representatives(config, population.n, self.streams)
        self.assignment = balanced_assignment(config.k, population.n, self.streams.numpy("assignment"))
        self.eased_table = QTable.empty(config.k, population.n)
        self.table = QTable.empty(config.k, population.n)

    def iterate(self) -> dict[str, float]:
        """Collect, M-step, E-step; the figures to log."""
        config, k = self.config, self.config.k
        ease = tolerance(config, self.step)
        segment = self.representatives.collect()
        rewards, eased = users_and_eased(self.population, ease, segment)
        self.table = remember(self.table, rewards, segment, config.memory)
        self.eased_table = remember(self.eased_table, eased, segment, config.memory)

        progress = self.step / config.iterations
        figures = self.representatives.improve(segment, eased, one_hot(self.assignment, k), progress)
        moved = self._e_step()
        self.step += 1
        return figures | {
            "train/welfare": social_welfare(self.table.values, self.assignment),
            "train/flips": moved,
            "train/largest_cluster": int(cluster_sizes(self.assignment, k).max()),
            "train/ease": ease,
            "train/env_steps": self.step * config.steps_per_iteration,
        }

    def _e_step(self) -> int:
        """Move every user to the best policy; how many moved."""
        if self.step < self.config.warm_up or not self.eased_table.is_complete:
            return 0
        before, balanced = self.assignment, self.step < self.config.balance_until * self.config.iterations
        capacity = math.ceil(self.population.n / self.config.k) if balanced else None
        self.assignment = greedy_assignment(self.eased_table.values, before, capacity)
        return flips(before, self.assignment)

    def state_dict(self) -> dict[str, Any]:
        """The representatives, the tables and the assignment."""
        return {
            "step": self.step,
            "representatives": self.representatives.state_dict(),
            "assignment": torch.from_numpy(self.assignment),
            "table": self.table.state_dict(),
            "eased_table": self.eased_table.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.representatives.load_state_dict(state["representatives"])
        self.assignment = state["assignment"].numpy()
        self.table, self.eased_table = (QTable.from_state_dict(state[name]) for name in ("table", "eased_table"))
