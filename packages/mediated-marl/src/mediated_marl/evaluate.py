"""What learnt policies earn in played games: an estimate to hold against the exact audit, seed by seed."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from gt_core.errors import InputError
from gt_core.seeding import Streams
from torch import Tensor

from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_report import evaluate_markov_run
from mediated_marl.one_step import OneStepGame
from mediated_marl.report import load_config, load_policies

__all__ = ["Games", "draw", "evaluate_run", "play"]


class Games(NamedTuple):
    """Played games.

    Attributes:
        committed: `[S, B, N]` bool.
        number: `[S, B]`, which coalition that is.
        mediated: `[S, B, N]`, the mediator's actions, meant for members only.
        rewards: `[S, B, N]`.
    """

    committed: Tensor
    number: Tensor
    mediated: Tensor
    rewards: Tensor


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Actions by inverting the distribution function: `[*, A]` and uniform numbers `[*]` to int64 `[*]`."""
    steps = probabilities[..., :-1].cumsum(-1)
    return (uniform.unsqueeze(-1) >= steps).sum(-1)


def play(game: OneStepGame, committed: Tensor, own: Tensor, mediator: Tensor, uniform: Tensor) -> Games:
    """Let the mediator act for the members and the game pay.

    Args:
        game: the game.
        committed: `[S, B, N]` bool; games in which nobody is are games like any other.
        own: `[S, B, N]`, the actions of those who did not.
        mediator: `[S, R, N, A]` or `[S, R, 1, A]` probabilities.
        uniform: `[S, B, N]`, the mediator's luck.
    """
    number = game.number(committed)
    mediated = draw(at(mediator, game.row(number)), uniform)
    return Games(committed, number, mediated, game.rewards(torch.where(committed, mediated, own)))


def at(table: Tensor, number: Tensor) -> Tensor:
    """Entries `[S, B, *]` of a table `[S, C, *]` per seed, at `number` `[S, B]`."""
    return table[torch.arange(len(number), device=number.device).unsqueeze(-1), number]


def evaluate_run(directory: Path, n_games: int, seed: int = 0) -> dict[str, Any]:
    """Play `n_games` games, or episodes, per seed of a run.

    Raises:
        InputError: fewer than two games.
        RunError: if the directory holds no run.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    if isinstance(load_config(directory), MarkovConfig):
        return evaluate_markov_run(directory, n_games, seed)
    if n_games < 2:
        raise InputError(f"games is {n_games}; an error needs at least 2")
    config, game, agents, _, mediator = load_policies(directory)
    generator = Streams(seed).torch("evaluation")
    shape = (config.seeds, n_games, game.n_agents)
    legal = agents if config.mediator != "none" else agents[..., :-1]
    chosen = draw(legal.unsqueeze(1), torch.rand(shape, generator=generator, dtype=torch.float64))
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    games = play(game, chosen == game.n_actions, chosen.clamp(max=game.n_actions - 1), mediator, uniform)
    rewards = games.rewards.mean(-1)
    exact = (agents * game.deviations(agents, mediator)).sum(-1).mean(-1)
    return {
        "games": n_games,
        "reward": rewards.mean().item(),
        "reward_per_seed": rewards.mean(1).tolist(),
        "reward_error_per_seed": (rewards.std(1) / n_games**0.5).tolist(),
        "reward_exact_per_seed": exact.tolist(),
        "welfare": games.rewards.sum(-1).mean().item(),
        "payoff_per_agent": games.rewards.mean((0, 1)).tolist(),
        "commitment": games.committed.double().mean().item(),
        "coalition_size": games.committed.sum(-1).double().mean().item(),
    }
