r"""What policies learnt in a game of several steps are worth, which constraints hold, and who would deviate.

A repeated matrix game and a small Coin Game are enumerated (`mediated_marl.backward_induction`), so their figures are
exact.  Any other game is estimated: episodes are played, and at every step, in every state visited,

- each legal choice of each agent is forced, alone, and the episode played on with the learnt policies several times;
  the best is picked by one half of the continuations and measured by the other, so that noise is not taken for gain;
- every coalition of the free agents is forced, and `V_i(s, C)` estimated for all agents.

A deviation's gain is the mean over the states visited at a step, with a 95 % interval over episodes, of what it earns
more than the policy, in discounted rewards: what an agent would gain that deviates once, at that step, as best it can
see.  The slack of IC, `V_i(s, C) - V_i(s, C without i)`, and of E, `V_j(s, C with j) - V_j(s, C)`, is negative where
the constraint is violated; figures by coalition are the smallest over agents and steps of the mean over visited states.
The Coin Game's exact figures are such means, over all its states by how likely they are; a repeated matrix game, whose
states are few, has the extremes over those that are reached with more than one per cent instead.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mediated_marl.backward_induction import best_responses, chances, deviation_values, evaluate_rounds, reach, unfold
from mediated_marl.coalitions import coalition_members, coalition_number, coalition_probabilities, toggled
from mediated_marl.coin_rounds import first_placements, unfold_coin
from mediated_marl.commitment import next_locks
from mediated_marl.games import CoinGame, RepeatedMatrixGame
from mediated_marl.rollout import Arena, Drawn, Forced, Moment, Outcome, Policies, Rules, masked, no_locks, play_on

__all__ = ["MarkovAudit", "audit_estimated", "audit_exact", "flat_markov_audit"]

VISITED = 0.01
NORMAL_95 = 1.96
MAX_FORCED_AGENTS = 6


class MarkovAudit(NamedTuple):
    """One audit of S seeds; what is estimated comes with half the width of its 95 % interval, 0 where it is exact.

    Attributes:
        returns: `[S, N]`, undiscounted.
        values: `[S, N]`, discounted.
        commitment: `[S, T]`, mean over agents.
        gains: `[S, T, N]`, of the best deviation; 0 where nobody has a choice.
        gain_errors: `[S, T, N]`.
        probabilities: `[S, T, C]`, how likely each coalition is at each step.
        slack: `[S, T, C, N]`, IC for members and E for outsiders; NaN where no state with a free agent was visited.
        slack_errors: `[S, T, C, N]`.
        response_gains: `[S, N]`, of the best policy against the others' over a whole episode; NaN where it is unknown.
    """

    returns: Tensor
    values: Tensor
    commitment: Tensor
    gains: Tensor
    gain_errors: Tensor
    probabilities: Tensor
    slack: Tensor
    slack_errors: Tensor
    response_gains: Tensor


@torch.no_grad()
def audit_exact(
    game: RepeatedMatrixGame | CoinGame, policies: Policies, rules: Rules, seeds: int, discount: float
) -> MarkovAudit:
    """Audit policies of a repeated matrix game or a small Coin Game by enumeration.

    Raises:
        TooLargeError: too many coalitions and joint actions.
    """
    if isinstance(game, CoinGame):
        rounds, start, summary = unfold_coin(game, rules), first_placements(game), means
    else:
        rounds, start, summary = unfold(game, rules), torch.ones(1), extremes
    found = [chances(current, policies, rules, seeds) for current in rounds]
    values, reached = evaluate_rounds(rounds, found, discount), reach(rounds, found, start)
    members = coalition_members(game.n_agents)
    neighbours = toggled(torch.arange(len(members)), game.n_agents)
    columns = []
    for current, policy, here, visits in zip(rounds, found, values, reached, strict=True):
        earned = deviation_values(current, policy, here.outcomes, rules).nan_to_num(-torch.inf).amax(-1)
        next_door = here.coalitions.gather(2, neighbours.expand_as(here.coalitions))
        slack = torch.where(members, here.coalitions - next_door, next_door - here.coalitions)
        free = (current.locks == 0) & rules.mediated
        found_there = summary(visits, (earned - here.states).clamp(min=0), slack, free)
        coalitions = (visits.unsqueeze(-1) * coalition_probabilities(policy.commit)).sum(1)
        commitment = (visits.unsqueeze(-1) * policy.commit).sum(1).mean(-1)
        columns.append((commitment, *found_there, coalitions))
    commitment, gains, slack, coalitions = (torch.stack(column, 1) for column in zip(*columns, strict=True))
    first = start.to(gains.dtype).unsqueeze(-1)
    undiscounted = (first * evaluate_rounds(rounds, found, 1.0)[0].states).sum(1)
    discounted, zeros = (first * values[0].states).sum(1), torch.zeros_like
    responses = (first * (best_responses(rounds, found, rules, discount) - values[0].states)).sum(1)
    return MarkovAudit(
        undiscounted, discounted, commitment, gains, zeros(gains), coalitions, slack, zeros(slack), responses
    )


def extremes(visits: Tensor, gains: Tensor, slack: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The largest gains `[S, N]` and the smallest slacks `[S, C, N]` over states `[S, M]` that are visited at all."""
    visited = (visits > VISITED).unsqueeze(-1)
    least = torch.where((visited & free).unsqueeze(2), slack, torch.inf).amin(1)
    return torch.where(visited, gains, 0.0).amax(1), torch.where(least.isinf(), torch.nan, least)


def means(visits: Tensor, gains: Tensor, slack: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Mean gains `[S, N]`, and mean slacks `[S, C, N]` where agents are free, over states by their chances `[S, M]`."""
    weights = (visits.unsqueeze(-1) * free).unsqueeze(2)
    return (visits.unsqueeze(-1) * gains).sum(1), (weights * slack).sum(1) / weights.sum(1)


class Spot(NamedTuple):
    """Where episodes stand, and how they go on.

    Attributes:
        arena: the game.
        policies: who chooses.
        rules: how agents may commit.
        moment: what is there.
        locks: `[S, B, N]`.
        steps: how many are left.
        discount: gamma.
        luck: of what is still to come.
        continuations: of each forced choice and state.
    """

    arena: Arena
    policies: Policies
    rules: Rules
    moment: Moment
    locks: Tensor
    steps: int
    discount: float
    luck: torch.Generator
    continuations: int

    @property
    def free(self) -> Tensor:
        """Who may decide whether to commit, `[S, B, N]`."""
        return (self.locks == 0) & self.moment.alive & self.rules.mediated


@torch.no_grad()
def audit_estimated(
    arena: Arena,
    policies: Policies,
    rules: Rules,
    seeds: int,
    discount: float,
    luck: torch.Generator,
    episodes: int = 32,
    continuations: int = 8,
) -> MarkovAudit:
    """Audit policies of any game from played episodes.

    Args:
        arena: the game.
        policies: who chooses.
        rules: how agents may commit, without exploration.
        seeds: S.
        discount: gamma.
        luck: of everything played.
        episodes: per seed, at least 2, whose states are visited.
        continuations: of each forced choice and state, at least 2.
    """
    moment = arena.begin(luck, (seeds, episodes))
    locks, columns = no_locks(moment), []
    for step in range(arena.horizon):
        spot = Spot(arena, policies, rules, moment, locks, arena.horizon - step, discount, luck, continuations)
        found = (*deviation_gains(spot), *coalition_slacks(spot))
        outcome, locks, wanted = one_step(spot)
        columns.append((*found, coalition_shares(wanted), wanted, moment.alive, outcome.rewards))
        moment = outcome.moment
    gains, errors, slack, slack_errors, shares, wanted, alive, rewards = (
        torch.stack(column, 1) for column in zip(*columns, strict=True)
    )
    powers = discount ** torch.arange(arena.horizon).reshape(-1, 1, 1)
    commitment = wanted.sum((2, 3)) / alive.sum((2, 3)).clamp(min=1)
    values = (powers * rewards).sum(1).mean(1)
    unknown = torch.full_like(values, torch.nan)
    return MarkovAudit(rewards.sum(1).mean(1), values, commitment, gains, errors, shares, slack, slack_errors, unknown)


def one_step(spot: Spot) -> tuple[Outcome, Tensor, Tensor]:
    """Play one step by the policies: its outcome, the locks after it, and who committed."""
    chooser = Drawn(spot.policies, spot.rules, spot.luck)
    wanted, own = chooser.choose(spot.moment, spot.locks)
    mediated = chooser.mediate(spot.moment, spot.locks, wanted) if spot.rules.mediated else own
    outcome = spot.arena.advance(torch.where(wanted, mediated, own))
    return outcome, next_locks(spot.locks, wanted, spot.rules.window, spot.rules.lock_out), wanted


def forced_returns(spot: Spot, forced: Forced) -> Tensor:
    """Discounted returns `[S, B, K, M, N]` of M continuations after each of K forced first choices `[S, B, K, N]`."""
    seeds, episodes, kinds, n_agents = forced.committed.shape
    copies = kinds * spot.continuations

    def spread(part: Tensor) -> Tensor:
        return part.repeat_interleave(copies, 1)

    first = [part.repeat_interleave(spot.continuations, 2).flatten(1, 2) for part in forced]
    moment = Moment(*(spread(part) for part in spot.moment))
    arena, luck = spot.arena.fork(copies, spot.luck), spot.luck
    chooser = Drawn(spot.policies, spot.rules, luck)
    played = play_on(arena, chooser, spot.rules, moment, spread(spot.locks), luck, spot.steps, Forced(*first))
    powers = spot.discount ** torch.arange(spot.steps).reshape(-1, 1, 1)
    returns = (powers * played.rewards).sum(1)
    return returns.reshape(seeds, episodes, kinds, spot.continuations, n_agents)


def deviation_gains(spot: Spot) -> tuple[Tensor, Tensor]:
    """The best one-step deviation's gain of each agent and half its interval, `[S, N]` each."""
    seeds, episodes, n_agents, n_actions = spot.moment.legal.shape
    kinds = n_actions + 1
    forced = torch.full((n_agents, kinds, 2, n_agents), -1)
    for agent in range(n_agents):
        forced[agent, :, 0, agent] = (torch.arange(kinds) == n_actions).long()
        forced[agent, :-1, 1, agent] = torch.arange(n_actions)
    forced = torch.cat([torch.full((1, 2, n_agents), -1), forced.flatten(0, 1)])  # the first leaves all to the policies
    committed, own = (part.expand(seeds, episodes, *part.shape) for part in forced.unbind(1))
    legal = spot.moment.legal.unsqueeze(2).expand(*own.shape, n_actions)
    legal = legal.gather(-1, own.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    both = Forced(committed, torch.where(legal, own, -1))  # what is illegal is never played, and not picked either
    picking, measuring = forced_returns(spot, both).chunk(2, 3)
    logits = masked(torch.zeros(1), spot.moment.legal, spot.locks, mediated=spot.rules.mediated)
    gains = []
    for agent in range(n_agents):
        mine = slice(1 + agent * kinds, 1 + (agent + 1) * kinds)
        picked = picking[:, :, mine, :, agent].mean(3) + logits[:, :, agent]
        best = picked.argmax(2, keepdim=True)
        earned = measuring[:, :, mine, :, agent].mean(3).gather(2, best).squeeze(2)
        stuck = ~spot.moment.alive[..., agent] | (spot.locks[..., agent] > 0)
        gains.append((earned - measuring[:, :, 0, :, agent].mean(2)).masked_fill(stuck, 0.0))
    every = torch.stack(gains, -1)
    return every.mean(1), NORMAL_95 * every.std(1) / episodes**0.5


def coalition_slacks(spot: Spot) -> tuple[Tensor, Tensor]:
    """The mean slack of each constraint over states and half its interval, `[S, C, N]` each; NaN without two states."""
    seeds, episodes, n_agents = spot.locks.shape
    if not spot.rules.mediated or n_agents > MAX_FORCED_AGENTS:
        nothing = torch.full((seeds, 0, n_agents), torch.nan)
        return nothing, nothing
    members = coalition_members(n_agents)
    wanted = members.expand(seeds, episodes, -1, -1)
    possible = (wanted == (spot.locks > 0).unsqueeze(2)) | spot.free.unsqueeze(2)
    forced = Forced(wanted.long(), torch.full(wanted.shape, -1))
    values = forced_returns(spot, forced).mean(3)
    next_door = values.gather(2, toggled(torch.arange(len(members)), n_agents).expand_as(values))
    slack = torch.where(members, values - next_door, next_door - values)
    counted = possible.all(-1, keepdim=True) & spot.free.unsqueeze(2)
    count = counted.sum(1)
    mean = torch.where(counted, slack, 0.0).sum(1) / count
    spread = torch.where(counted, (slack - mean.unsqueeze(1)).square(), 0.0).sum(1) / (count - 1)
    few = count < 2
    return mean.masked_fill(few, torch.nan), (NORMAL_95 * (spread / count).sqrt()).masked_fill(few, torch.nan)


def coalition_shares(wanted: Tensor) -> Tensor:
    """How often each coalition formed, `[S, C]`, from who committed, `[S, B, N]`; C is 0 for many agents."""
    n_agents = wanted.shape[-1]
    if n_agents > MAX_FORCED_AGENTS:
        return torch.zeros(len(wanted), 0)
    return one_hot(coalition_number(wanted), 2**n_agents).float().mean(1)


def flat_markov_audit(audit: MarkovAudit) -> dict[str, Any]:
    """The audit as figures by name, for `result.json`: per seed as a list, over seeds as mean and extremes."""
    returns, largest = audit.returns.mean(-1), audit.gains.flatten(1).max(1)
    errors = audit.gain_errors.flatten(1).gather(1, largest.indices.unsqueeze(1)).squeeze(1)
    scale = audit.values.mean(-1).abs().clamp(min=1e-9)
    return {
        "return": returns.mean().item(),
        "return_per_seed": returns.tolist(),
        "welfare": audit.returns.sum(-1).mean().item(),
        "welfare_per_seed": audit.returns.sum(-1).tolist(),
        "return_per_agent": audit.returns.mean(0).tolist(),
        "returns_per_seed": audit.returns.tolist(),
        "commitment": audit.commitment.mean().item(),
        "commitment_per_seed": audit.commitment.mean(-1).tolist(),
        "commitment_by_step": audit.commitment.mean(0).tolist(),
        "deviation_gain_max": largest.values.max().item(),
        "deviation_gain_per_seed": largest.values.tolist(),
        "deviation_gain_error_per_seed": errors.tolist(),
        "deviation_gain_share_per_seed": (largest.values / scale).tolist(),
        "deviation_gain_by_step": audit.gains.amax(-1).mean(0).tolist(),
        **response_figures(audit.response_gains),
        **coalition_figures(audit),
    }


def response_figures(gains: Tensor) -> dict[str, Any]:
    """What the best policy of any one agent gains, per seed, where it is known, from `[S, N]`."""
    return {} if gains.isnan().any() else {"response_gain_per_seed": gains.amax(1).tolist()}


def coalition_figures(audit: MarkovAudit) -> dict[str, Any]:
    """By coalition, numbered by bits: how often it forms, and the smallest slack of its members and outsiders."""
    slack, errors = audit.slack.nanmean(0), audit.slack_errors.square().nanmean(0).sqrt() / len(audit.slack) ** 0.5
    n_agents = slack.shape[-1]
    members = coalition_members(n_agents) if slack.shape[1] else torch.zeros(0, n_agents, dtype=torch.bool)
    figures: dict[str, Any] = {"coalition_probability": audit.probabilities.mean((0, 1)).tolist()}
    for name, counted in (("ic", members), ("e", ~members)):
        shown = torch.where(counted & ~slack.isnan(), slack, torch.inf).movedim(1, 0).flatten(1)
        smallest = shown.min(1) if shown.numel() else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        errors_there = errors.movedim(1, 0).flatten(1).gather(1, smallest[1].unsqueeze(1)).squeeze(1)
        exists = ~smallest[0].isinf()
        figures[f"{name}_slack_by_coalition"] = readable(smallest[0], exists)
        figures[f"{name}_slack_error_by_coalition"] = readable(errors_there, exists)
    return figures


def readable(values: Tensor, exists: Tensor) -> list[float | None]:
    """Numbers for JSON, None where there is none."""
    return [value if there else None for value, there in zip(values.tolist(), exists.tolist(), strict=True)]
