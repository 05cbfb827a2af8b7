"""From a name to the fastest batch of that environment."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gt_core.errors import InputError

from rmdp.envs.batch import BatchEnv
from rmdp.envs.robots import ROBOTS

__all__ = ["RESOURCE_GATHERING", "make_batch"]

RESOURCE_GATHERING = "resource-gathering"
"""The name of the walks on a grid, without gold, gem and enemies."""


def make_batch(
    name: str,
    copies: int,
    generator: np.random.Generator,
    *,
    threads: int = 0,
    exact: bool = False,
    options: Mapping[str, Any] | None = None,
) -> BatchEnv:
    """Make `copies` copies of the environment called `name` by the fastest way there is for it.

    Args:
        name: A robot of `rmdp.envs.robots.ROBOTS`, `resource-gathering`, or any name Gymnasium knows.
        copies: How many copies run together.
        generator: Source of all randomness of the environments.
        threads: Native threads of the robots; 0 takes every core.
        exact: Whether robots move bit for bit as in Gymnasium.
        options: Keyword arguments of the environment: `healthy_height` for robots, Gymnasium's own for others.

    Raises:
        InputError: The environment is unknown or unsupported, a number is out of range, or MuJoCo is missing.
        TypeError: An option that the environment does not have.
    """
    options = options or {}
    if name in ROBOTS:
        _require_mujoco(name)
        from rmdp.envs.mujoco import MujocoBatch

        return MujocoBatch(name, copies, generator, threads=threads, exact=exact, **options)
    if name == RESOURCE_GATHERING:
        from rmdp.envs.resource_gathering import ResourceGatheringBatch

        return ResourceGatheringBatch(copies, **options)
    from rmdp.envs.gym import GymBatch

    return GymBatch(name, copies, generator, options)


def _require_mujoco(name: str) -> None:
    try:
        importlib.import_module("mujoco.rollout")
    except ImportError as error:
        raise InputError(f"{name} needs MuJoCo 3.3 or newer ({error}): pip install 'mujoco>=3.3,<5'") from error
