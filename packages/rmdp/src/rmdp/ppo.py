"""Proximal policy optimisation of k policies at once; knows advantages and actions, no environment.

For each representative j the clipped surrogate (Schulman et al., arXiv 1707.06347, equation 7) is maximised, with the
advantage of the *sum of its users' rewards*:

    A_j = sum over users i of alpha_ij * TD_i,    TD_i = generalised advantage of user i (arXiv 1506.02438),

normalised to mean 0 and deviation 1 over the representative's own samples, so that a small cluster learns as fast as a
large one. The critics fit the lambda-returns of all users. Time limits are bootstrapped from the state they cut.

Representatives do not disturb each other: gradients are clipped, and updates halted by the KL limit, one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmdp.adam import Adam
from rmdp.arrays import Array, empty, namespace, one_blas_thread, take, to_array
from rmdp.backpropagation import Pass, Rows, join, layers_of
from rmdp.distributions import distribution_of
from rmdp.policies import Critics, Policies

__all__ = ["Experience", "Learner", "PPOConfig", "UpdateFigures", "generalised_advantages"]

_TOGETHER = 2
"""How many critics learn side by side: enough for long operations, few enough to stay in a core's cache."""
_ROWS = 64
"""How many samples they value at once."""


@dataclass(frozen=True)
class PPOConfig:
    """What an update is made of."""

    epochs: int
    """Passes over the experience."""
    minibatches: int
    """Gradient steps per pass."""
    clip: float
    """How far the probability ratio may usefully move from one."""
    entropy: float
    """Weight of the entropy bonus."""
    kl_limit: float
    """Mean KL divergence within a pass beyond which a representative skips the remaining passes."""
    gradient_norm: float
    """Largest norm of one representative's gradient."""
    learning_rate: float
    """Adam's."""


class Experience(NamedTuple):
    """Samples of each representative, S of them in random order or not."""

    observation: Tensor
    """Normalised, (k, S, D)."""
    action: Tensor
    """In the policy's units, (k, S, A) or (k, S)."""
    log_probability: Tensor
    """When drawn, (k, S)."""
    advantage: Tensor
    """Of the representative's users, normalised, (k, S)."""
    value_target: Tensor
    """Lambda-returns of all users, (k, S, n)."""


class UpdateFigures(NamedTuple):
    """What an update did, as means over representatives and the steps taken."""

    policy_loss: float
    value_loss: float
    kl: float
    entropy: float


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, ended: Tensor, *, gamma: float, decay: float
) -> Tensor:
    """Exponentially weighted sums of temporal differences (arXiv 1506.02438, equation 16).

    Args:
        reward: (T, ..., n).
        value: Values of the states acted in, (T, ..., n).
        next_value: Values of the states led to, before any reset, (T, ..., n).
        terminated: Whether the process ended there, so that the next value counts as zero, (T, ...).
        ended: Whether the episode ended there for whatever reason, so that the sum stops, (T, ...).
        gamma: Discount per step.
        decay: Lambda, the weight of each further difference.

    Returns:
        Advantages, (T, ..., n).
    """
    difference = reward + gamma * next_value * ~terminated.unsqueeze(-1) - value
    carry = gamma * decay * (~ended).unsqueeze(-1)
    advantage, later = torch.empty_like(difference), torch.zeros_like(difference[0])
    for t in range(len(reward) - 1, -1, -1):
        later = difference[t] + carry[t] * later
        advantage[t] = later
    return advantage


class Learner:
    """What improves policies and their critics.

    Within a pass over the experience the policies and each small group of critics have nothing in common: threads share
    them, and the result does not depend on their number.

    Args:
        policies: Improved in place.
        critics: Likewise.
        k: How many of each.
        threads: How many threads work.
    """

    def __init__(self, policies: Policies, critics: Critics, k: int, threads: int = 1) -> None:
        self._policies = _PolicyLearner(policies, k)
        self.distribution = self._policies.distribution
        """What the policies' outputs mean."""
        rows, groups = join(critics, k)[0], range(0, k, _TOGETHER)
        self._critics = [_CriticLearner(critics, rows, slice(start, start + _TOGETHER)) for start in groups]
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def improve(self, experience: Experience, config: PPOConfig, generator: torch.Generator) -> UpdateFigures:
        """Take all passes over the experience.

        Args:
            experience: Samples of the present policies.
            config: See `PPOConfig`.
            generator: Shuffles the samples, all representatives alike.
        """
        k, samples = experience.log_probability.shape
        device = experience.advantage.device
        arrays = Experience(*(to_array(part) for part in experience))
        learns = to_array(torch.ones(k, device=device))
        figures = []
        for _ in range(config.epochs):
            order = torch.randperm(samples, generator=generator, device=generator.device).to(device)
            batches = [to_array(part) for part in order.tensor_split(config.minibatches)]
            work = [partial(self._policies.epoch, arrays, batches, learns, config)]
            work += [partial(group.epoch, arrays, batches, config) for group in self._critics]
            (divergence, policy_loss, entropy), *value_losses = self._share(work)
            value_loss = sum(float(losses.sum()) for losses in value_losses) / k
            figures.append([float(policy_loss.mean()), value_loss, float(divergence.mean()), float(entropy.mean())])
            learns = learns * (divergence <= config.kl_limit)
            if not learns.any():
                break
        return UpdateFigures(*torch.tensor(figures).mean(0).tolist())

    def values(self, observation: Tensor) -> Tensor:
        """Values (k, S, n) of normalised observations (k, S, D)."""
        seen = to_array(observation)
        parts = self._share([partial(group.values, seen) for group in self._critics])
        return torch.cat([torch.as_tensor(part) for part in parts])

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers."""
        return {
            "policies": self._policies.state_dict(),
            "critics": [group.adam.state_dict() for group in self._critics],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._policies.load_state_dict(state["policies"])
        for group, kept in zip(self._critics, state["critics"], strict=True):
            group.adam.load_state_dict(kept)

    def _share(self, work: Sequence[Callable[[], Array]]) -> list[Array]:
        """The results of independent work."""
        with one_blas_thread():
            if self._threads is None:
                return [each() for each in work]
            return [done.result() for done in [self._threads.submit(each) for each in work]]


class _PolicyLearner:
    """Moves k policies at once, whose hidden layers may be shared."""

    def __init__(self, policies: Policies, k: int) -> None:
        self._k, (own, *shared) = k, join(policies, k)
        self._own, self._shared = Adam(own), [Adam(rows) for rows in shared]
        self._layers, self.distribution = layers_of(policies.net), distribution_of(policies)
        self._memory: dict[int, tuple[Pass, list[Array]]] = {}

    def epoch(self, experience: Experience, batches: Sequence[Array], learns: Array, config: PPOConfig) -> Array:
        """One pass: means over its steps of the divergence from the drawing policies, loss and entropy, (3, k)."""
        with np.errstate(all="ignore"):  # what ends up infinite is reported by name
            return sum(self._step(experience, order, learns, config) for order in batches) / len(batches)

    def _step(self, experience: Experience, order: Array, learns: Array, config: PPOConfig) -> Array:
        xp, size = namespace(learns), len(order)
        if size not in self._memory:
            self._memory[size] = self._allocate(experience, size)
        batch, parts = self._memory[size]
        for source, part in zip(experience, parts, strict=False):
            take(source, order, part)
        _, action, drawn, advantage = parts
        batch.forward()
        log_probability, entropy = self.distribution.judge(batch.output, action)
        log_ratio = log_probability - drawn
        ratio = xp.exp(log_ratio)
        gain, clipped = ratio * advantage, xp.clip(ratio, 1 - config.clip, 1 + config.clip) * advantage
        by_log_probability = xp.where(gain <= clipped, gain, 0) * (-learns / size)[:, None]
        self.distribution.backward(batch.output, by_log_probability, -config.entropy * learns)
        batch.backward()
        self._own.step(config.learning_rate, config.gradient_norm, resting=learns == 0)
        for adam in self._shared:
            adam.step(config.learning_rate, config.gradient_norm)
        divergence = (ratio - 1 - log_ratio).mean(1)  # the estimator k3 of joschu.net/blog/kl-approx.html
        loss = -learns * (xp.minimum(gain, clipped).mean(1) + config.entropy * entropy)
        return xp.stack([divergence, loss, entropy])

    def _allocate(self, experience: Experience, size: int) -> tuple[Pass, list[Array]]:
        batch = Pass(self._layers, self._k, size)
        parts = experience.action, experience.log_probability, experience.advantage
        return batch, [batch.inputs, *(empty(part, (self._k, size, *part.shape[2:])) for part in parts)]

    def state_dict(self) -> dict[str, Any]:
        return {"own": self._own.state_dict(), "shared": [adam.state_dict() for adam in self._shared]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._own.load_state_dict(state["own"])
        for adam, kept in zip(self._shared, state["shared"], strict=True):
            adam.load_state_dict(kept)


class _CriticLearner:
    """Moves a few critics, each of which has its own layers."""

    def __init__(self, critics: Critics, rows: Rows, members: slice) -> None:
        self.adam, self._members, self._layers = Adam(rows, members), members, layers_of(critics.net, members)
        self._memory: dict[int, tuple[Pass, Array]] = {}

    def epoch(self, experience: Experience, batches: Sequence[Array], config: PPOConfig) -> Array:
        """One pass: means over its steps of the mean squared errors, (members,)."""
        observation, target = experience.observation[self._members], experience.value_target[self._members]
        with np.errstate(all="ignore"):
            return sum(self._step(observation, target, order, config) for order in batches) / len(batches)

    def values(self, observation: Array) -> Array:
        """Values (members, S, n) of the members' rows of observations (k, S, D)."""
        rows = observation[self._members]
        values = empty(rows, (*rows.shape[:2], self._layers[-1].weight.shape[2]))
        for start in range(0, rows.shape[1], _ROWS):
            part = rows[:, start : start + _ROWS]
            batch, _ = self._allocated(part.shape[1])
            batch.inputs[:] = part
            batch.forward()
            values[:, start : start + _ROWS] = batch.output
        return values

    def _step(self, observation: Array, target: Array, order: Array, config: PPOConfig) -> Array:
        batch, wanted = self._allocated(len(order))
        take(observation, order, batch.inputs)
        take(target, order, wanted)
        batch.forward()
        error, xp = batch.output, namespace(wanted)
        error -= wanted
        flat = error.reshape(len(error), -1)
        loss = xp.linalg.vecdot(flat, flat) / flat.shape[1]
        error *= 2 / flat.shape[1]
        batch.backward()
        self.adam.step(config.learning_rate, config.gradient_norm)
        return loss

    def _allocated(self, size: int) -> tuple[Pass, Array]:
        if size not in self._memory:
            batch = Pass(self._layers, len(self._layers[0].weight), size)
            self._memory[size] = batch, empty(batch.output, batch.output.shape)
        return self._memory[size]
