"""A run from its config to its result and pictures."""

import dataclasses
from typing import Any

from gt_core.environment import prepare
from gt_core.parallel import join
from gt_core.run import Interrupted, Run

from regretformer.config import TrainConfig
from regretformer.report import default_evaluation, draw_run, evaluate_run
from regretformer.train import Trainer, train

__all__ = ["complete"]

_SHOWN = {"revenue": "train/revenue", "regret/revenue": "train/regret_over_revenue", "multiplier": "dual/multiplier"}


def complete(config: TrainConfig, *, resume: bool = True) -> dict[str, Any] | None:
    """Train, draw and evaluate in the config's directory; return the result.

    Under torchrun all its processes train together, and the first one alone draws, evaluates and returns the result.

    Args:
        config: what to run.
        resume: continue the run in the directory, or start it if there is none; a finished one is not run again.

    Raises:
        InputError: if the config names what is not there, or the directory holds another run.
        Interrupted: after a signal, once the state is saved.
    """
    prepare(config.device, config.threads)
    team = join(config.device)
    config = dataclasses.replace(config, device=team.device(config.device))
    trainer = Trainer(config, team)  # refuses what cannot work before there is a directory
    run = Run(trainer.config, resume=resume, packages=("regretformer",), shown=_SHOWN, team=team)
    result = run.result
    try:
        if result is None:
            train(run, trainer)
    except Interrupted:  # in every process, after the same step
        team.leave()
        raise
    team.leave()
    if result is not None or not team.leads:
        return result
    draw_run(run.directory)
    kept, evaluation = run.directory / "evaluation", default_evaluation(config)
    return run.finish(evaluate_run(run.directory, evaluation, device=config.device, threads=config.threads, kept=kept))
