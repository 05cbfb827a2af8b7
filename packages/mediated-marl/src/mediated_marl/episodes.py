"""Played episodes as arrays, agents first, and how training plays them.

`mediated_marl.rollout` plays any policies; here is its loop once more for training, where nothing is forced and the
players are arrays: small tensors cost little more than the calls that handle them, and fewer of them are needed if
samples stay last and everything is written where it is learnt from.

Shapes: S seeds, N agents, T steps, B episodes.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from mediated_marl.by_hand import Array
from mediated_marl.commitment import next_locks
from mediated_marl.rollout import Arena, Moment, Rollout, Rules, explore

__all__ = ["Episodes", "agents_first", "agents_last", "play_episodes"]


def agents_first(values: Tensor) -> Array:
    """`[S, *, N]` as `[S, N, *]`."""
    return np.ascontiguousarray(values.movedim(-1, 1).numpy())


def agents_last(values: Array) -> Tensor:
    """`[S, N, *]` as `[S, *, N]`."""
    return torch.from_numpy(values).movedim(1, -1)


class Episodes(NamedTuple):
    """Played episodes as they are learnt from, agents first; see `mediated_marl.rollout.Rollout`.

    Attributes:
        alive: `[S, N, T + 1, B]` bool.
        locks: `[S, N, T + 1, B]` int64.
        own: `[S, N, T + 1, B]` int64.
        wanted: `[S, N, T + 1, B]` bool.
        committed: `[S, N, T, B]` bool.
        mediated: `[S, N, T, B]` int64.
        rewards: `[S, N, T, B]`.
        terminated: `[S, N, T, B]` bool.
        explored: `[S, 1, T, B]` bool, where another coalition acted than the agents chose.
    """

    alive: Array
    locks: Array
    own: Array
    wanted: Array
    committed: Array
    mediated: Array
    rewards: Array
    terminated: Array
    explored: Array

    @classmethod
    def blank(cls, shape: tuple[int, int, int, int], dtype: DTypeLike) -> "Episodes":
        """Room for episodes of `shape` = (S, N, T, B), rewards of `dtype`; nobody is locked."""
        seeds, n_agents, steps, games = shape
        before = (seeds, n_agents, steps + 1, games)
        arrays = [np.zeros(before, kind) for kind in (bool, np.int64, np.int64, bool)]
        arrays += [np.zeros(shape, kind) for kind in (bool, np.int64, dtype, bool)]
        arrays.append(np.zeros((seeds, 1, steps, games), bool))
        return cls(*arrays)

    @classmethod
    def of(cls, played: Rollout) -> "Episodes":
        """The episodes of a rollout."""
        alive, locks, own, wanted, committed, *rest = (agents_first(part) for part in played[3:])
        mediated, rewards, terminated = rest
        explored = (committed != wanted[:, :, :-1]).any(1, keepdims=True)
        return cls(alive, locks, own, wanted, committed, mediated, rewards, terminated, explored)

    @property
    def free(self) -> Array:
        """Who had the choice whether to commit, `[S, N, T, B]`."""
        free: Array = (self.locks[:, :, :-1] == 0) & self.alive[:, :, :-1]
        return free

    @property
    def learnt(self) -> Array:
        """Where agents learn, `[S, N, T, B]`: alive, and the coalition that acted is the one they chose."""
        return self.alive[:, :, :-1] & ~self.explored


class Players(Protocol):
    """Who chooses."""

    def choose(self, step: int, moment: Moment, locks: Array) -> tuple[Array, Array]:
        """See `mediated_marl.markov_by_hand.MarkovArrays`."""
        ...

    def mediate(self, step: int, committed: Array) -> Array:
        """See `mediated_marl.markov_by_hand.MarkovArrays`."""
        ...


def play_episodes(arena: Arena, players: Players, rules: Rules, luck: torch.Generator, into: Episodes) -> Episodes:
    """Play whole episodes, which are written into `into`."""
    seeds, n_agents, steps, games = into.committed.shape
    moment, locks = arena.begin(luck, (seeds, games)), np.zeros((seeds, n_agents, games), np.int64)
    for step in range(steps + 1):
        wanted, own = players.choose(step, moment, locks)
        alive = moment.alive.mT.numpy()
        into.alive[:, :, step], into.own[:, :, step], into.wanted[:, :, step] = alive, own, wanted
        if rules.binding:
            into.locks[:, :, step] = locks
        if step == steps:
            break
        committed = explore(wanted, alive & (locks == 0) if rules.binding else alive, rules, luck)
        mediated = players.mediate(step, committed) if rules.mediated else own
        rewards, moment, terminated = arena.advance(agents_last(np.where(committed, mediated, own)))
        into.committed[:, :, step], into.mediated[:, :, step] = committed, mediated
        into.rewards[:, :, step], into.terminated[:, :, step] = rewards.mT.numpy(), terminated.mT.numpy()
        if rules.binding:
            changed = next_locks(torch.from_numpy(locks), torch.from_numpy(committed), rules.window, rules.lock_out)
            locks = changed.numpy()
    np.any(into.committed != into.wanted[:, :, :-1], 1, out=into.explored, keepdims=True)
    return into
