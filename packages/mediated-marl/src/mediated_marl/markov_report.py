"""From the directory of a run in a game of several steps to its policies, and to figures."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import InputError
from gt_core.pretrained import located
from gt_core.seeding import Streams
from torch import Tensor

from mediated_marl.coin_rounds import MAX_OUTCOMES, coin_outcomes
from mediated_marl.games import CoinGame, IteratedPublicGoodsGame, RepeatedMatrixGame
from mediated_marl.markov_audit import MarkovAudit, audit_estimated, audit_exact, flat_markov_audit
from mediated_marl.markov_config import MARKOV_PRESETS, MarkovConfig
from mediated_marl.markov_players import MarkovPlayers, build_arena, build_rules
from mediated_marl.rollout import Arena, Rollout, Rules, TensorArena, roll_out

__all__ = ["MarkovPolicies", "audit_markov_run", "by_step", "evaluate_markov_run", "load_markov", "play_run"]


class MarkovPolicies(NamedTuple):
    """What a run learnt, and for which game."""

    config: MarkovConfig
    arena: Arena
    rules: Rules
    players: MarkovPlayers


def load_markov(directory: Path) -> MarkovPolicies:
    """The trained model of a run.

    Raises:
        InputError: an environment that cannot be imported any more.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    directory = located("mediated_marl", directory)
    config = read_config(MARKOV_PRESETS["iterated-pgg"], directory / "config.json")
    arena = build_arena(config)
    players = MarkovPlayers(arena, config, torch.Generator())
    players.load_state_dict(load_checkpoint(directory / "model"))
    return MarkovPolicies(config, arena, build_rules(config), players)


def audit_markov_run(directory: Path) -> dict[str, Any]:
    """Audit the trained model of a run: exactly where the game can be enumerated, else from played episodes.

    Raises:
        InputError: an environment that cannot be imported or copied.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    config, arena, rules, players = load_markov(directory)
    about = {"game": config.env or config.game, "n_agents": arena.n_agents, "mediator": config.mediator}
    audit = audited(config, arena, rules, players)
    figures = {**about, "window": config.window, "seeds": config.seeds, **flat_markov_audit(audit)}
    if isinstance(arena, TensorArena) and isinstance(arena.game, IteratedPublicGoodsGame):
        endowment = 0.5 if config.random_endowments else 1.0
        figures["balance_per_seed"] = [endowment + value for value in figures["return_per_seed"]]
    return figures


def audited(config: MarkovConfig, arena: Arena, rules: Rules, players: MarkovPlayers) -> MarkovAudit:
    """The exact audit where the game can be enumerated, and the estimate elsewhere; environments play less."""
    game = arena.game if isinstance(arena, TensorArena) else None
    if isinstance(game, RepeatedMatrixGame) or (
        isinstance(game, CoinGame) and coin_outcomes(game, rules) <= MAX_OUTCOMES
    ):
        return audit_exact(game, players, rules, config.seeds, config.discount)
    luck = Streams(config.seed).torch("audit")
    episodes, continuations = (32, 8) if isinstance(arena, TensorArena) else (8, 4)
    return audit_estimated(arena, players, rules, config.seeds, config.discount, luck, episodes, continuations)


def play_run(policies: MarkovPolicies, episodes: int, seed: int) -> Rollout:
    """Episodes of every seed of a run.

    Raises:
        InputError: fewer than two episodes.
    """
    if episodes < 2:
        raise InputError(f"games is {episodes}; an error needs at least 2")
    config, arena, rules, players = policies
    return roll_out(arena, players, rules, (config.seeds, episodes), Streams(seed).torch("evaluation"))


def evaluate_markov_run(directory: Path, episodes: int, seed: int = 0) -> dict[str, Any]:
    """Play `episodes` episodes per seed of a run.

    Raises:
        InputError: fewer than two episodes, or an environment that cannot be imported any more.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    played = play_run(load_markov(directory), episodes, seed)
    returns = played.rewards.sum(1)
    means = returns.mean(-1)
    return {
        "games": episodes,
        "return": means.mean().item(),
        "return_per_seed": means.mean(1).tolist(),
        "return_error_per_seed": (means.std(1) / episodes**0.5).tolist(),
        "welfare": returns.sum(-1).mean().item(),
        "return_per_agent": returns.mean((0, 1)).tolist(),
        **{name: values.mean(0).tolist() for name, values in by_step(played).items()},
    }


def by_step(played: Rollout) -> dict[str, Tensor]:
    """Shares at each step, `[S, T]`: of live agents that committed, and of members given the last action.

    The last action is contributing in public goods games and cooperating in dilemmas; 0 where nobody is a member.
    """
    alive = played.alive[:, :-1].sum((2, 3)).clamp(min=1)
    members = played.committed.sum((2, 3))
    last = played.mediated == played.legal.shape[-1] - 1
    contributed = (played.committed & last).sum((2, 3)) / members.clamp(min=1)
    return {"commitment_by_step": members / alive, "mediated_last_action_by_step": contributed}
