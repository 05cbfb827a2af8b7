"""Collecting experience: k stacked policies act in k x M copies of an environment.

Copies j M, ..., (j + 1) M - 1 belong to representative j. Episodes run on over the end of a segment of T steps. Where
the environment's clock can be set, copies start at evenly spread phases of the time limit: otherwise all episodes of an
environment that only ends by its time limit would end at the same step.

Where the clock can be read, steps are counted as parts of an episode before it ends: a segment of 103 steps of twenty
copies is worth 2.06 episodes of 1000 steps, while two or three of them end within it.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmdp.arrays import Array, one_blas_thread, to_array
from rmdp.backpropagation import Pass, layers_of
from rmdp.distributions import distribution_of
from rmdp.envs.batch import BatchEnv, Floats, Step, Transition
from rmdp.policies import ObservationMoments, Policies

__all__ = ["Actors", "Segment", "by_representative", "collect", "stagger"]


class Segment(NamedTuple):
    """T steps of B copies.

    Attributes:
        transition: What the users see, leading dimensions (T, B).
        normalised: Normalised observations, (T, B, D).
        action: Actions in the policies' units, (T, B, A) or (T, B).
        log_probability: Their log-probabilities, (T, B).
        observation: Where the copies stand at the end, (B, D).
        ripened: By how much of the time limit the running episodes are longer than those at the start, (B,); zero where
            the clock cannot be read.
    """

    transition: Transition
    normalised: Tensor
    action: Tensor
    log_probability: Tensor
    observation: Floats
    ripened: Floats

    @property
    def episodes(self) -> Floats:
        """How many episodes the steps of each copy are worth, (B,): whole ones, and parts of the time limit."""
        return np.asarray(self.ended.sum(axis=0) + self.ripened)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether the episode ended with the step, for whatever reason, (T, B)."""
        return np.asarray(self.transition.terminated | self.transition.truncated)


class Actors:
    """k policies that draw actions.

    Args:
        policies: Which act.
        k: How many policies.
        size: For how many observations at once each acts.
    """

    def __init__(self, policies: Policies, k: int, size: int) -> None:
        self._batch, self._distribution = Pass(layers_of(policies.net), k, size), distribution_of(policies)

    def noise(self, steps: int, generator: torch.Generator) -> Array:
        """What the actions of a number of steps are drawn with, (steps, k, size, ...)."""
        return self._distribution.noise((steps, *self._batch.inputs.shape[:2]), generator)

    def act(self, observation: Tensor, noise: Array) -> tuple[Tensor, Tensor]:
        """Draw actions.

        Args:
            observation: Normalised observations, (k, size, D).
            noise: Of one step.

        Returns:
            Actions in the policies' units, (k, size, A) or (k, size), in memory that the next call uses again; and
            their log-probabilities, (k, size).
        """
        self._batch.inputs[:] = to_array(observation)
        self._batch.forward()
        action, log_probability = self._distribution.draw(self._batch.output, noise)
        return torch.as_tensor(action), torch.as_tensor(log_probability)


def stagger(env: BatchEnv, k: int) -> None:
    """Spread the phases of the time limit over each representative's copies, where the clock can be set."""
    elapsed: NDArray[np.int64] | None = vars(env).get("elapsed")  # a clock that can only be read is a property
    if elapsed is not None and env.horizon is not None:
        each = env.copies // k
        elapsed[:] = np.tile(np.arange(each) * env.horizon // each, k)


@torch.no_grad()
def collect(
    env: BatchEnv,
    observation: Floats,
    policies: Policies,
    moments: ObservationMoments,
    k: int,
    steps: int,
    generator: torch.Generator,
) -> Segment:
    """Let the policies act.

    Args:
        env: B = k M copies.
        observation: Where they stand, (B, D).
        policies: k of them.
        moments: Normalise what they see.
        k: How many policies.
        steps: T.
        generator: Draws the actions.
    """
    seen: list[tuple[Floats, NDArray[Any], Step]] = []
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    before, normalise, actors = _phase(env), moments.normaliser(), Actors(policies, k, env.copies // k)
    with one_blas_thread():
        for noise in actors.noise(steps, generator):
            view = normalise(observation)
            action, log_probability = actors.act(view.view(k, -1, view.shape[-1]), noise)
            played = policies.to_environment(action).flatten(0, 1).cpu().numpy()
            step = env.step(played)
            seen.append((observation, played, step))
            drawn.append((view, action.flatten(0, 1).clone(), log_probability.flatten(0, 1)))
            observation = step.observation
    normalised, actions, log_probabilities = (torch.stack(rows) for rows in zip(*drawn, strict=True))
    ripened = _phase(env) - before
    return Segment(_transition(seen), normalised, actions, log_probabilities, observation, ripened)


def by_representative(rows: Tensor, k: int) -> Tensor:
    """Samples (T, k M, ...) sorted by representative, (k, T M, ...)."""
    split = rows.reshape(len(rows), k, -1, *rows.shape[2:])
    return split.transpose(0, 1).flatten(1, 2)


def _phase(env: BatchEnv) -> Floats:
    """Share of the time limit that each copy's running episode has used, (B,)."""
    elapsed = getattr(env, "elapsed", np.zeros(env.copies))
    return np.asarray(elapsed / (env.horizon or np.inf))


def _transition(seen: list[tuple[Floats, NDArray[Any], Step]]) -> Transition:
    steps = [step for _, _, step in seen]
    return Transition(
        np.array([observation for observation, _, _ in seen]),
        np.array([played for _, played, _ in seen]),
        np.array([step.final_observation for step in steps]),
        np.array([step.terminated for step in steps]),
        np.array([step.truncated for step in steps]),
        {key: np.array([step.info[key] for step in steps]) for key in steps[0].info},
    )
