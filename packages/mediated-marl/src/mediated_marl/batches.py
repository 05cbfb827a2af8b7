r"""Batches of one-step games, reduced to the sums that learning needs.

Players learn from a batch of B games through few numbers.  An agent needs, for each of its choices, how often it made
it and what it earned then (`Choices`).  The mediator's advantage is linear in the slots' rewards r_I, with coefficients
that depend on the coalition C only, so it needs for each C (`Lessons`)

    how many games had C,    sum r_I,    sum n_ja,    sum r_I n_ja,

where n_ja says whether member j was given action a, or, agents alike, how many members were.  Both games keep counts
that give all these sums by one product with a constant matrix:

- public goods: a game is the size k of its coalition, the members' gifts m and the outsiders' gifts o.  Each slot's
  reward is linear in m and o at given k, so the counts are the sums of 1, m, o, m^2 and m o over the games of each k;
- normal form: all that matters of a game is its coalition and its joint action, a cell of a table.  A batch is how many
  of its games fell into each cell, and is drawn as such, from the probabilities of the cells.

One random number decides what an agent does and, if it commits, what the mediator does for it: the latter's choice
divides the interval of the former's.

Shapes: S seeds, B games, N agents with A own actions, C coalitions (or sizes), I slots as in `mediated_marl.one_step`,
M = 1 where agents are alike to the mediator and N otherwise.  Arrays are NumPy's, for `mediated_marl.by_hand`'s reason.
"""

from typing import NamedTuple, Protocol

import numpy as np

from mediated_marl.by_hand import Array
from mediated_marl.one_step import EnumeratedGame, OneStepGame, SymmetricPublicGoods

__all__ = ["Batches", "Choices", "EnumeratedBatches", "Lessons", "PublicGoodsBatches", "batches_of"]


class Choices(NamedTuple):
    """What a batch says to the agents, `[S, N, A + 1]` each: how often they chose what, and what they earned then."""

    counts: Array
    earnings: Array


class Lessons(NamedTuple):
    """What a batch says to the mediator.

    Attributes:
        seen: `[S, C]`, how many games had each coalition.
        rewards: `[S, C, I]`, each slot's reward summed; 0 where it stands for nobody.
        actions: `[S, C, 1 + I, M A]`, the members' actions: how many, and how many times the reward of each slot.
        outcome: what else is known of the games, for `Batches.slack`.
    """

    seen: Array
    rewards: Array
    actions: Array
    outcome: tuple[Array, ...]


class Batches(Protocol):
    """Draws batches of B games of a one-step game."""

    def play(self, policies: Array, mediator: Array) -> tuple[Choices, Lessons]:
        """Games as the agents choose them.

        Args:
            policies: `[S, N, A + 1]` probabilities, commit last.
            mediator: `[S, R, M, A]` probabilities.
        """
        ...

    def teach(self, outside: Array, mediator: Array) -> Lessons:
        """Games in which all coalitions are equally likely and outsiders play `outside` `[S, N, A]`."""
        ...

    def slack(self, lessons: Lessons, scale: Array, offset: Array) -> Array:
        """Sums over the games of each coalition of the negative part of `scale r + offset`, `[S, C, I]` all."""
        ...


class PublicGoodsBatches:
    """Batches of public goods games.

    Args:
        game: the game.
        shape: `(S, B)`.
        random: the games' chance.
    """

    def __init__(self, game: SymmetricPublicGoods, shape: tuple[int, int], random: np.random.Generator) -> None:
        self._shape, self._random, self._agents = shape, random, game.n_agents
        self._dtype = game.members.numpy().dtype
        self._sizes = game.sizes.numpy()[:, np.newaxis].astype(self._dtype)
        self._slots = slot_rewards(game)
        self._lessons = lesson_matrix(self._sizes[:, 0], self._slots)
        self._choices = choice_matrix(game.game.multiplier, game.n_agents).astype(self._dtype)
        # [S, 4, N, B]: whether an agent's number lies below keep, below commit, below its gift's end, below 1
        self._steps = np.ones((shape[0], 4, game.n_agents, shape[1]), self._dtype)
        # [S, 5, B]: 1, m, o, m^2, m o
        self._powers = np.ones((shape[0], 5, shape[1]), self._dtype)
        # [N, (N + 1) N]: the members of coalition (size, first) are `size` neighbours on a circle, from `first` on
        size, first = np.indices((game.n_agents + 1, game.n_agents)).reshape(2, -1)
        place = (np.arange(game.n_agents)[:, np.newaxis] + first) % game.n_agents
        self._circles, self._circle_sizes = (place < size).astype(self._dtype), size.astype(self._dtype)

    def play(self, policies: Array, mediator: Array) -> tuple[Choices, Lessons]:
        """See `Batches`."""
        seeds, games = self._shape
        steps, stays = self._steps, 1 - policies[..., 2:]
        uniform = self._random.random((seeds, self._agents, games), self._dtype)
        np.less(uniform, policies[..., :1], out=steps[:, 0])
        np.less(uniform, stays, out=steps[:, 1])
        size = self._agents - steps[:, 1].sum(1)
        formed = self._formed(size)
        until = policies[..., 2:] * self._contribution(formed, mediator)
        until += stays
        np.less(uniform, until, out=steps[:, 2])
        kept, outside, given = steps[:, 0].sum(1), self._agents - size, steps[:, 2].sum(1)
        lessons = self._lesson(formed, given - outside, outside - kept)
        features = self._powers[:, :2].copy()
        features[:, 1] = given - kept
        sums = features @ steps.reshape(seeds, -1, games).swapaxes(1, 2)
        choices = sums.reshape(seeds, 8, self._agents).swapaxes(1, 2) @ self._choices
        return Choices(choices[..., :3], choices[..., 3:]), lessons

    def teach(self, outside: Array, mediator: Array) -> Lessons:
        """See `Batches`; the members are neighbours on a circle, and each agent is in as many as any other."""
        drawn = self._random.integers(len(self._circle_sizes), size=self._shape)
        size = self._circle_sizes[drawn]
        formed = self._formed(size)
        inside = self._circles.take(drawn, 1)
        gives = self._random.random(inside.shape, self._dtype)
        own = outside[..., 1].T[..., np.newaxis]
        chance = (self._contribution(formed, mediator)[:, 0] - own) * inside
        chance += own
        np.less(gives, chance, out=gives)
        everybody = gives.sum(0)
        gives *= inside
        members = gives.sum(0)
        return self._lesson(formed, members, everybody - members)

    def slack(self, lessons: Lessons, scale: Array, offset: Array) -> Array:
        """See `Batches`."""
        formed, members, outsiders = lessons.outcome
        by_members, by_outsiders = scale * self._slots[..., 0], scale * self._slots[..., 1]
        found = offset.swapaxes(1, 2) @ formed
        found += (by_members.swapaxes(1, 2) @ formed) * members[:, np.newaxis]
        found += (by_outsiders.swapaxes(1, 2) @ formed) * outsiders[:, np.newaxis]
        summed: Array = formed @ np.minimum(found, 0, out=found).swapaxes(1, 2)
        return summed

    def _formed(self, size: Array) -> Array:
        """Which coalition formed, one-hot `[S, C, B]`."""
        formed: Array = (size[:, np.newaxis] == self._sizes).astype(self._dtype)
        return formed

    def _contribution(self, formed: Array, mediator: Array) -> Array:
        """With which probability a member contributes, `[S, 1, B]`; 0 where there is none."""
        chance: Array = mediator[:, np.newaxis, :, 0, 1] @ formed[:, 1:]
        return chance

    def _lesson(self, formed: Array, members: Array, outsiders: Array) -> Lessons:
        powers = self._powers
        powers[:, 1], powers[:, 2] = members, outsiders
        np.multiply(powers[:, 1:3], members[:, np.newaxis], out=powers[:, 3:])
        counts = formed @ powers.swapaxes(1, 2)
        sums = (counts[..., np.newaxis, :] @ self._lessons)[..., 0, :]
        actions = sums[..., 2:].reshape(*sums.shape[:2], 3, 2)
        return Lessons(counts[..., 0], sums[..., :2], actions, (formed, members, outsiders))


def slot_rewards(game: SymmetricPublicGoods) -> Array:
    """Each slot's reward at each size is `a m + b o` of members' and outsiders' gifts: a and b, `[C, I, 2]`."""
    members, outsiders, goods = game.members.numpy(), game.outsiders.numpy(), game.game
    cost = np.zeros((*members.shape, 2), members.dtype)
    cost[1:, 0, 0] = 1 / members[1:, 0]
    cost[:-1, 1, 1] = 1 / outsiders[:-1, 1]
    exists = (members + outsiders > 0)[..., np.newaxis]
    rewards: Array = exists * (goods.multiplier / game.n_agents - cost) / (goods.multiplier - 1)
    return rewards


def lesson_matrix(sizes: Array, slots: Array) -> Array:
    """From sums of `1, m, o, m^2, m o` over the games of a size to the numbers of `Lessons`, `[C, 5, 2 + 6]`.

    Args:
        sizes: `[C]`.
        slots: see `slot_rewards`.
    """
    by_gifts = slots.swapaxes(1, 2)
    rewards = np.zeros((len(sizes), 5, 2), slots.dtype)
    rewards[:, 1:3] = by_gifts
    everybody, contribute = np.zeros((2, len(sizes), 5, 3), slots.dtype)
    everybody[:, 0, 0] = sizes
    everybody[:, 1:3, 1:] = sizes[:, np.newaxis, np.newaxis] * by_gifts
    contribute[:, 1, 0] = 1
    contribute[:, 3:, 1:] = by_gifts  # m r = m (a m + b o)
    actions = np.stack([everybody - contribute, contribute], -1)
    return np.concatenate([rewards, actions.reshape(len(sizes), 5, 6)], -1)


def choice_matrix(multiplier: float, n_agents: int) -> Array:
    """From sums over games of `[1, all gifts] x [below keep, below commit, below the gift's end, 1]` to `Choices`.

    Returns:
        `[8, 6]`: counts and earnings of keep, contribute and commit.
    """
    chosen = np.array([[1, -1, 0], [0, 1, -1], [0, 0, 0], [0, 0, 1]])
    gifts = np.array([[0, -1, 0], [0, 1, -1], [0, 0, 1], [0, 0, 0]])
    by_one = np.concatenate([chosen, -gifts / (multiplier - 1)], 1)
    by_gifts = np.concatenate([0 * chosen, chosen * multiplier / n_agents / (multiplier - 1)], 1)
    return np.concatenate([by_one, by_gifts])


class EnumeratedBatches:
    """Batches of normal-form games; drawing one costs as much as there are coalitions times joint actions.

    Args:
        game: the game.
        shape: `(S, B)`.
        random: the games' chance.
    """

    def __init__(self, game: EnumeratedGame, shape: tuple[int, int], random: np.random.Generator) -> None:
        self._shape, self._random = shape, random
        self._agents, self._actions = game.n_agents, game.n_actions
        inside = game.coalitions.numpy()
        self._inside = inside[..., np.newaxis]
        payoffs = game.table_of_payoffs.numpy()
        self._payoffs = payoffs.reshape(-1, game.n_agents)
        joint = np.indices(payoffs.shape[:-1]).reshape(game.n_agents, -1).T
        played = joint[..., np.newaxis] == np.arange(game.n_actions)  # [J, N, A]
        members = np.broadcast_to(self._inside[:, np.newaxis], (len(inside), len(joint), game.n_agents, 1))
        chosen = np.concatenate([played & ~members, members], -1).astype(payoffs.dtype)
        earned = chosen * self._payoffs[..., np.newaxis]
        self._choices = np.stack([chosen, earned], 3).reshape(len(inside) * len(joint), -1)
        given = (played & members).reshape(*members.shape[:2], 1, -1)
        actions = given * np.concatenate([np.ones_like(self._payoffs[:, :1]), self._payoffs], -1)[..., np.newaxis]
        seen = np.ones_like(actions[:, :, 0, :1])
        self._lessons = np.concatenate([seen, seen * self._payoffs, actions.reshape(*members.shape[:2], -1)], -1)

    def play(self, policies: Array, mediator: Array) -> tuple[Choices, Lessons]:
        """See `Batches`."""
        own, commit = policies[:, np.newaxis, :, :-1], policies[:, np.newaxis, :, -1:]
        cells, lessons = self._draw(np.where(self._inside, commit * mediator, own))
        choices = (cells @ self._choices).reshape(-1, self._agents, 2, self._actions + 1)
        return Choices(choices[:, :, 0], choices[:, :, 1]), lessons

    def teach(self, outside: Array, mediator: Array) -> Lessons:
        """See `Batches`."""
        return self._draw(np.where(self._inside, mediator, outside[:, np.newaxis]))[1]

    def slack(self, lessons: Lessons, scale: Array, offset: Array) -> Array:
        """See `Batches`."""
        (counts,) = lessons.outcome
        found = scale[..., np.newaxis, :] * self._payoffs + offset[..., np.newaxis, :]
        summed: Array = (counts @ np.minimum(found, 0))[..., 0, :]
        return summed

    def _draw(self, marginals: Array) -> tuple[Array, Lessons]:
        """Games from each agent's part in the probability of each coalition and action, `[S, C, N, A]`."""
        seeds, coalitions = marginals.shape[:2]
        joint = marginals[:, :, 0]
        for agent in range(1, self._agents):
            joint = (joint[..., np.newaxis] * marginals[:, :, agent, np.newaxis]).reshape(seeds, coalitions, -1)
        chances = joint.reshape(seeds, -1).astype(np.float64)
        chances /= chances.sum(-1, keepdims=True)
        cells = self._random.multinomial(self._shape[1], chances).astype(joint.dtype)
        counts = cells.reshape(seeds, coalitions, 1, -1)
        sums = (counts @ self._lessons)[..., 0, :]
        slots = 1 + self._agents
        actions = sums[..., slots:].reshape(seeds, coalitions, slots, -1)
        return cells, Lessons(sums[..., 0], sums[..., 1:slots], actions, (counts,))


def batches_of(game: OneStepGame, shape: tuple[int, int], random: np.random.Generator) -> Batches:
    """Batches of `shape` = (seeds, games) of a game."""
    if isinstance(game, EnumeratedGame):
        return EnumeratedBatches(game, shape, random)
    if isinstance(game, SymmetricPublicGoods):
        return PublicGoodsBatches(game, shape, random)
    raise TypeError(f"{type(game).__name__} has no batches; give an EnumeratedGame or a SymmetricPublicGoods")
