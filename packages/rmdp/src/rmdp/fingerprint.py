"""What tells users apart after the fact: the rewards that they gave to some transitions, kept with the run.

A run names its users, it does not hold them: a factory that was edited since would be trained on, or judged by, another
population without a word. So a run keeps a few transitions of random actions and what its users gave for them, and
whoever opens it again asks its users once more. Users who differ nowhere on these transitions are taken for the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.errors import InputError
from gt_core.seeding import Streams
from numpy.typing import NDArray

from rmdp.config import TrainConfig
from rmdp.envs.batch import BatchEnv, BoxActions, Transition
from rmdp.population import Population
from rmdp.setup import build_env

__all__ = ["fingerprint", "keep_users", "require_same_users"]

_STEPS = 32


def fingerprint(config: TrainConfig, population: Population) -> dict[str, Any]:
    """Transitions of random actions, and what the users give for them, (steps, copies, n)."""
    streams = Streams(config.seed)
    env = build_env(config, 1, streams.numpy("fingerprint"))
    transition = _play(env, streams.numpy("fingerprint actions"))
    env.close()
    parts = {name: _tensor(part) for name, part in vars(transition).items() if name != "info"}
    info = {name: _tensor(part) for name, part in transition.info.items()}
    return {"transition": parts, "info": info, "rewards": _tensor(population.rewards(transition))}


def require_same_users(saved: Mapping[str, Any], population: Population, place: object) -> None:
    """Check that these users give what the users of a run gave.

    Args:
        saved: What `fingerprint` returned then.
        population: The users now.
        place: Of the run, for the message.

    Raises:
        InputError: There are more or fewer users, or one of them gives something else.
    """
    parts = {name: tensor.numpy() for name, tensor in saved["transition"].items()}
    info = {name: tensor.numpy() for name, tensor in saved["info"].items()}
    then, now = saved["rewards"].numpy(), population.rewards(Transition(**parts, info=info))
    if then.shape != now.shape:
        raise InputError(f"{place} was trained for {then.shape[-1]} users, these are {now.shape[-1]}: give its own")
    others = np.argwhere(~np.isclose(then, now, rtol=1e-5, atol=1e-8))
    if len(others):
        first = tuple(others[0])
        raise InputError(
            f"{place} was trained for other users: user {first[-1]} now gives {now[first]:.6g} for a transition worth "
            f"{then[first]:.6g} then; bring its users back, or train these in another directory"
        )


def keep_users(place: Path, users: dict[str, Any], population: Population) -> None:
    """Write the fingerprint of a new run's users; compare that of a run that goes on with the population.

    Raises:
        InputError: The run was started for other users.
    """
    if place.is_dir():
        require_same_users(load_checkpoint(place), population, place.parent)
    else:
        save_checkpoint(place, users)


def _play(env: BatchEnv, generator: np.random.Generator) -> Transition:
    here, steps = env.reset(), []
    for _ in range(_STEPS):
        action = _action(env, generator)
        step = env.step(action)
        steps.append((here, action, step.final_observation, step.terminated, step.truncated, step.info))
        here = step.observation
    *parts, infos = zip(*steps, strict=True)
    info = {name: np.array([seen[name] for seen in infos]) for name in infos[0]}
    observation, action, final, terminated, truncated = (np.array(part) for part in parts)
    return Transition(observation, action, final, terminated, truncated, info)


def _action(env: BatchEnv, generator: np.random.Generator) -> NDArray[Any]:
    actions = env.actions
    if not isinstance(actions, BoxActions):
        return generator.integers(actions.count, size=env.copies)
    low, high = np.maximum(actions.low, -1.0), np.minimum(actions.high, 1.0)  # -1 and 1 where there is no bound
    return generator.uniform(low, high, (env.copies, actions.size)).astype(np.float32)


def _tensor(array: Any) -> torch.Tensor:  # noqa: ANN401 (numbers, flags or indices)
    return torch.from_numpy(np.array(array))
