"""All states of the Coin Game, as rounds of `mediated_marl.backward_induction`.

A state is the agents' cells, the coin's cell and its owner, and everybody's locks.  An event says where the agents
stand after a step and whether the coin was taken: if not, it lies where it lay; if it was, the next one falls on any
free cell, equally likely, and is anyone's.  The torus looks the same from every cell, so where agents see only what
lies around them agent 0 stands still, the world turns under it, and the states are `size**2` times fewer.

Shapes: P positions of the agents, K = size^2 cells, X = P K N placements of agents, coin and owner; states are all
placements under the first row of locks, then all under the second, and so on.
"""

from itertools import product

import torch
from torch import Tensor

from mediated_marl.backward_induction import Round
from mediated_marl.coalitions import TooLargeError, coalition_members
from mediated_marl.commitment import next_locks
from mediated_marl.games.coin import CoinGame, CoinState, coin_rewards, moved, seen_from
from mediated_marl.rollout import Rules

__all__ = ["MAX_OUTCOMES", "coin_outcomes", "first_placements", "unfold_coin"]

MAX_OUTCOMES = 2**17


def coin_outcomes(game: CoinGame, rules: Rules) -> int:
    """How many joint actions there are in all states of a round, the largest one."""
    locks = torch.zeros(1, game.n_agents, dtype=torch.int64)
    most = 1
    for _ in range(1, game.horizon):
        locks = after_locks(locks, rules)[1]
        most = max(most, len(locks))
    return most * positions(game) * game.size**2 * game.n_agents * int(game.n_actions**game.n_agents)


def unfold_coin(game: CoinGame, rules: Rules) -> list[Round]:
    """All rounds with all their states.

    Raises:
        TooLargeError: more than `2^17` joint actions in the states of a round.
    """
    outcomes = coin_outcomes(game, rules)
    if outcomes > MAX_OUTCOMES:
        raise TooLargeError(
            f"{game.n_agents} agents on {game.size} x {game.size} cells have {outcomes} joint actions in the states of "
            f"a round, more than {MAX_OUTCOMES}; use fewer agents or a smaller grid, or play episodes"
        )
    cells, coin, owner = placements(game)
    joint = torch.cartesian_prod(*[torch.arange(game.n_actions)] * game.n_agents)
    legal = torch.ones(game.n_agents, game.n_actions, dtype=torch.bool)
    after = moved(cells.unsqueeze(1), joint, game.size)
    takers = after == coin[:, None, None]
    rewards = coin_rewards(takers, owner.unsqueeze(1)).to(game.dtype)
    after, lies = turned(game, after, coin.unsqueeze(1))
    kept = placement_number(game, after, lies, owner.unsqueeze(1))
    event = torch.where(takers.any(-1), len(cells) + position_number(game, after), kept)
    leads, odds = falls(game)
    locks, rounds = torch.zeros(1, game.n_agents, dtype=torch.int64), []
    for step in range(game.horizon):
        following, rows = after_locks(locks, rules)
        last = step + 1 == game.horizon
        state = CoinState(step, cells, coin, owner, torch.empty(0), torch.empty(0))
        observations, features = game.observe(state), game.features(state)
        events = (following[:, None, :, None] * len(leads) + event[:, None]).flatten(0, 1)
        rounds.append(
            Round(
                observations.repeat(len(locks), 1, 1),
                features.repeat(len(locks), 1),
                locks.repeat_interleave(len(cells), 0),
                legal,
                joint,
                rewards.unsqueeze(1).repeat(len(locks), 1, 1, 1),
                torch.zeros_like(events) if last else events,
                torch.zeros(1, 1, dtype=torch.int64) if last else every_row(leads, len(rows), len(cells)),
                torch.ones(1, 1) if last else odds.repeat(len(rows), 1),
            )
        )
        locks = rows
    return rounds


def first_placements(game: CoinGame) -> Tensor:
    """How likely each placement is at the start, `[X]`: agents on any cells, the coin on any free one."""
    leads, odds = falls(game)
    count = positions(game)
    first = torch.zeros(len(leads) - count, dtype=game.dtype)
    return first.index_add(0, leads[-count:].flatten(), odds[-count:].flatten() / count)


def positions(game: CoinGame) -> int:
    """P."""
    movable = game.n_agents - 1 if game.egocentric else game.n_agents
    return int((game.size**2) ** movable)


def placements(game: CoinGame) -> tuple[Tensor, Tensor, Tensor]:
    """Agents' cells `[X, N]`, the coin's cell `[X]` and its owner `[X]`."""
    count = game.size**2
    ranges = [range(1 if game.egocentric and agent == 0 else count) for agent in range(game.n_agents)]
    rows = torch.tensor(list(product(*ranges, range(count), range(game.n_agents))))
    return rows[:, :-2], rows[:, -2], rows[:, -1]


def turned(game: CoinGame, cells: Tensor, coin: Tensor) -> tuple[Tensor, Tensor]:
    """The same agents `[*batch, N]` and coin `[*batch]`, seen from agent 0 where agents see what lies around them."""
    if not game.egocentric:
        return cells, coin.expand(cells.shape[:-1])
    origin = cells[..., :1]
    return seen_from(cells, origin, game.size), seen_from(coin, origin.squeeze(-1), game.size)


def position_number(game: CoinGame, cells: Tensor) -> Tensor:
    """Which of the P positions agents' cells `[*batch, N]` are."""
    powers = (game.size**2) ** torch.arange(game.n_agents - 1, -1, -1)
    return (cells * powers).sum(-1)


def placement_number(game: CoinGame, cells: Tensor, coin: Tensor, owner: Tensor) -> Tensor:
    """Which of the X placements agents' cells `[*batch, N]`, coin and owner `[*batch]` are."""
    return (position_number(game, cells) * game.size**2 + coin) * game.n_agents + owner


def falls(game: CoinGame) -> tuple[Tensor, Tensor]:
    """Where events lead and how likely, `[X + P, K N]`: first every placement kept, then every position with a fall."""
    cells, coin, _ = placements(game)
    n_coins = game.size**2 * game.n_agents
    number = torch.arange(len(cells))
    free = (cells != coin.unsqueeze(-1)).all(-1).reshape(-1, n_coins)
    falling = number.reshape(-1, n_coins), free / free.sum(1, keepdim=True)
    kept = number.unsqueeze(-1).expand(-1, n_coins), (torch.arange(n_coins) == 0).expand(len(cells), -1)
    return torch.cat([kept[0], falling[0]]), torch.cat([kept[1].to(game.dtype), falling[1].to(game.dtype)])


def after_locks(locks: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Which row of locks follows each row and coalition, `[R, C]`, and these rows, `[R', N]`."""
    members = coalition_members(locks.shape[-1])
    after = next_locks(locks.unsqueeze(1), members.unsqueeze(0), rules.window, rules.lock_out)
    rows, following = after.flatten(0, 1).unique(dim=0, return_inverse=True)
    return following.reshape(len(locks), len(members)), rows


def every_row(leads: Tensor, rows: int, states: int) -> Tensor:
    """Where the events of all rows of locks lead, from those of one row `[E, L]`."""
    return (torch.arange(rows)[:, None, None] * states + leads).flatten(0, 1)
