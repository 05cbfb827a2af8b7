"""End-to-end learning: a soft assignment that follows the gradient of the welfare.

Each user i holds a distribution over representatives, alpha_ij = softmax_j(logits_ij), and the welfare

    SW = 1/n sum_i sum_j alpha_ij Q_ji

is maximised in both arguments (arXiv 2401.06514, section 4): the policies by proximal policy optimisation of
sum_i alpha_ij r_i, the logits by the gradient itself,

    d SW / d logits_ij = alpha_ij (Q_ji - sum_l alpha_il Q_li) / n,

with Q the table of returns. The published code instead sends the assignment's gradient through advantages that are
normalised to mean zero afterwards; it vanishes whenever the probability ratios are one. Adam takes one step per
iteration, so that only the sign and the order of the returns matter, not their unit.

The users are as tolerant as in `rmdp.algorithms.em`, for the same reason. Logits start standard normal, as published.
The assignment that counts is the most probable one, which no user is worse off with at the same returns.
"""

from typing import Any

import torch
from gt_core.seeding import Streams, derive_seed

from rmdp.assignment import Assignment, QTable, cluster_sizes, flips, greedy_assignment, social_welfare
from rmdp.config import TrainConfig
from rmdp.population import Population
from rmdp.representatives import Representatives, remember, tolerance, users_and_eased

__all__ = ["EndToEnd", "soft_welfare"]


def soft_welfare(logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean expected return of the users.

    Args:
        logits: Of the soft assignment, (k, n).
        values: Returns, (k, n).

    Returns:
        A number, differentiable in both.
    """
    return (logits.softmax(0) * values).sum(0).mean()


class EndToEnd:
    """A run with a soft assignment.

    Args:
        config: The run's config.
        population: The users.
    """

    def __init__(self, config: TrainConfig, population: Population) -> None:
        self.config, self.population = config, population
        self.step = 0
        streams = Streams(config.seed, config.device)
        self.representatives = Representatives(config, population.n, streams)
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "soft assignment"))
        start = torch.randn(config.k, population.n, generator=generator, dtype=torch.float64)
        self.logits = torch.nn.Parameter(start)
        self.assigner = torch.optim.Adam([self.logits], lr=config.assignment_rate)
        self.eased_table = QTable.empty(config.k, population.n)
        self.table = QTable.empty(config.k, population.n)

    @property
    def assignment(self) -> Assignment:
        """The most probable representative of each user, (n,); none is left without users."""
        logits = self.logits.detach().numpy()
        return greedy_assignment(logits, logits.argmax(axis=0))

    def iterate(self) -> dict[str, float]:
        """Collect, step of the policies, step of the assignment; the figures to log."""
        config, before = self.config, self.assignment
        ease = tolerance(config, self.step)
        segment = self.representatives.collect()
        rewards, eased = users_and_eased(self.population, ease, segment)
        self.table = remember(self.table, rewards, segment, config.memory)
        self.eased_table = remember(self.eased_table, eased, segment, config.memory)

        alpha = self.logits.detach().softmax(0).numpy()
        figures = self.representatives.improve(segment, eased, alpha, self.step / config.iterations)
        if self.step >= config.warm_up and self.eased_table.is_complete:
            self._climb()
        self.step += 1
        values, after = self.table.values, self.assignment
        return figures | {
            "train/welfare": social_welfare(values, after),
            "train/soft_welfare": soft_welfare(self.logits.detach(), torch.from_numpy(values)).item(),
            "train/flips": flips(before, after),
            "train/largest_cluster": int(cluster_sizes(after, config.k).max()),
            "train/ease": ease,
            "train/env_steps": self.step * config.steps_per_iteration,
        }

    def _climb(self) -> None:
        """One step of the assignment up the gradient of the welfare."""
        self.assigner.zero_grad()
        (-soft_welfare(self.logits, torch.from_numpy(self.eased_table.values))).backward()
        self.assigner.step()

    def state_dict(self) -> dict[str, Any]:
        """The representatives, the tables, the soft assignment and its optimiser."""
        return {
            "step": self.step,
            "representatives": self.representatives.state_dict(),
            "table": self.table.state_dict(),
            "eased_table": self.eased_table.state_dict(),
            "logits": self.logits.detach(),
            "assigner": self.assigner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.representatives.load_state_dict(state["representatives"])
        self.assigner.load_state_dict(state["assigner"])
        self.table, self.eased_table = (QTable.from_state_dict(state[name]) for name in ("table", "eased_table"))
        with torch.no_grad():
            self.logits.copy_(state["logits"])
