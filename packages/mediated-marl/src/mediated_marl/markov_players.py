"""Who learns in games of several steps: networks of all seeds' agents and mediators, and their critics.

An agent's actor and critic read its own observation and its lock; the mediator's read the whole state, all locks and
the coalition, its actor also whose action is wanted.  Locks enter as shares of the window, in [-1, 1].  Agents share
no parameters: actors and critics of all seeds and agents are stacked, one batched product per layer.

Shapes: `[S, *, N, D]` for observations, `[S, *, F]` for features, where `*` is any number of dimensions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mediated_marl.coalitions import coalition_members, coalition_number
from mediated_marl.games import (
    CoinGame,
    IteratedPublicGoodsGame,
    RepeatedMatrixGame,
    prisoners_dilemma,
    two_step_prisoners_dilemma,
)
from mediated_marl.games.protocol import Game
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.networks import StackedMLP
from mediated_marl.rollout import Arena, Rules, TensorArena

__all__ = ["MarkovCritics", "MarkovPlayers", "StateNetwork", "build_arena", "build_rules"]

MAX_ONE_HOT = 4
AnyGame = CoinGame | IteratedPublicGoodsGame | RepeatedMatrixGame


def build_arena(config: MarkovConfig) -> Arena:
    """The game of a config, ready to be played.

    Raises:
        InputError: arguments that the game refuses, or an environment that cannot be used.
    """
    if config.game == "env":
        from mediated_marl.parallel_arena import ParallelArena

        return ParallelArena.named(config.env, config.horizon)
    game: Game[Any] = build_tensor_game(config)
    return TensorArena(game)


def build_tensor_game(config: MarkovConfig) -> AnyGame:
    """The batched game of a config."""
    if config.game == "two-step-pd":
        return two_step_prisoners_dilemma()
    if config.game == "repeated-pd":
        return RepeatedMatrixGame(prisoners_dilemma().payoffs, config.horizon, memory=True, name="repeated-pd")
    if config.game == "coin":
        return CoinGame(config.n_agents, horizon=config.horizon, egocentric=config.egocentric)
    return IteratedPublicGoodsGame(
        config.n_agents,
        horizon=config.horizon,
        random_endowments=config.random_endowments,
        relative_balances=config.relative_balances,
    )


def build_rules(config: MarkovConfig, exploration: float = 0.0) -> Rules:
    """How the agents of a config may commit."""
    return Rules(config.window, config.lock_out, config.mediated, exploration)


def lock_shares(locks: Tensor, window: int) -> Tensor:
    """Locks as shares of the window, in [-1, 1]; barred is -1."""
    return (locks / window).clamp(-1, 1)


def coalition_code(committed: Tensor, dtype: torch.dtype) -> Tensor:
    """How networks read coalitions `[*, N]`: who is in, and one-hot where there are few, so that all can differ."""
    n_agents = committed.shape[-1]
    if n_agents > MAX_ONE_HOT:
        return committed.to(dtype)
    codes = torch.cat([coalition_members(n_agents).to(dtype), torch.eye(2**n_agents, dtype=dtype)], -1)
    return codes[coalition_number(committed)]


def code_size(n_agents: int) -> int:
    """The length of `coalition_code`."""
    return n_agents if n_agents > MAX_ONE_HOT else n_agents + 2**n_agents


class AgentNetwork(nn.Module):
    """One network per seed and agent, on its observation and lock.

    Args:
        arena: the game.
        config: sizes.
        outputs: how many.
        generator: draws the initial parameters.
    """

    def __init__(self, arena: Arena, config: MarkovConfig, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.window = config.window
        sizes = (arena.observation_size + 1, *[config.hidden] * config.layers, outputs)
        self.network = StackedMLP((config.seeds, arena.n_agents), sizes, generator)

    def forward(self, observations: Tensor, locks: Tensor) -> Tensor:
        """Outputs `[S, *, N, outputs]` from `[S, *, N, D]` and locks `[S, *, N]`."""
        inputs = torch.cat([observations, lock_shares(locks, self.window).unsqueeze(-1)], -1).movedim(-2, 1)
        output: Tensor = self.network(inputs.flatten(2, -2))
        return output.reshape(*inputs.shape[:-1], -1).movedim(1, -2)


class StateNetwork(nn.Module):
    """One network per seed, on the state, all locks and the coalition, with N outputs.

    Args:
        arena: the game.
        config: sizes.
        generator: draws the initial parameters.
    """

    def __init__(self, arena: Arena, config: MarkovConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.window = config.window
        sizes = (
            arena.state_size + arena.n_agents + code_size(arena.n_agents),
            *[config.hidden] * config.layers,
            arena.n_agents,
        )
        self.network = StackedMLP((config.seeds,), sizes, generator)

    def forward(self, features: Tensor, locks: Tensor, committed: Tensor) -> Tensor:
        """One number per agent, `[S, *, N]`, from `[S, *, F]`, locks and members `[S, *, N]`."""
        inputs = torch.cat([features, lock_shares(locks, self.window), coalition_code(committed, features.dtype)], -1)
        output: Tensor = self.network(inputs.flatten(1, -2))
        return output.reshape(*inputs.shape[:-1], -1)

    def next_door(self, features: Tensor, locks: Tensor, committed: Tensor) -> Tensor:
        """For each agent its number where it alone had decided otherwise, `[S, *, N]`."""
        n_agents = committed.shape[-1]
        others = committed.unsqueeze(-2) ^ torch.eye(n_agents, dtype=torch.bool)
        shape = (*others.shape[:-1], -1)
        everybody: Tensor = self(features.unsqueeze(-2).expand(shape), locks.unsqueeze(-2).expand(shape), others)
        return everybody.diagonal(dim1=-2, dim2=-1)


class MarkovPlayers(nn.Module):
    """The policies of all seeds: one actor per agent, and one mediator.

    Args:
        arena: the game.
        config: sizes.
        generator: draws the initial parameters.
    """

    def __init__(self, arena: Arena, config: MarkovConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.window = config.window
        self.agents = AgentNetwork(arena, config, arena.n_actions + 1, generator)
        inputs = arena.state_size + 2 * arena.n_agents + code_size(arena.n_agents)
        sizes = (inputs, *[config.hidden] * config.layers, arena.n_actions)
        self.mediator = StackedMLP((config.seeds,), sizes, generator)

    def choices(self, observations: Tensor, locks: Tensor) -> Tensor:
        """See `mediated_marl.rollout.Policies`."""
        output: Tensor = self.agents(observations, locks)
        return output

    def mediation(self, features: Tensor, locks: Tensor, committed: Tensor) -> Tensor:
        """See `mediated_marl.rollout.Policies`."""
        n_agents = committed.shape[-1]
        state = torch.cat([features, lock_shares(locks, self.window), coalition_code(committed, features.dtype)], -1)
        shape = (*committed.shape, -1)
        whose = torch.eye(n_agents, dtype=features.dtype).expand(*committed.shape, n_agents)
        inputs = torch.cat([state.unsqueeze(-2).expand(shape), whose], -1)
        output: Tensor = self.mediator(inputs.flatten(1, -2))
        return output.reshape(shape)


class MarkovCritics(nn.Module):
    """The values of all seeds: each agent's own, which knows no coalition, and the mediator's `V_i(s, C)`.

    Args:
        arena: the game.
        config: sizes.
        generator: draws the initial parameters.
    """

    def __init__(self, arena: Arena, config: MarkovConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.agents = AgentNetwork(arena, config, 1, generator)
        self.coalitions = StateNetwork(arena, config, generator)
