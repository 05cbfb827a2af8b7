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

import numpy as np
import torch
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams

from rmdp.assignment import QTable, balanced_assignment, cluster_sizes, flips, greedy_assignment, social_welfare, update
from rmdp.config import TrainConfig
from rmdp.envs.batch import Floats
from rmdp.ppo import Experience, PPOConfig, generalised_advantages, improve
from rmdp.rollout import Segment, by_representative, collect, stagger
from rmdp.setup import build_env, build_networks, build_population

__all__ = ["EM"]


class EM:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: The run's config.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self.streams = Streams(config.seed, config.device)
        self.population = build_population(config)
        self.env = build_env(config, config.copies_each, self.streams.numpy("environments"))
        self.observation: Floats = self.env.reset()
        stagger(self.env, config.k)
        self.policies, self.critics, self.moments = build_networks(config, self.env, self.population.n, self.streams)
        parameters = [*self.policies.parameters(), *self.critics.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5)
        self.assignment = balanced_assignment(config.k, self.population.n, self.streams.numpy("assignment"))
        self.eased_table = QTable.empty(config.k, self.population.n)
        self.table = QTable.empty(config.k, self.population.n)

    def iterate(self) -> dict[str, float]:
        """Collect, M-step, E-step; the figures to log."""
        config, k = self.config, self.config.k
        ease = geometric(self.step / config.iterations, config.ease, 1.0, until=config.ease_until)
        segment = collect(
            self.env, self.observation, self.policies, self.moments, k, config.segment, self.streams.torch("actions")
        )
        self.observation = segment.observation
        rewards = self.population.rewards(segment.transition)
        eased = self.population.eased(ease).rewards(segment.transition) if ease > 1 else rewards
        self.table = self._remember(self.table, rewards, segment)
        self.eased_table = self._remember(self.eased_table, eased, segment)

        figures = self._m_step(segment, eased)
        moved = self._e_step()
        self.step += 1
        return figures | {
            "train/welfare": social_welfare(self.table.values, self.assignment),
            "train/flips": moved,
            "train/largest_cluster": int(cluster_sizes(self.assignment, k).max()),
            "train/ease": ease,
            "train/env_steps": self.step * config.segment * self.env.copies,
            "train/diverged": self.env.diverged,
        }

    def _m_step(self, segment: Segment, rewards: Floats) -> dict[str, float]:
        """Improve each policy for the summed rewards (T, B, n) of its users."""
        config, progress = self.config, self.step / self.config.iterations
        for group in self.optimiser.param_groups:
            group["lr"] = geometric(progress, config.learning_rate, config.final_learning_rate)
        settings = PPOConfig(
            epochs=config.epochs,
            minibatches=config.minibatches,
            clip=config.clip,
            entropy=geometric(progress, config.entropy, config.final_entropy),
            kl_limit=config.kl_limit,
            gradient_norm=config.gradient_norm,
        )
        experience = self._experience(segment, rewards)
        done = improve(
            self.policies, self.critics, self.optimiser, experience, settings, self.streams.torch("minibatches")
        )
        if config.normalise:
            self.moments.observe(segment.transition.observation)
        require_finite(policy_loss=done.policy_loss, value_loss=done.value_loss)
        return {f"train/{name}": value for name, value in done._asdict().items()}

    def _e_step(self) -> int:
        """Move every user to the best policy; how many moved."""
        if self.step < self.config.warm_up or not self.eased_table.is_complete:
            return 0
        before, balanced = self.assignment, self.step < self.config.balance_until * self.config.iterations
        capacity = math.ceil(self.population.n / self.config.k) if balanced else None
        self.assignment = greedy_assignment(self.eased_table.values, before, capacity)
        return flips(before, self.assignment)

    @torch.no_grad()
    def _experience(self, segment: Segment, rewards: Floats) -> Experience:
        """Advantages of each policy's users, and value targets of all."""
        k, transition = self.config.k, segment.transition
        device = segment.normalised.device

        def values(observations: torch.Tensor) -> torch.Tensor:
            flat: torch.Tensor = self.critics(by_representative(observations, k))
            return flat.view(k, len(observations), -1, self.population.n).transpose(0, 1).flatten(1, 2)

        value = values(segment.normalised)
        advantage = generalised_advantages(
            torch.as_tensor(rewards, dtype=torch.float32).to(device),
            value,
            values(self.moments.normalise(transition.next_observation)),
            torch.as_tensor(transition.terminated).to(device),
            torch.as_tensor(segment.ended).to(device),
            gamma=self.config.gamma,
            decay=self.config.gae_lambda,
        )
        serves = torch.as_tensor(self.assignment).to(device) == torch.arange(k, device=device)[:, None]
        own = torch.einsum("ksn,kn->ks", by_representative(advantage, k), serves.float())
        own = (own - own.mean(1, keepdim=True)) / (own.std(1, keepdim=True) + 1e-3)
        parts = segment.normalised, segment.action, segment.log_probability
        observation, action, log_probability = (by_representative(part, k) for part in parts)
        return Experience(observation, action, log_probability, own, by_representative(advantage + value, k))

    def _remember(self, table: QTable, rewards: Floats, segment: Segment) -> QTable:
        k = self.config.k
        summed = rewards.sum(axis=0).reshape(k, -1, self.population.n).sum(axis=1)
        ended = segment.ended.sum(axis=0).reshape(k, -1).sum(axis=1)
        return update(table, summed, ended.astype(np.float64), self.config.memory)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, tables, assignment, environments and random generators."""
        arrays = {
            "observation": self.observation,
            "assignment": self.assignment,
            "reward": self.table.reward,
            "episodes": self.table.episodes,
            "eased_reward": self.eased_table.reward,
            "eased_episodes": self.eased_table.episodes,
        }
        return {
            "step": self.step,
            "policies": self.policies.state_dict(),
            "critics": self.critics.state_dict(),
            "moments": self.moments.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "arrays": {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
            "environments": {name: torch.from_numpy(np.array(array)) for name, array in self.env.state().items()},
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        for name in ("policies", "critics", "moments", "optimiser", "streams"):
            getattr(self, name).load_state_dict(state[name])
        arrays = {name: tensor.numpy() for name, tensor in state["arrays"].items()}
        self.assignment = arrays["assignment"]
        self.table = QTable(arrays["reward"], arrays["episodes"])
        self.eased_table = QTable(arrays["eased_reward"], arrays["eased_episodes"])
        self.env.restore({name: tensor.numpy() for name, tensor in state["environments"].items()})
        self.observation = arrays["observation"]
