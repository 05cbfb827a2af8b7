"""From a run directory to the figures of its result."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import RunError
from gt_core.pretrained import located
from torch import Tensor

from mediated_marl.audit import audit_one_step, flat_audit
from mediated_marl.config import DEFAULT_PRESET, PRESETS, TrainConfig
from mediated_marl.markov_config import MARKOV_PRESETS, MarkovConfig
from mediated_marl.markov_report import audit_markov_run
from mediated_marl.one_step import OneStepGame, one_step_game
from mediated_marl.players import Players, build_game

__all__ = ["Policies", "audit_run", "load_config", "load_policies", "load_pretrained"]


class Policies(NamedTuple):
    """What a run learnt, and for which game; shapes as in `mediated_marl.one_step`.

    Attributes:
        config: the run's config.
        game: its game.
        agents: `[S, N, A + 1]`.
        outside: `[S, N, A]`, what an agent plays when it does not commit.
        mediator: `[S, R, N, A]`, or `[S, R, 1, A]` where agents are alike.
    """

    config: TrainConfig
    game: OneStepGame
    agents: Tensor
    outside: Tensor
    mediator: Tensor


def load_config(directory: Path) -> TrainConfig | MarkovConfig:
    """The config of a run, of a one-step game or of one of several steps.

    Raises:
        RunError: if the directory holds no run.
    """
    file = located("mediated_marl", directory) / "config.json"
    if not file.is_file():
        raise RunError(f"{directory} holds no config.json; give the directory of a run of mediated-marl-train")
    if "window" in json.loads(file.read_text()):
        return read_config(MARKOV_PRESETS["iterated-pgg"], file)
    return read_config(PRESETS[DEFAULT_PRESET], file)


@torch.no_grad()
def load_policies(directory: Path) -> Policies:
    """The trained model of a run, in double precision.

    Raises:
        RunError: if the directory holds no run.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    config = load_config(directory)
    if isinstance(config, MarkovConfig):
        raise RunError(f"{directory} is a run of {config.game}, a game of several steps; it has no one-step policies")
    game = one_step_game(build_game(config, torch.float64))
    players = Players(game, config, torch.Generator())
    players.load_state_dict(load_checkpoint(located("mediated_marl", directory) / "model"))
    players.double()
    return Policies(config, game, players.log_policies().exp(), players.outside(), players.log_mediator().exp())


def load_pretrained(name: str) -> Policies:
    """Policies of a one-step game that ship with the package, such as "pgg-3"; their card says what they are worth.

    Raises:
        InputError: if there are none of that name; the message lists all.
    """
    return load_policies(Path("pretrained") / name)


def audit_run(directory: Path) -> dict[str, Any]:
    """Audit the trained model of a run: what was played, and the figures of `mediated_marl.audit` or `.markov_audit`.

    Raises:
        RunError: if the directory holds no run.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    if isinstance(load_config(directory), MarkovConfig):
        return audit_markov_run(directory)
    config, game, agents, outside, mediator = load_policies(directory)
    audit = audit_one_step(game, agents, outside, mediator)
    about = {"game": config.game, "n_agents": game.n_agents, "mediator": config.mediator, "seeds": config.seeds}
    return {**about, **flat_audit(game, audit, mediator)}
