r"""A game of several steps with its mediator, solved exactly for given policies where its states can be listed.

From a state s in round t, coalition C and joint action a lead to an event, and chance from there to a state of round
t + 1, with everybody's locks; backwards

    V_i(s, C) = sum_a P(a | s, C) (r_i(s, a) + gamma E V_i(s')),      V_i(s) = sum_C P(C | s) V_i(s, C),

where members' actions are the mediator's and the others' their own.  All is differentiable in the policies.  A repeated
matrix game has no chance: its states are what was played before (with memory) and the locks.  The Coin Game's are
listed by `mediated_marl.coin_rounds`.

Shapes: S seeds, M states of a round, C = 2^N coalitions, J joint actions, N agents, A own actions, E events, L states
that one event may lead to.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mediated_marl.coalitions import coalition_members, coalition_probabilities
from mediated_marl.commitment import next_locks
from mediated_marl.exact import check_enumerable
from mediated_marl.games import RepeatedMatrixGame
from mediated_marl.networks import MASKED
from mediated_marl.rollout import Policies, Rules, masked

__all__ = [
    "Chances",
    "Round",
    "RoundValues",
    "best_responses",
    "chances",
    "deviation_values",
    "evaluate_rounds",
    "expected",
    "reach",
    "unfold",
]


class Round(NamedTuple):
    """All states of one round.

    Attributes:
        observations: `[M, N, D]`.
        features: `[M, F]`.
        locks: `[M, N]`.
        legal: `[N, A]` bool.
        actions: `[J, N]`, the joint actions.
        rewards: `[M, 1, J, N]`; M may be 1 where they are the same in all states.
        following: `[M, C, J]` int64, the event; 0 in the last round.
        leads: `[E, L]` int64, the states of the next round that an event may lead to.
        odds: `[E, L]`, how likely each is.
    """

    observations: Tensor
    features: Tensor
    locks: Tensor
    legal: Tensor
    actions: Tensor
    rewards: Tensor
    following: Tensor
    leads: Tensor
    odds: Tensor


class Chances(NamedTuple):
    """What the policies do in the states of a round.

    Attributes:
        commit: `[S, M, N]`.
        own: `[S, M, N, A]`, given that an agent does not commit.
        mediated: `[S, M, C, N, A]`.
    """

    commit: Tensor
    own: Tensor
    mediated: Tensor


class RoundValues(NamedTuple):
    """Values in the states of a round.

    Attributes:
        outcomes: `[M, C, J, N]` with leading S, what each outcome and all that follows pays.
        coalitions: `[S, M, C, N]`.
        states: `[S, M, N]`.
    """

    outcomes: Tensor
    coalitions: Tensor
    states: Tensor


def unfold(game: RepeatedMatrixGame, rules: Rules) -> list[Round]:
    """All rounds with their distinct states.

    Raises:
        TooLargeError: too many coalitions and joint actions.
    """
    check_enumerable(game.action_counts)
    n_agents, joint = game.n_agents, torch.cartesian_prod(*(torch.arange(count) for count in game.action_counts))
    members = coalition_members(n_agents)
    legal = torch.arange(game.n_actions) < torch.tensor(game.action_counts).unsqueeze(-1)
    state, locks, rounds = game.reset(torch.Generator(), (1,)), torch.zeros(1, n_agents, dtype=torch.int64), []
    for number in range(game.horizon):
        shape = (len(locks), len(members), len(joint))
        spread = state._replace(last=state.last[:, None, None].expand(*shape, -1))
        played = game.step(spread, joint.expand(*shape, n_agents))
        after = next_locks(locks.unsqueeze(1), members.unsqueeze(0), rules.window, rules.lock_out)
        after = after.unsqueeze(2).expand(*shape, n_agents)
        last = played.state.last if game.memory else torch.zeros_like(played.state.last)
        code = torch.cat([last.flatten(0, 2), after.flatten(0, 2).to(last.dtype)], -1)
        distinct, following = code.unique(dim=0, return_inverse=True)
        following = following.reshape(shape) if number + 1 < game.horizon else torch.zeros(shape, dtype=torch.int64)
        seen = (game.observe(state), game.features(state))
        leads = torch.arange(len(distinct) if number + 1 < game.horizon else 1).unsqueeze(-1)
        certain = torch.ones(leads.shape, dtype=played.rewards.dtype)
        rounds.append(Round(*seen, locks, legal, joint, played.rewards[:1, :1], following, leads, certain))
        state, locks = played.state._replace(last=distinct[:, :-n_agents]), distinct[:, -n_agents:].long()
    return rounds


def chances(current: Round, policies: Policies, rules: Rules, seeds: int) -> Chances:
    """What `policies` of S seeds do in the states of a round."""
    locks = current.locks.expand(seeds, *current.locks.shape)
    logits = policies.choices(current.observations.expand(seeds, *current.observations.shape), locks)
    logits = masked(logits, current.legal, locks, mediated=rules.mediated)
    members = coalition_members(locks.shape[-1])
    shape = (seeds, len(current.locks), len(members))
    features = current.features.unsqueeze(1).expand(*shape, -1)
    mediation = policies.mediation(features, locks.unsqueeze(2).expand(*shape, -1), members.expand(*shape, -1))
    mediated = mediation.masked_fill(~current.legal, MASKED).softmax(-1)
    return Chances(logits.softmax(-1)[..., -1], logits[..., :-1].softmax(-1), mediated)


def outcome_chances(current: Round, found: Chances) -> Tensor:
    """`P(a | s, C)`, `[S, M, C, J]`."""
    members = coalition_members(found.commit.shape[-1])
    acting = torch.where(members[..., None], found.mediated, found.own.unsqueeze(2))
    index = current.actions.T.expand(*acting.shape[:-1], -1)
    return acting.gather(-1, index).prod(-2)


def expected(current: Round, ahead: Tensor) -> Tensor:
    """What the next round is worth after each event, `[*batch, E, N]`, from its states' values `[*batch, M, N]`."""
    return (current.odds.to(ahead.dtype).unsqueeze(-1) * ahead[..., current.leads, :]).sum(-2)


def evaluate_rounds(rounds: list[Round], found: list[Chances], discount: float) -> list[RoundValues]:
    """Values of all rounds, from the last to the first."""
    seeds, n_agents = found[0].commit.shape[0], found[0].commit.shape[-1]
    ahead, values = torch.zeros(seeds, 1, n_agents, dtype=found[0].commit.dtype), []
    for current, here in zip(reversed(rounds), reversed(found), strict=True):
        outcomes = current.rewards.to(ahead.dtype) + discount * expected(current, ahead)[:, current.following]
        coalitions = (outcome_chances(current, here).unsqueeze(-1) * outcomes).sum(-2)
        ahead = (coalition_probabilities(here.commit).unsqueeze(-1) * coalitions).sum(-2)
        values.append(RoundValues(outcomes, coalitions, ahead))
    return values[::-1]


def reach(rounds: list[Round], found: list[Chances], start: Tensor | None = None) -> list[Tensor]:
    """How likely each state of each round is, `[S, M]` per round; of the first as `start` says, or equally."""
    seeds, states = found[0].commit.shape[:2]
    start = torch.full((states,), 1 / states) if start is None else start
    here = start.to(found[0].commit.dtype).expand(seeds, -1)
    reached = []
    for number, (current, policy) in enumerate(zip(rounds, found, strict=True)):
        reached.append(here)
        flow = coalition_probabilities(policy.commit).unsqueeze(-1) * outcome_chances(current, policy)
        flow = (here[..., None, None] * flow).flatten(1)
        events = flow.new_zeros(seeds, len(current.leads)).index_add(1, current.following.flatten(), flow)
        states = len(rounds[number + 1].locks) if number + 1 < len(rounds) else 1
        spread = (events.unsqueeze(-1) * current.odds.to(flow.dtype)).flatten(1)
        here = flow.new_zeros(seeds, states).index_add(1, current.leads.flatten(), spread)
    return reached


def best_responses(rounds: list[Round], found: list[Chances], rules: Rules, discount: float) -> Tensor:
    """What each agent earns from each first state by its best policy against the others', `[S, M, N]`."""
    seeds, n_agents = found[0].commit.shape[0], found[0].commit.shape[-1]
    ahead = torch.zeros(seeds, 1, n_agents, dtype=found[0].commit.dtype)
    for current, here in zip(reversed(rounds), reversed(found), strict=True):
        outcomes = current.rewards.to(ahead.dtype) + discount * expected(current, ahead)[:, current.following]
        best = deviation_values(current, here, outcomes, rules).nan_to_num(-torch.inf).amax(-1)
        ahead = best.masked_fill(best.isinf(), 0.0)  # nobody is ever locked in without a mediator
    return ahead


def deviation_values(current: Round, found: Chances, outcomes: Tensor, rules: Rules) -> Tensor:
    """What each agent earns by each pure choice now, `[S, M, N, A + 1]`; NaN where illegal.

    Args:
        current: the round.
        found: what the policies do in it.
        outcomes: `[S, M, C, J, N]`, what each outcome and all that follows pays.
        rules: how agents may commit.
    """
    n_agents, n_actions = found.own.shape[-2:]
    rows = []
    for agent in range(n_agents):
        for action in range(n_actions + 1):
            mine = torch.arange(n_agents) == agent
            commit = torch.where(mine, float(action == n_actions), found.commit)
            pure = (torch.arange(n_actions) == action).to(found.own.dtype)
            changed = found._replace(commit=commit, own=torch.where(mine.unsqueeze(-1), pure, found.own))
            coalitions = (outcome_chances(current, changed) * outcomes[..., agent]).sum(-1)
            rows.append((coalition_probabilities(commit) * coalitions).sum(-1))
    earned = torch.stack(rows, -1).reshape(*found.commit.shape, n_actions + 1)
    logits = masked(torch.zeros_like(earned), current.legal, current.locks, mediated=rules.mediated)
    return torch.where(logits < 0, torch.nan, earned)
