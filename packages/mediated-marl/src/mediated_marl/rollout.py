r"""Played episodes of any game, many at a time, with commitments that bind.

In every step (paper, section 3) all agents choose at once, those who commit form the coalition C, the mediator, who
sees C, draws its members' actions, and the game goes on with the merged ones.  Locks are those of
`mediated_marl.commitment`: who is locked has no choice, which is a mask on its policy and nothing else.

**Coalitions nobody forms.**  The constraints compare a coalition with its neighbours, which trained agents may never
form.  With the chance `exploration` per game and step, the free agents' membership is drawn by fair coins instead.
Such a step is a sample of the mediator's values at that coalition and no sample of the agents' choices; the returns of
earlier steps stop before it, with the critic's value of the coalition that the agents *wanted*.

Shapes: S seeds, T steps, B episodes, N agents, A own actions, D and F features as in `mediated_marl.games.protocol`.
"""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mediated_marl.by_hand import Array
from mediated_marl.commitment import LockOut, may_act, may_commit, next_locks
from mediated_marl.games.protocol import Game
from mediated_marl.networks import MASKED

__all__ = [
    "Arena",
    "Drawn",
    "Forced",
    "Moment",
    "Outcome",
    "Policies",
    "Rollout",
    "Rules",
    "TensorArena",
    "legal_choices",
    "masked",
    "no_locks",
    "play_on",
    "race",
    "roll_out",
]

State = TypeVar("State")


class Moment(NamedTuple):
    """What is there before a step.

    Attributes:
        observations: `[S, B, N, D]`.
        features: `[S, B, F]`.
        legal: `[S, B, N, A]` bool, each agent's own legal actions.
        alive: `[S, B, N]` bool, who still plays; nobody does once an episode is over.
    """

    observations: Tensor
    features: Tensor
    legal: Tensor
    alive: Tensor


class Outcome(NamedTuple):
    """What a step leads to.

    Attributes:
        rewards: `[S, B, N]`.
        moment: what is there now; of an agent whose episode was cut, its last observation.
        terminated: `[S, B, N]` bool, for whom no value lies beyond.
    """

    rewards: Tensor
    moment: Moment
    terminated: Tensor


class Arena(Protocol):
    """Many episodes of one game, played in step.

    Attributes:
        n_agents: N.
        n_actions: A, the largest number of own actions.
        horizon: T.
        observation_size: D.
        state_size: F.
        always_legal: whether every agent may take every own action at all times.
    """

    @property
    def n_agents(self) -> int: ...  # noqa: D102
    @property
    def n_actions(self) -> int: ...  # noqa: D102
    @property
    def horizon(self) -> int: ...  # noqa: D102
    @property
    def observation_size(self) -> int: ...  # noqa: D102
    @property
    def state_size(self) -> int: ...  # noqa: D102
    @property
    def always_legal(self) -> bool: ...  # noqa: D102

    def begin(self, generator: torch.Generator, batch_shape: tuple[int, int]) -> Moment:
        """Start `[S, B]` episodes."""
        ...

    def advance(self, actions: Tensor) -> Outcome:
        """Play `actions` `[S, B, N]`; those of agents that are gone mean nothing."""
        ...

    def fork(self, copies: int, generator: torch.Generator) -> "Arena":
        """An arena of `[S, B * copies]` episodes, each of which stands where its original stands now.

        Luck still to come is drawn anew where the game allows it.
        """
        ...


class TensorArena(Generic[State]):
    """The arena of a batched game of this package.

    Args:
        game: the game.
    """

    def __init__(self, game: Game[State]) -> None:
        self.game = game
        self.n_agents, self.n_actions, self.horizon = game.n_agents, game.n_actions, game.horizon
        self.observation_size, self.state_size = game.observation_size, game.state_size
        self._legal = torch.arange(game.n_actions) < torch.tensor(game.action_counts).unsqueeze(-1)
        self.always_legal = bool(self._legal.all())
        self._state: State | None = None

    def begin(self, generator: torch.Generator, batch_shape: tuple[int, int]) -> Moment:
        """See `Arena`."""
        self._state = self.game.reset(generator, batch_shape)
        return self._moment(self._state, torch.ones((*batch_shape, self.n_agents), dtype=torch.bool))

    def advance(self, actions: Tensor) -> Outcome:
        """See `Arena`."""
        played = self.game.step(self._started(), actions)
        self._state = played.state
        over = (played.terminated | played.truncated).unsqueeze(-1).expand(actions.shape)
        terminated = played.terminated.unsqueeze(-1).expand(actions.shape)
        return Outcome(played.rewards, self._moment(played.state, ~over), terminated)

    def fork(self, copies: int, generator: torch.Generator) -> "TensorArena[State]":
        """See `Arena`."""
        fork, state = TensorArena(self.game), self._started()
        parts: Any = state  # a NamedTuple of tensors and counts, by the protocol of games
        spread = (part.repeat_interleave(copies, 1) if isinstance(part, Tensor) else part for part in parts)
        fork._state = type(parts)(*spread)
        redraw = getattr(self.game, "redraw", None)
        if redraw is not None:
            fork._state = redraw(fork._state, generator)
        return fork

    def _started(self) -> State:
        if self._state is None:
            raise RuntimeError("no episode has started; call begin() first")
        return self._state

    def _moment(self, state: State, alive: Tensor) -> Moment:
        legal = self._legal.expand(*alive.shape, self.n_actions)
        return Moment(self.game.observe(state), self.game.features(state), legal, alive)


class Policies(Protocol):
    """Who chooses."""

    def choices(self, observations: Tensor, locks: Tensor) -> Tensor:
        """The agents' logits `[S, *, N, A + 1]`, from `[S, *, N, D]` and locks `[S, *, N]`."""
        ...

    def mediation(self, features: Tensor, locks: Tensor, committed: Tensor) -> Tensor:
        """The mediator's logits `[S, *, N, A]`, from `[S, *, F]`, locks and members `[S, *, N]`."""
        ...


class Rules(NamedTuple):
    """How agents may commit.

    Attributes:
        window: k.
        lock_out: see `mediated_marl.commitment`.
        mediated: whether there is a mediator at all.
        exploration: see above.
    """

    window: int = 1
    lock_out: LockOut = "window"
    mediated: bool = True
    exploration: float = 0.0

    @property
    def binding(self) -> bool:
        """Whether a choice ever binds beyond its own step; if not, no lock is ever set."""
        return self.window > 1 or self.lock_out == "episode"


class Rollout(NamedTuple):
    """Played episodes.

    Attributes:
        observations: `[S, T + 1, B, N, D]`.
        features: `[S, T + 1, B, F]`.
        legal: `[S, T + 1, B, N, A]` bool.
        alive: `[S, T + 1, B, N]` bool.
        locks: `[S, T + 1, B, N]` int64, before each step.
        own: `[S, T + 1, B, N]` int64, what each agent does if it does not commit.
        wanted: `[S, T + 1, B, N]` bool, who chose to commit; the last entry's choices are not played.
        committed: `[S, T, B, N]` bool, the coalition that acted.
        mediated: `[S, T, B, N]` int64, the mediator's actions, meant for members only.
        rewards: `[S, T, B, N]`.
        terminated: `[S, T, B, N]` bool.
    """

    observations: Tensor
    features: Tensor
    legal: Tensor
    alive: Tensor
    locks: Tensor
    own: Tensor
    wanted: Tensor
    committed: Tensor
    mediated: Tensor
    rewards: Tensor
    terminated: Tensor

    @property
    def explored(self) -> Tensor:
        """Where another coalition acted than the agents chose, `[S, T, B]`."""
        return (self.committed != self.wanted[:, :-1]).any(-1)

    @property
    def free(self) -> Tensor:
        """Who had the choice whether to commit, `[S, T, B, N]`."""
        return (self.locks[:, :-1] == 0) & self.alive[:, :-1]

    @property
    def chosen(self) -> Tensor:
        """The agents' choices, `[S, T, B, N]` in `[0, A]`; A is to commit."""
        return torch.where(self.wanted, self.legal.shape[-1], self.own)[:, :-1]


def race(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from `[*, A]` (need not sum to 1) as the winner of exponential clocks; never one of probability 0."""
    clocks = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / clocks).argmax(-1)


def legal_choices(legal: Tensor, locks: Tensor, *, mediated: bool) -> Tensor:
    """Which choices are legal by the game and by locks, `[*, N, A + 1]` bool; commit is the last."""
    own = legal & may_act(locks).unsqueeze(-1)
    commit = (may_commit(locks) & mediated).unsqueeze(-1)
    return torch.cat([own, commit], -1)


def masked(logits: Tensor, legal: Tensor, locks: Tensor, *, mediated: bool) -> Tensor:
    """The agents' logits `[*, N, A + 1]` with what is illegal, by the game or by a lock, at `MASKED`."""
    return logits.masked_fill(~legal_choices(legal, locks, mediated=mediated), MASKED)


def roll_out(
    arena: Arena,
    policies: Policies,
    rules: Rules,
    batch_shape: tuple[int, int],
    luck: torch.Generator,
) -> Rollout:
    """Play whole episodes.

    Args:
        arena: the game.
        policies: who chooses.
        rules: how agents may commit.
        batch_shape: `(S, B)`.
        luck: of the games, the agents and the mediator.
    """
    moment = arena.begin(luck, batch_shape)
    return play_on(arena, Drawn(policies, rules, luck), rules, moment, no_locks(moment), luck)


def no_locks(moment: Moment) -> Tensor:
    """The locks at the start of an episode."""
    return torch.zeros(moment.alive.shape, dtype=torch.int64)


@torch.no_grad()
def play_on(
    arena: Arena,
    chooser: "Drawn",
    rules: Rules,
    moment: Moment,
    locks: Tensor,
    luck: torch.Generator,
    steps: int | None = None,
    forced: "Forced | None" = None,
) -> Rollout:
    """Play on from `moment`, for `steps` steps or one horizon, the first choices as `forced` says."""
    before, after = [], []
    for step in range(arena.horizon if steps is None else steps):
        wanted, own = chooser.choose(moment, locks)
        if step == 0 and forced is not None:
            left = (forced.committed < 0) | (locks != 0)
            wanted = torch.where(left, wanted, forced.committed == 1) & moment.alive
            own = torch.where(forced.own >= 0, forced.own, own)
        free = moment.alive & (locks == 0)
        committed = torch.from_numpy(explore(wanted.mT.numpy(), free.mT.numpy(), rules, luck)).mT
        mediated = chooser.mediate(moment, locks, committed) if rules.mediated else own
        outcome = arena.advance(torch.where(committed, mediated, own))
        before.append((*moment, locks, own, wanted))
        after.append((committed, mediated, outcome.rewards, outcome.terminated))
        if rules.binding:
            locks = next_locks(locks, committed, rules.window, rules.lock_out)
        moment = outcome.moment
    wanted, own = chooser.choose(moment, locks)
    before.append((*moment, locks, own, wanted))
    stacked = [torch.stack(column, 1) for rows in (before, after) for column in zip(*rows, strict=True)]
    return Rollout(*stacked)


class Forced(NamedTuple):
    """First choices that are not left to the agents; -1 leaves them, and a lock is not broken.

    Attributes:
        committed: `[S, B, N]` int64, 1 to commit and 0 to stay out.
        own: `[S, B, N]` int64, the action outside.
    """

    committed: Tensor
    own: Tensor


class Drawn(NamedTuple):
    """The chooser that draws from policies.

    Attributes:
        policies: who chooses.
        rules: how agents may commit.
        luck: of the agents and the mediator.
    """

    policies: Policies
    rules: Rules
    luck: torch.Generator

    def choose(self, moment: Moment, locks: Tensor) -> tuple[Tensor, Tensor]:
        """Who wants to commit, `[S, B, N]` bool, and what each would do outside, `[S, B, N]`."""
        choices = self.policies.choices(moment.observations, locks)
        logits = masked(choices, moment.legal, locks, mediated=self.rules.mediated)
        commit = logits.softmax(-1)[..., -1]
        own = race(logits[..., :-1].softmax(-1), self.luck)
        wanted = torch.rand(commit.shape, generator=self.luck, dtype=commit.dtype) < commit
        return wanted & moment.alive, own

    def mediate(self, moment: Moment, locks: Tensor, committed: Tensor) -> Tensor:
        """The mediator's actions `[S, B, N]`."""
        logits = self.policies.mediation(moment.features, locks, committed).masked_fill(~moment.legal, MASKED)
        return race(logits.softmax(-1), self.luck)


def explore(wanted: Array, free: Array, rules: Rules, luck: torch.Generator) -> Array:
    """The coalition that acts, `[S, N, B]`: the wanted one, or with the chance `exploration` a random one."""
    if not (rules.mediated and rules.exploration):
        return wanted
    seeds, n_agents, games = wanted.shape
    explores = torch.rand((seeds, games), generator=luck).numpy() < rules.exploration
    coins = torch.rand((seeds, games, n_agents), generator=luck).numpy() < 0.5
    return np.where(explores[:, np.newaxis] & free, coins.swapaxes(1, 2), wanted)
