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
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmdp.arrays import Array, one_blas_thread, to_array
from rmdp.backpropagation import join
from rmdp.learners import CriticLearner, Experience, PolicyLearner, PPOConfig, Valuer, groups_of
from rmdp.policies import Critics, Policies

__all__ = ["Experience", "Learner", "PPOConfig", "UpdateFigures", "generalised_advantages"]

_TOGETHER = 2
"""How many critics of their own layers learn side by side: long operations, few enough to stay in a core's cache."""
_GROUP = 5
"""How many representatives pass at once through layers that all share."""


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
        reward: (T, ..., n), of any precision.
        value: Values of the states acted in, (T, ..., n).
        next_value: Values of the states led to, before any reset, (T, ..., n).
        terminated: Whether the process ended there, so that the next value counts as zero, (T, ...).
        ended: Whether the episode ended there for whatever reason, so that the sum stops, (T, ...).
        gamma: Discount per step.
        decay: Lambda, the weight of each further difference.

    Returns:
        Advantages, (T, ..., n).
    """
    lasts, carry = ~terminated.unsqueeze(-1), gamma * decay * (~ended).unsqueeze(-1)
    advantage, later = torch.empty_like(reward, dtype=value.dtype), torch.zeros_like(value[0])
    for t in range(len(reward) - 1, -1, -1):  # step by step, what is needed stays in a core's cache
        difference = reward[t].to(value.dtype) + gamma * next_value[t] * lasts[t] - value[t]
        later = torch.add(difference, carry[t] * later, out=advantage[t])
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
        self._policies = PolicyLearner(policies, k, _GROUP)
        self.distributions = self._policies.distributions
        rows, pairs = join(critics, k), groups_of(range(k), _TOGETHER)
        own = len(rows) == 1
        units = pairs if own else [slice(0, k)]
        self._critics = [CriticLearner(critics, rows, members, _GROUP) for members in units]
        self._valuers = [Valuer(critics, members) for members in pairs]
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
        parts = self._share([partial(group.values, seen) for group in self._valuers])
        return torch.cat([torch.as_tensor(part) for part in parts])

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers."""
        return {
            "policies": self._policies.state_dict(),
            "critics": [adam.state_dict() for group in self._critics for adam in group.adams],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._policies.load_state_dict(state["policies"])
        adams = [adam for group in self._critics for adam in group.adams]
        for adam, kept in zip(adams, state["critics"], strict=True):
            adam.load_state_dict(kept)

    def _share(self, work: Sequence[Callable[[], Array]]) -> list[Array]:
        """The results of independent work."""
        with one_blas_thread():
            if self._threads is None:
                return [each() for each in work]
            return [done.result() for done in [self._threads.submit(each) for each in work]]
