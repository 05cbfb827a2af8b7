"""Proximal policy optimisation of k policies at once; knows advantages and actions, no environment.

For each representative j the clipped surrogate (Schulman et al., arXiv 1707.06347, equation 7) is maximised, with the
advantage of the *sum of its users' rewards*:

    A_j = sum over users i of alpha_ij * TD_i,    TD_i = generalised advantage of user i (arXiv 1506.02438),

normalised to mean 0 and deviation 1 over the representative's own samples, so that a small cluster learns as fast as a
large one. The critics fit the lambda-returns of all users. Time limits are bootstrapped from the state they cut.

Representatives do not disturb each other: gradients are clipped, and updates halted by the KL limit, one by one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmdp.arrays import one_blas_thread, to_array
from rmdp.backpropagation import join
from rmdp.beside import CriticProcess
from rmdp.learners import CriticLearners, Experience, PolicyLearner, PPOConfig, Valuer, groups_of
from rmdp.policies import Critics, Policies

__all__ = ["Experience", "Learner", "PPOConfig", "UpdateFigures", "generalised_advantages"]

_TOGETHER = 2
"""How many critics of their own layers learn side by side: long operations, few enough to stay in a core's cache."""
_GROUP = 25
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
        next_value: Values of the states led to, before any reset, (T, ..., n); the advantages replace them.
        terminated: Whether the process ended there, so that the next value counts as zero, (T, ...).
        ended: Whether the episode ended there for whatever reason, so that the sum stops, (T, ...).
        gamma: Discount per step.
        decay: Lambda, the weight of each further difference.

    Returns:
        Advantages, (T, ..., n), in the memory of `next_value`.
    """
    lasts, carry = ~terminated.unsqueeze(-1), gamma * decay * (~ended).unsqueeze(-1)
    later = torch.zeros_like(value[0])
    for t in range(len(reward) - 1, -1, -1):  # step by step, what is needed stays in a core's cache
        difference = reward[t].to(value.dtype) + gamma * next_value[t] * lasts[t] - value[t]
        later = torch.add(difference, carry[t] * later, out=next_value[t])
    return next_value


class Learner:
    """What improves policies and their critics.

    While they improve, the policies and the critics have nothing in common: on several threads the critics learn in
    processes of their own. The result does not depend on their number.

    Args:
        policies: Improved in place.
        critics: Likewise.
        k: How many of each.
        threads: How many threads work, this one among them; the critics of representatives that have their own learn
            two by two, one that all share learns as a whole. Other devices than the CPU take one.
    """

    def __init__(self, policies: Policies, critics: Critics, k: int, threads: int = 1) -> None:
        self._policies = PolicyLearner(policies, k, _GROUP)
        self.distributions = self._policies.distributions
        rows, pairs = join(critics, k), groups_of(range(k), _TOGETHER)
        units = pairs if len(rows) == 1 else [slice(0, k)]
        self._critics: list[_Here] | list[CriticProcess]
        helpers = min(threads - 1, len(units)) if rows[0].values.device.type == "cpu" else 0
        if helpers:
            matrices = [part.values.share_memory_() for part in rows]
            edges = np.linspace(0, len(units), helpers + 1).astype(int).tolist()
            shares = [units[slice(*edge)] for edge in pairwise(edges)]
            self._critics = [CriticProcess(critics, matrices, k, share, _GROUP) for share in shares]
        else:
            self._critics = [_Here(CriticLearners(critics, rows, units, _GROUP))]
        self._valuers = [Valuer(critics, members) for members in pairs]

    @property
    def has_helpers(self) -> bool:
        """Whether critics learn in other processes."""
        return any(isinstance(critics, CriticProcess) for critics in self._critics)

    def improve(
        self,
        experience: Experience,
        config: PPOConfig,
        generator: torch.Generator,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> UpdateFigures:
        """Take all passes over the experience.

        Args:
            experience: Samples of the present policies.
            config: See `PPOConfig`.
            generator: Shuffles the samples, all representatives alike.
            meanwhile: Called once the policies are done, unless they left the finite numbers; helpers may still be at
                work on the critics.

        Raises:
            RunError: A process of this one ended.
        """
        k, samples = experience.log_probability.shape
        device = experience.advantage.device
        self._ask("begin", experience.observation, experience.value_target, config)
        arrays = Experience(*(to_array(part) for part in experience))  # a process moved the samples to shared memory
        learns = to_array(torch.ones(k, device=device))
        figures = []
        with one_blas_thread():
            for _ in range(config.epochs):
                order = torch.randperm(samples, generator=generator, device=generator.device).to(device)
                batches = [to_array(part) for part in order.tensor_split(config.minibatches)]
                for critics in self._critics:
                    critics.ask("epoch", batches)
                divergence, policy_loss, entropy = self._policies.epoch(arrays, batches, learns, config)
                figures.append([float(policy_loss.mean()), float(divergence.mean()), float(entropy.mean())])
                learns = learns * (divergence <= config.kl_limit)
                if not learns.any():
                    break
            if np.isfinite(figures).all():
                meanwhile()
            value_losses = [sum(float(losses.sum()) for losses in said) / k for said in self._answers()[1:]]
        rows = [[loss, *row] for loss, row in zip(value_losses, figures, strict=True)]
        value_loss, policy_loss, kl, entropy = torch.tensor(rows).mean(0).tolist()
        return UpdateFigures(policy_loss, value_loss, kl, entropy)

    def values(self, observation: Tensor, out: Tensor) -> Tensor:
        """Write the values of normalised observations (k, S, D) to `out`, (k, S, n), and return it."""
        with one_blas_thread():
            for valuer in self._valuers:
                valuer.values(to_array(observation), to_array(out))
        return out

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers."""
        self._ask("state_dict")
        return {"policies": self._policies.state_dict(), "critics": self._answers()[0]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._policies.load_state_dict(state["policies"])
        self._answers()
        states = iter(state["critics"])
        for critics in self._critics:
            critics.ask("load_state_dict", list(islice(states, critics.optimisers)))
        self._answers()

    def _ask(self, method: str, *arguments: object) -> None:
        """Ask all critics, and hear no more of what was asked before an interruption."""
        self._answers()
        for critics in self._critics:
            critics.ask(method, *arguments)

    def _answers(self) -> list[list[Any]]:
        """What the critics say to what they were asked, in that order: to each question, that of all learners."""
        said = [critics.answers() for critics in self._critics]
        return [list(chain(*parts)) for parts in zip(*said, strict=True)]


class _Here:
    """Critics' learners that take their turn in this process, when their answers are wanted; see `CriticProcess`."""

    def __init__(self, learners: CriticLearners) -> None:
        self._learners, self.optimisers = learners, learners.optimisers
        self._asked: list[Callable[[], Any]] = []

    def ask(self, method: str, *arguments: object) -> None:
        """See `CriticProcess`."""
        self._asked.append(partial(getattr(self._learners, method), *arguments))

    def answers(self) -> list[Any]:
        """See `CriticProcess`."""
        asked, self._asked = self._asked, []
        return [method() for method in asked]
