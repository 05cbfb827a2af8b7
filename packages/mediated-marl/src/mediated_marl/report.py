"""From a run directory to the figures of its result."""

from pathlib import Path
from typing import Any

import torch
from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import RunError

from mediated_marl.audit import audit_one_step, flat_audit
from mediated_marl.config import DEFAULT_PRESET, PRESETS, TrainConfig
from mediated_marl.one_step import one_step_game
from mediated_marl.players import Players, build_game

__all__ = ["audit_run", "load_config"]


def load_config(directory: Path) -> TrainConfig:
    """The config of a run.

    Raises:
        RunError: if the directory holds no run.
    """
    file = directory / "config.json"
    if not file.is_file():
        raise RunError(f"{directory} holds no config.json; give the directory of a run of mediated-marl-train")
    return read_config(PRESETS[DEFAULT_PRESET], file)


@torch.no_grad()
def audit_run(directory: Path) -> dict[str, Any]:
    """Audit the trained model of a run: what was played, and the figures of `mediated_marl.audit`.

    Raises:
        RunError: if the directory holds no run.
        CheckpointError: if the run is not finished or its model is damaged.
    """
    config = load_config(directory)
    game = one_step_game(build_game(config, torch.float64))
    players = Players(game, config, torch.Generator())
    players.load_state_dict(load_checkpoint(directory / "model"))
    players.double()
    mediator = players.log_mediator().exp()
    audit = audit_one_step(game, players.log_policies().exp(), players.outside(), mediator)
    about = {"game": config.game, "n_agents": game.n_agents, "mediator": config.mediator, "seeds": config.seeds}
    return {**about, **flat_audit(game, audit, mediator)}
