"""A run from its config to its result."""

from typing import Any

from gt_core.environment import prepare
from gt_core.run import Run

from mediated_marl.config import TrainConfig
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.report import audit_run
from mediated_marl.train import build_trainer, train

__all__ = ["complete"]


def complete(config: TrainConfig | MarkovConfig, *, resume: bool = True) -> dict[str, Any]:
    """Train and audit in the config's directory; return the result.

    Args:
        config: what to run.
        resume: continue the run in the directory, or start it if there is none; a finished one is not run again.

    Raises:
        InputError: if the config's game cannot be used, or the directory holds another run.
        Interrupted: after a signal, once the state is saved.
    """
    several_steps = isinstance(config, MarkovConfig)
    prepare(config.device, 1 if several_steps else config.threads)  # games of several steps use threads of their own
    build_trainer(config)  # refuses what is no game before anything is written
    reward = "train/return" if several_steps else "train/reward"
    shown = {"reward": reward, "commitment": "train/commitment"}
    run = Run(config, resume=resume, packages=("mediated-marl",), shown=shown)
    if run.result is not None:
        return run.result
    train(run, config)
    return run.finish(audit_run(run.directory))
