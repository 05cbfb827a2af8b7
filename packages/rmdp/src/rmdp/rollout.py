"""Collecting experience: k stacked policies act in k x M copies of an environment.

Copies j M, ..., (j + 1) M - 1 belong to representative j. Episodes run on over the end of a segment of T steps. Where
the environment's clock can be set, copies start at evenly spread phases of the time limit: otherwise all episodes of an
environment that only ends by its time limit would end at the same step.

Where the clock can be read, steps are counted as parts of an episode before it ends: a segment of 103 steps of twenty
copies is worth 2.06 episodes of 1000 steps, while two or three of them end within it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmdp.arrays import Array, copy, empty, flat, namespace, one_blas_thread, stack, to_numpy
from rmdp.backpropagation import Pass, layers_of
from rmdp.distributions import distribution_of
from rmdp.envs.batch import BatchEnv, Floats, Step, Transition
from rmdp.policies import ObservationMoments, Policies

__all__ = ["Actors", "Collector", "Segment", "by_representative", "stagger"]


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
        k: How many act.
        size: For how many observations at once each acts.
        members: Which of the policies.
        places: Which of these observations there are; the others take part in the products, whose last bits depend on
            the number of rows.
    """

    def __init__(
        self, policies: Policies, k: int, size: int, members: slice = slice(None), places: slice = slice(None)
    ) -> None:
        self._batch, self._places = Pass(layers_of(policies.net, members), k, size), places
        self._batch.inputs[:] = 0
        self._distribution = distribution_of(policies, members)

    def noise(self, generator: torch.Generator) -> tuple[Array, ...]:
        """What actions are drawn with; see `Distribution`."""
        return self._distribution.noise(self._batch.inputs.shape[:2], generator)

    def act(self, observation: Array, *noise: Array) -> tuple[Array, Array]:
        """Draw actions.

        Args:
            observation: Normalised observations, (k, size, D).
            noise: What they are drawn with.

        Returns:
            Actions in the policies' units, (k, size, A) or (k, size), in memory that the next call uses again; and
            their log-probabilities, (k, size).
        """
        self._batch.inputs[:, self._places] = observation
        self._batch.forward()
        return self._distribution.draw(self._batch.output[:, self._places], *noise)


def stagger(env: BatchEnv, k: int) -> None:
    """Spread the phases of the time limit over each representative's copies, where the clock can be set."""
    elapsed: NDArray[np.int64] | None = vars(env).get("elapsed")  # a clock that can only be read is a property
    if elapsed is not None and env.horizon is not None:
        each = env.copies // k
        elapsed[:] = np.tile(np.arange(each) * env.horizon // each, k)


class Collector:
    """Lets k policies act in an environment of k M copies, segment by segment.

    Args:
        env: B = k M copies.
        policies: k of them.
        moments: Normalise what they see.
        k: How many policies.
        threads: How many threads share the copies, where the environment has lanes.
    """

    def __init__(
        self, env: BatchEnv, policies: Policies, moments: ObservationMoments, k: int, threads: int = 1
    ) -> None:
        self._env, self._policies, self._moments, self._k = env, policies, moments, k
        self._lanes = _lanes(env, k, threads)
        each = env.copies // k
        self._actors = [Actors(policies, len(lane.copies), each, *lane.share) for lane in self._lanes]
        self._others = ThreadPoolExecutor(max(1, len(self._lanes) - 1))

    @torch.no_grad()
    def collect(self, observation: Floats, steps: int, generator: torch.Generator) -> Segment:
        """Let the policies act.

        Args:
            observation: Where the copies stand, (B, D).
            steps: T.
            generator: Draws the actions.
        """
        env, k = self._env, self._k
        before, normalise = _phase(env), self._moments.normaliser()
        noise = distribution_of(self._policies).noise((steps, k, env.copies // k), generator)
        scale = self._policies.scaler(namespace(noise[0]))

        def play(lane: _Lane, actors: Actors) -> _Played:
            stand = observation[lane.copies.ravel()]
            seen: list[tuple[Any, ...]] = []
            for drawn in zip(*(part[:, *lane.share] for part in noise), strict=True):
                view = normalise(stand)
                action, log_probability = actors.act(view.reshape(*lane.copies.shape, -1), *drawn)
                played = to_numpy(flat(scale(action)))
                step = lane.step(played)
                known = copy(flat(action)), flat(log_probability)
                seen.append((stand, played, *step[1:4], view, *known, *step.info.values()))
                stand = step.observation
            return _Played([stack(column) for column in zip(*seen, strict=True)], list(step.info), stand)

        with one_blas_thread():
            first, *others = zip(self._lanes, self._actors, strict=True)
            rest = [self._others.submit(play, *other) for other in others]
            # a thread that wakes two others often leaves both to one core, which costs some milliseconds
            parts = [play(*first), *(other.result() for other in rest)]
        columns = (_joined([part.columns[i] for part in parts], self._lanes, k) for i in range(8))
        stood, played, reached, terminated, truncated, view, action, log_probability = columns
        information = zip(*(part.columns[8:] for part in parts), strict=True)
        info = {name: _joined(column, self._lanes, k) for name, column in zip(parts[0].names, information, strict=True)}
        end = _joined([part.end[None] for part in parts], self._lanes, k)[0]
        transition = Transition(stood, played, reached, terminated, truncated, info)
        normalised, chosen, known = (torch.as_tensor(column) for column in (view, action, log_probability))
        return Segment(transition, normalised, chosen, known, end, _phase(env) - before)


class _Lane(NamedTuple):
    """What one thread plays."""

    share: tuple[slice, slice]
    """Which representatives, and which copies of each."""
    copies: NDArray[np.int64]
    """The copies by number, (representatives, copies of each)."""
    step: Callable[[NDArray[Any]], Step]
    """Steps them."""


class _Played(NamedTuple):
    """What happened in a lane."""

    columns: list[Array]
    """Observations, actions in the environment's units, where they led, whether the process ended there, whether it was
    cut, normalised observations, actions in the policies' units, their log-probabilities, and then the information;
    each (T, copies, ...)."""
    names: list[str]
    """Of the information."""
    end: Floats
    """Where the copies stand at the end, (copies, D)."""


def _lanes(env: BatchEnv, k: int, threads: int) -> list[_Lane]:
    """A lane for each thread, cut between representatives or between copies of each, of whichever there are more."""
    copies, everything = np.arange(env.copies).reshape(k, -1), slice(None)
    lane = getattr(env, "lane", None)
    if lane is None or threads == 1:
        return [_Lane((everything, everything), copies, env.step)]
    longer = max(copies.shape)
    edges = np.linspace(0, longer, min(threads, longer) + 1).astype(int).tolist()
    cuts = [slice(*edge) for edge in pairwise(edges)]
    shares = [(cut, everything) if k == longer else (everything, cut) for cut in cuts]
    return [_Lane(share, copies[share], lane(copies[share].ravel())) for share in shares]


def _joined(parts: Sequence[Array], lanes: Sequence[_Lane], k: int) -> Array:
    """What happened in the lanes in the order of the copies, (T, B, ...)."""
    if len(parts) == 1:
        return parts[0]
    steps, _, *rest = parts[0].shape
    whole = empty(parts[0], (steps, k, sum(lane.copies.size for lane in lanes) // k, *rest))
    for part, lane in zip(parts, lanes, strict=True):
        whole[:, *lane.share] = part.reshape(steps, *lane.copies.shape, *rest)
    return whole.reshape(steps, -1, *rest)


def by_representative(rows: Tensor, k: int) -> Tensor:
    """Samples (T, k M, ...) sorted by representative, (k, T M, ...)."""
    split = rows.reshape(len(rows), k, -1, *rows.shape[2:])
    return split.transpose(0, 1).flatten(1, 2)


def _phase(env: BatchEnv) -> Floats:
    """Share of the time limit that each copy's running episode has used, (B,)."""
    elapsed = getattr(env, "elapsed", np.zeros(env.copies))
    return np.asarray(elapsed / (env.horizon or np.inf))
