"""k representatives at work: their networks, their environments, and the M-step that every algorithm shares.

The M-step improves representative j for a weighting of the users, the reward sum_i alpha_ij r_i. Algorithms differ in
where alpha comes from: a hard assignment that is moved or fixed, or a soft one that is learnt.
"""

from typing import Any

import numpy as np
import torch
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from numpy.typing import NDArray

from rmdp.assignment import Assignment, QTable, update
from rmdp.config import TrainConfig
from rmdp.envs.batch import Floats
from rmdp.population import Population
from rmdp.ppo import Experience, Learner, PPOConfig, generalised_advantages
from rmdp.rollout import Collector, Segment, by_representative, stagger
from rmdp.setup import build_env, build_networks

__all__ = ["Representatives", "arrays_to_tensors", "one_hot", "remember", "tolerance", "users_and_eased"]


class Representatives:
    """What acts and learns: policies, critics, observation moments, their learner and environments.

    Args:
        config: The run's config.
        n: How many users the critics value.
        streams: Randomness of the environments, the actions and the minibatches.
    """

    def __init__(self, config: TrainConfig, n: int, streams: Streams) -> None:
        self.config, self.n, self.streams = config, n, streams
        self.env = build_env(config, config.copies_each, streams.numpy("environments"))
        self.observation: Floats = self.env.reset()
        stagger(self.env, config.k)
        self.policies, self.critics, self.moments = build_networks(config, self.env, n, streams)
        self.learner = Learner(self.policies, self.critics, config.k, config.threads)
        self.collector = Collector(self.env, self.policies, self.moments, config.k, config.threads)
        self._memory: torch.Tensor | None = None
        self._ahead: tuple[dict[str, Any], Segment] | None = None
        """Where everything stood before the next segment, if that is collected already, and the segment."""

    def collect(self) -> Segment:
        """Act for one iteration."""
        if self._ahead is not None:
            (_, segment), self._ahead = self._ahead, None
            return segment
        segment = self.collector.collect(self.observation, self.config.segment, self.streams.torch("actions"))
        self.observation = segment.observation
        return segment

    def improve(self, segment: Segment, rewards: Floats, weights: Floats, progress: float) -> dict[str, float]:
        """The M-step.

        Where other processes move the critics, the next segment is collected while they finish: the policies that play
        it are done before, and nothing else decides it.

        Args:
            segment: What `collect` returned.
            rewards: Of all users, (T, B, n).
            weights: alpha, how much each representative cares for each user, (k, n).
            progress: Share of training done, for the schedules.

        Returns:
            Figures to log.
        """
        config = self.config
        settings = PPOConfig(
            epochs=config.epochs,
            minibatches=config.minibatches,
            clip=config.clip,
            entropy=geometric(progress, config.entropy, config.final_entropy),
            kl_limit=config.kl_limit,
            gradient_norm=config.gradient_norm,
            learning_rate=geometric(progress, config.learning_rate, config.final_learning_rate),
        )
        experience, diverged = self._experience(segment, rewards, weights), self.env.diverged
        is_last = progress > 1 - 1.5 / config.iterations

        def meanwhile() -> None:
            if config.normalise:
                self.moments.observe(segment.transition.observation)
            if self.learner.has_helpers and not is_last:
                self._ahead = self._stand(), self.collect()

        done = self.learner.improve(experience, settings, self.streams.torch("minibatches"), meanwhile)
        require_finite(policy_loss=done.policy_loss, value_loss=done.value_loss)
        figures = {f"train/{name}": value for name, value in done._asdict().items()}
        return figures | {"train/diverged": diverged}

    @torch.no_grad()
    def _experience(self, segment: Segment, rewards: Floats, weights: Floats) -> Experience:
        """Advantages of each policy's users, and value targets of all."""
        k, transition = self.config.k, segment.transition
        device, (steps, copies) = segment.normalised.device, segment.normalised.shape[:2]
        if self._memory is None:  # large memory is slow when it is new
            self._memory = torch.empty(2, k, steps * copies // k, self.n, device=device)

        def by_step(array: NDArray[Any]) -> torch.Tensor:
            split: torch.Tensor = torch.as_tensor(array).to(device).unflatten(1, (k, -1))
            return split

        value, gained = self._memory
        reached = self.moments.normalise(transition.next_observation)
        for observation, values in ((segment.normalised, value), (reached, gained)):
            self.learner.values(by_representative(observation, k), values)
        value_by_step, gained_by_step = (part.unflatten(1, (steps, -1)).transpose(0, 1) for part in (value, gained))
        generalised_advantages(
            by_step(rewards),
            value_by_step,
            gained_by_step,
            by_step(segment.ended if self.config.deadline else transition.terminated),
            by_step(segment.ended),
            gamma=self.config.gamma,
            decay=self.config.gae_lambda,
        )
        alpha = torch.as_tensor(weights, dtype=torch.float32).to(device)
        own = torch.einsum("ksn,kn->ks", gained, alpha)
        own = (own - own.mean(1, keepdim=True)) / (own.std(1, keepdim=True) + 1e-3)
        parts = segment.normalised, segment.action, segment.log_probability
        observation, action, log_probability = (by_representative(part, k) for part in parts)
        return Experience(observation, action, log_probability, own, value.add_(gained))

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, environments and random generators."""
        return {
            "policies": self.policies.state_dict(),
            "critics": self.critics.state_dict(),
            "moments": self.moments.state_dict(),
            "learner": self.learner.state_dict(),
            **(self._stand() if self._ahead is None else self._ahead[0]),
        }

    def _stand(self) -> dict[str, Any]:
        """Where the environments and the random generators stand."""
        return {
            "observation": torch.from_numpy(np.ascontiguousarray(self.observation)),
            "environments": arrays_to_tensors(self.env.state()),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._ahead = None
        for name in ("policies", "critics", "moments", "learner", "streams"):
            getattr(self, name).load_state_dict(state[name])
        self.env.restore({name: tensor.numpy() for name, tensor in state["environments"].items()})
        self.observation = state["observation"].numpy()


def tolerance(config: TrainConfig, step: int) -> float:
    """How many times as tolerant as they are users seem in this iteration; `Population.eased` takes it."""
    return geometric(step / config.iterations, config.ease, 1.0, until=config.ease_until)


def users_and_eased(population: Population, factor: float, segment: Segment) -> tuple[Floats, Floats]:
    """Rewards (T, B, n) of the users, and of the same users `factor` times as tolerant."""
    rewards = population.rewards(segment.transition)
    return rewards, population.eased(factor).rewards(segment.transition) if factor > 1 else rewards


def remember(table: QTable, rewards: Floats, segment: Segment, memory: float) -> QTable:
    """Add a segment's rewards (T, B, n) to a table of returns."""
    k, n = table.reward.shape
    summed = rewards.sum(axis=0).reshape(k, -1, n).sum(axis=1)
    return update(table, summed, segment.episodes.reshape(k, -1).sum(axis=1), memory)


def one_hot(assignment: Assignment, k: int) -> Floats:
    """A hard assignment (n,) as weights (k, n)."""
    return np.asarray(assignment == np.arange(k)[:, None], dtype=np.float32)


def arrays_to_tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """NumPy arrays as tensors, which checkpoints hold; flat arrays of no dimension stay so."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
