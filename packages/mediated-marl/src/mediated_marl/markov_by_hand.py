r"""The networks of games of several steps as arrays: what they read, their passes, and draws from them.

`mediated_marl.markov_players` says what the networks are; here is how training runs them, by the passes of
`mediated_marl.by_hand`.  Samples come last and agents are networks or groups, so that what is said of every agent is
`[S, N, *]`, and of its choices `[S, N, A, K]`.

Shapes: S seeds, N agents, A own actions, D and F features of observations and states; `*` stands for `T, B` or `B`, the
dimensions of K samples.
"""

import numpy as np
import torch

from mediated_marl.by_hand import Array, NetworkArrays, entries, network_arrays
from mediated_marl.episodes import Episodes
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_players import MAX_ONE_HOT, MarkovCritics, MarkovPlayers, build_rules, lock_shares
from mediated_marl.networks import MASKED
from mediated_marl.rollout import Arena, Moment, legal_choices

__all__ = ["MarkovArrays", "draw"]

MAX_EXPONENT = 80.0  # e to it is finite in float32


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
        number = sum(members[:, agent : agent + 1] * np.uint8(1 << agent) for agent in range(n_agents))
        every = np.arange(2**n_agents, dtype=np.uint8).reshape(-1, *[1] * (members.ndim - 2))
        np.equal(number, every, out=rows[:, n_agents:])


class MarkovArrays:
    """All players and critics as arrays, which choose in `games` episodes of every seed.

    What they see while episodes are played is kept, so that learning need not put it together again; what they compute
    is not, since to keep it takes longer than to compute it twice.

    Args:
        arena: the game.
        config: sizes, and how agents may commit.
        players: the players, once `flatten_parameters` has moved them.
        critics: their critics, likewise.
        random: of agents and mediator.
    """

    def __init__(
        self,
        arena: Arena,
        config: MarkovConfig,
        players: MarkovPlayers,
        critics: MarkovCritics,
        random: np.random.Generator,
    ) -> None:
        networks = players.agents.network, critics.agents.network, players.mediator, critics.coalitions.network
        self.agents, self.values, self.mediator, self.coalitions = (
            network_arrays(network, config.device) for network in networks
        )
        self._rules, self._random, self._always_legal = build_rules(config), random, arena.always_legal
        seeds, n_agents, steps, games = config.seeds, arena.n_agents, arena.horizon, config.games
        constraints = config.imposes_ic or config.imposes_e
        self._locks = slice(arena.state_size, arena.state_size + n_agents)
        self.agent_inputs = room(self.agents, (seeds, n_agents), (steps + 1, games))
        self.agent_inputs[:, :, -2] = 0
        self.states = room(self.coalitions, (seeds, 2 + n_agents * constraints), (steps, games))
        self.states[:, :, self._locks] = 0
        self._asked = {}
        for samples in (games, steps * games):
            self._asked[samples] = room(self.mediator, (seeds, n_agents), (samples,))
            self._asked[samples][:, :, -1 - n_agents : -1] = np.eye(n_agents)[..., np.newaxis]
        self.legal = np.ones((seeds, n_agents, arena.n_actions, steps + 1, games), bool)

    def choose(self, step: int, moment: Moment, locks: Array) -> tuple[Array, Array]:
        """Who wants to commit, `[S, N, B]` bool, and what each would do outside, `[S, N, B]`, under locks `[S, N, B]`.

        Steps count from 0; after the last one agents choose once more, as what they want then has a value.
        """
        self._see(step, moment, locks)
        inputs = self.agent_inputs[:, :, :, step]
        logits = self.agents.layers(inputs.reshape(-1, 1, *inputs.shape[2:]))[-1]
        logits = logits.reshape(*inputs.shape[:2], -1, inputs.shape[-1])
        self._forbid(logits, self.legal[..., step, :], locks)
        own, largest, total = draw(logits[:, :, :-1], self._random)
        against = total * np.exp(np.minimum(largest - logits[:, :, -1], MAX_EXPONENT))
        uniform = 1 - self._random.random(against.shape, against.dtype.type)  # in (0, 1]: what is illegal is not drawn
        wanted: Array = uniform * (1 + against) <= 1
        wanted &= moment.alive.mT.numpy()
        return wanted, own

    def mediate(self, step: int, committed: Array) -> Array:
        """The mediator's actions `[S, N, B]` for the members `[S, N, B]`."""
        states = self.states[:, 0, :, step]
        fill_code(states[:, self._locks.stop : -1], committed)
        return draw(self._mediator_layers(states, self.legal[..., step, :])[-1], self._random)[0]

    def agent_layers(self, episodes: Episodes) -> list[Array]:
        """What the agents' actors read and compute at all steps that were played, `[S N, 1, *, T B]`."""
        inputs = self.agent_inputs[..., :-1, :].reshape(-1, 1, self.agent_inputs.shape[2], self.states[0, 0, 0].size)
        layers = self.agents.layers(inputs)
        logits = layers[-1].reshape(*self.legal.shape[:2], -1, *self.states.shape[-2:])
        self._forbid(logits, self.legal[..., :-1, :], episodes.locks[:, :, :-1])
        return layers

    def mediator_layers(self) -> list[Array]:
        """What the mediator's actor reads and computes at all steps that were played, `[S, N, *, T B]`."""
        legal = self.legal[..., :-1, :].reshape(*self.legal.shape[:3], -1)
        return self._mediator_layers(self.states[:, 0].reshape(*self.states[:, 0].shape[:2], -1), legal)

    def critic_inputs(self, episodes: Episodes) -> Array:
        """What the mediator's critic reads of played episodes, `[S, G, inputs + 1, T B]`.

        The groups are: each state and the coalition that acted, the state after it and the coalition wanted there, and
        under constraints for each agent the first with that agent's membership changed.
        """
        states, members, known = self.states, episodes.committed.copy(), self._locks.stop
        fill_code(states[:, 1, known:-1], episodes.wanted[:, :, 1:])
        for agent, others in enumerate(np.moveaxis(states[:, 2:], 1, 0)):
            others[:, :known] = states[:, 0, :known]
            members[:, agent] ^= True
            fill_code(others[:, known:-1], members)
            members[:, agent] ^= True
        return states.reshape(*states.shape[:3], -1)

    def _see(self, step: int, moment: Moment, locks: Array) -> None:
        """Keep what there is before a step, which is also what there is after the one before."""
        self.agent_inputs[:, :, :-2, step] = moment.observations.permute(0, 2, 3, 1).numpy()
        known = moment.features.mT.numpy()
        if self._rules.binding:
            shares = lock_shares(torch.from_numpy(locks), self._rules.window).numpy()
            self.agent_inputs[:, :, -2, step] = shares
            known = np.concatenate([known, shares], 1)
        if step < self.states.shape[3]:
            self.states[:, 0, : known.shape[1], step] = known
        if step:
            self.states[:, 1, : known.shape[1], step - 1] = known
        if not self._always_legal:
            self.legal[..., step, :] = moment.legal.permute(0, 2, 3, 1).numpy()

    def _forbid(self, logits: Array, legal: Array, locks: Array) -> None:
        """Mask the agents' logits `[S, N, A + 1, *]` where the game, by legal `[S, N, A, *]`, or locks forbid."""
        rules = self._rules
        if rules.binding or not (rules.mediated and self._always_legal):
            own, bound = torch.from_numpy(legal).movedim((1, 2), (-2, -1)), torch.from_numpy(locks).movedim(1, -1)
            possible = legal_choices(own, bound, mediated=rules.mediated)
            logits[~possible.movedim((-2, -1), (1, 2)).numpy()] = MASKED

    def _mediator_layers(self, states: Array, legal: Array) -> list[Array]:
        """A group per agent, `[S, N, *, K]`, from `[S, inputs + 1, K]`; illegal actions' logits are masked."""
        inputs = self._asked[states.shape[-1]]
        inputs[:, :, : states.shape[1] - 1] = states[:, np.newaxis, :-1]
        layers = self.mediator.layers(inputs)
        if not self._always_legal:
            layers[-1][~legal] = MASKED
        return layers


def room(network: NetworkArrays, groups: tuple[int, int], samples: tuple[int, ...]) -> Array:
    """Room for what `network` reads, all ones, `[*groups, inputs + 1, *samples]`."""
    block = network.blocks[0]
    return np.ones((*groups, block.shape[2], *samples), block.dtype)
