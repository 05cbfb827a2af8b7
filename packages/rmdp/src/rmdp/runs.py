"""A run from its config to its result."""

from typing import Any

from gt_core.environment import prepare
from gt_core.run import Run

from rmdp.config import TrainConfig
from rmdp.fingerprint import fingerprint
from rmdp.setup import build_ceiling, build_population
from rmdp.train import evaluate_model, train

__all__ = ["complete"]

_SHOWN = {"welfare": "train/welfare", "flips": "train/flips"}


def complete(config: TrainConfig, *, resume: bool = True) -> dict[str, Any]:
    """Train and evaluate in the config's directory; return the result.

    Args:
        config: What to run.
        resume: Continue the run in the directory, or start it if there is none; a finished one is not run again.

    Raises:
        InputError: The config names what is not there, or the directory holds another run.
        Interrupted: After a signal, once the state is saved.
    """
    prepare(config.device, 1)  # config.threads are those of robots and critics; torch's own would change last bits
    population = build_population(config)
    users, ceiling = fingerprint(config, population), build_ceiling(config, population)
    shown = _SHOWN if ceiling is None else _SHOWN | {"ceiling": "train/ceiling"}
    # what cannot work is refused by now, and leaves no directory
    run = Run(config, resume=resume, packages=("rmdp", "gymnasium", "mujoco"), shown=shown)
    if run.result is not None:
        return run.result
    return run.finish(evaluate_model(train(run, config, population, users, ceiling)))
