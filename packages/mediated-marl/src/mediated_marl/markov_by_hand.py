r"""The networks of games of several steps as arrays: what they read, their passes, and draws from them.

`mediated_marl.markov_players` says what the networks are; here is how training runs them, by the passes of
`mediated_marl.by_hand`.  Samples come last and agents are networks or groups, so that what is said of every agent is
`[S, N, *]`, and of its choices `[S, N, A, K]`.

Shapes: S seeds, N agents, A own actions, D and F features of observations and states; `*` stands for `T, B` or `B`, the
dimensions of K samples.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mediated_marl.by_hand import Array, NetworkArrays, Rooms, entries
from mediated_marl.markov_players import MAX_ONE_HOT, MarkovCritics, MarkovPlayers, lock_shares
from mediated_marl.networks import MASKED
from mediated_marl.rollout import Moment, Rollout, Rules, legal_choices

__all__ = ["Episodes", "MarkovArrays", "agents_first", "agents_last"]

MAX_EXPONENT = 80.0  # e to it is finite in float32


def agents_first(values: Tensor) -> Array:
    """`[S, *, N]` as `[S, N, *]`."""
    return np.ascontiguousarray(np.moveaxis(values.numpy(), -1, 1))


def agents_last(values: Array) -> Tensor:
    """`[S, N, *]` as `[S, *, N]`."""
    return torch.from_numpy(values).movedim(1, -1).contiguous()


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


def forbid(logits: Array, legal: Tensor) -> None:
    """Set logits `[S, N, A, K]` to `MASKED` where choices `[S, *, N, A]` are not legal."""
    forbidden = np.moveaxis(~legal.numpy(), (-2, -1), (1, 2))
    logits[forbidden.reshape(logits.shape)] = MASKED


def draw(logits: Array, random: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draws `[S, N, B]` from softmax policies `[S, N, A, B]`, never one of probability 0.

    Returns:
        The draws, the largest logit, and the sum of exponentials relative to it, `[S, N, B]` each.
    """
    rows = [row[:, :, 0] for row in entries(logits, 2)]
    largest = rows[0]
    for row in rows[1:]:
        largest = np.maximum(largest, row)
    sums = [np.exp(rows[0] - largest)]
    for row in rows[1:]:
        sums.append(sums[-1] + np.exp(row - largest))
    point = random.random(largest.shape, largest.dtype.type) * sums[-1]
    drawn = np.zeros(largest.shape, np.int64)
    for reached in sums[:-1]:
        drawn += point >= reached
    return drawn, largest, sums[-1]


def fill_code(rows: Array, members: Array) -> None:
    """Write `coalition_code` of members `[S, N, *]` into `[S, code, *]`."""
    n_agents = members.shape[1]
    rows[:, :n_agents] = members
    if n_agents <= MAX_ONE_HOT:
        number = sum(members[:, agent] * np.uint8(1 << agent) for agent in range(n_agents))
        for coalition in range(2**n_agents):
            rows[:, n_agents + coalition] = number == coalition


class MarkovArrays:
    """All players and critics as arrays; a `mediated_marl.rollout.Chooser`.

    Args:
        players: the players, once `flatten_parameters` has moved them.
        critics: their critics, likewise.
        rules: how agents may commit.
        random: of agents and mediator.
    """

    def __init__(
        self, players: MarkovPlayers, critics: MarkovCritics, rules: Rules, random: np.random.Generator
    ) -> None:
        self.agents, self.values = NetworkArrays(players.agents.network), NetworkArrays(critics.agents.network)
        self.mediator, self.coalitions = NetworkArrays(players.mediator), NetworkArrays(critics.coalitions.network)
        self._window, self._rules, self._random, self._rooms = players.window, rules, random, Rooms()

    def choose(self, moment: Moment, locks: Tensor) -> tuple[Tensor, Tensor]:
        """See `Chooser`."""
        inputs = self.agent_inputs(moment.observations, locks)
        logits = self.agent_logits(self.agents.layers(inputs), moment.legal, locks)
        own, largest, total = draw(logits[:, :, :-1], self._random)
        against = total * np.exp(np.minimum(largest - logits[:, :, -1], MAX_EXPONENT))
        uniform = 1 - self._random.random(against.shape, against.dtype.type)  # in (0, 1]: what is illegal is not drawn
        return agents_last(uniform * (1 + against) <= 1) & moment.alive, agents_last(own)

    def mediate(self, moment: Moment, locks: Tensor, committed: Tensor) -> Tensor:
        """See `Chooser`."""
        inputs = self.mediator_inputs(self.state_inputs(moment.features, locks, committed))
        logits = self.mediator_logits(self.mediator.layers(inputs), moment.legal)
        return agents_last(draw(logits, self._random)[0])

    def agent_inputs(self, observations: Tensor, locks: Tensor) -> Array:
        """What `AgentNetwork` reads of observations `[S, *, N, D]` and locks `[S, *, N]`, `[S N, 1, D + 2, K]`."""
        seen = np.moveaxis(observations.numpy(), (-2, -1), (1, 2))
        seeds, n_agents, size = seen.shape[:3]
        inputs = self._rooms.of("agents", (seeds, n_agents, size + 2, *seen.shape[3:]), seen.dtype)
        inputs[:, :, :-2] = seen
        inputs[:, :, -2] = self._lock_shares(locks)
        return inputs.reshape(seeds * n_agents, 1, size + 2, -1)

    def agent_logits(self, layers: list[Array], legal: Tensor, locks: Tensor) -> Array:
        """The last of the agents' layers as `[S, N, A + 1, K]`, what is illegal masked; legal is `[S, *, N, A]`."""
        logits = layers[-1].reshape(len(legal), legal.shape[-2], legal.shape[-1] + 1, -1)
        if not (self._rules.mediated and legal.numpy().all() and not locks.numpy().any()):
            forbid(logits, legal_choices(legal, locks, mediated=self._rules.mediated))
        return logits

    def state_inputs(self, features: Tensor, locks: Tensor, committed: Tensor) -> Array:
        """What `StateNetwork` reads of features `[S, *, F]`, locks and members `[S, *, N]`, `[S, inputs + 1, *]`."""
        block = self.coalitions.blocks[0]
        inputs = self._rooms.of("states", (len(committed), block.shape[2], *committed.shape[1:-1]), block.dtype)
        self._fill_states(inputs, features, locks, agents_first(committed))
        return inputs

    def _fill_states(self, inputs: Array, features: Tensor, locks: Tensor, members: Array) -> None:
        size, n_agents = features.shape[-1], members.shape[1]
        inputs[:, :size] = np.moveaxis(features.numpy(), -1, 1)
        inputs[:, size : size + n_agents] = self._lock_shares(locks)
        fill_code(inputs[:, size + n_agents : -1], members)

    def _lock_shares(self, locks: Tensor) -> Array | float:
        """Locks as networks read them, `[S, N, *]`; most games bind nobody for longer than a step."""
        return np.moveaxis(lock_shares(locks, self._window).numpy(), -1, 1) if locks.numpy().any() else 0.0

    def mediator_inputs(self, states: Array) -> Array:
        """What the mediator's actor reads of `state_inputs`, a group per agent: `[S, N, inputs + N + 1, K]`."""
        seeds, size = states.shape[:2]
        whose = self.mediator.blocks[0].shape[2] - size
        flat = states.reshape(seeds, 1, size, -1)
        inputs = self._rooms.of("mediator", (seeds, whose, size + whose, flat.shape[-1]), states.dtype)
        inputs[:, :, : size - 1] = flat[:, :, :-1]
        inputs[:, :, size - 1 : -1] = np.eye(whose)[:, :, np.newaxis]
        return inputs

    def mediator_logits(self, layers: list[Array], legal: Tensor) -> Array:
        """The last of the mediator's layers, `[S, N, A, K]`, what is illegal masked; legal is `[S, *, N, A]`."""
        if not legal.numpy().all():
            forbid(layers[-1], legal)
        return layers[-1]

    def critic_inputs(self, played: Rollout, episodes: Episodes, *, next_door: bool) -> Array:
        """What the mediator's critic reads of played episodes, `[S, G, inputs + 1, T, B]`.

        The groups are: each state and the coalition that acted, the state after it and the coalition wanted there, and
        with `next_door` for each agent the first with that agent's membership changed.
        """
        members, block = episodes.committed.copy(), self.coalitions.blocks[0]
        seeds, n_agents, *samples = members.shape
        shape = (seeds, 2 + n_agents * next_door, block.shape[2], *samples)
        inputs = self._rooms.of("critic", shape, block.dtype)
        self._fill_states(inputs[:, 0], played.features[:, :-1], played.locks[:, :-1], members)
        self._fill_states(inputs[:, 1], played.features[:, 1:], played.locks[:, 1:], episodes.wanted[:, :, 1:])
        state = played.features.shape[-1] + n_agents
        for agent, others in enumerate(np.moveaxis(inputs[:, 2:], 1, 0)):
            others[:, :state] = inputs[:, 0, :state]
            members[:, agent] ^= True
            fill_code(others[:, state:-1], members)
            members[:, agent] ^= True
        return inputs
