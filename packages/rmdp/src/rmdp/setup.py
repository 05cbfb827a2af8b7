"""From a config to the objects it names: users, environments, networks, ceilings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gt_core.errors import InputError
from gt_core.seeding import Streams, derive_seed

from rmdp.ceilings import resource_gathering_ceiling, velocity_ceiling
from rmdp.config import TrainConfig
from rmdp.envs.batch import BatchEnv
from rmdp.envs.gym import GymBatch
from rmdp.envs.make import RESOURCE_GATHERING, make_batch
from rmdp.envs.robots import ROBOTS
from rmdp.policies import Critics, ObservationMoments, Policies
from rmdp.population import FunctionPopulation, LinearScalarisation, Population, ResourceGathering, TargetVelocity

__all__ = ["build_ceiling", "build_env", "build_networks", "build_population"]

_PAPER_ANT: Mapping[str, Any] = {"healthy_height": (0.4, 1.0)}


def build_env(config: TrainConfig, copies_each: int, generator: np.random.Generator) -> BatchEnv:
    """The environment with `copies_each` copies for each representative; Ant with the paper's healthy heights.

    Raises:
        InputError: The environment is unknown, unsupported, or has no time limit.
    """
    options = _PAPER_ANT if config.env.startswith("Ant-") else None
    copies = config.k * copies_each
    env = make_batch(config.env, copies, generator, threads=config.threads, exact=config.exact, options=options)
    if env.horizon is None:
        env.close()
        raise InputError(f"{config.env} has no time limit: register it with max_episode_steps, so that episodes end")
    return env


def build_population(config: TrainConfig) -> Population:
    """The users; their randomness depends on the seed alone.

    Raises:
        InputError: No users are built in for this environment, or the factory is unusable.
    """
    generator = Streams(config.seed).numpy("users")
    if config.users != "auto":
        return FunctionPopulation.from_factory(config.users, config.n, generator)
    if config.env in ROBOTS:
        return TargetVelocity.paper(config.env, config.n, config.seed)
    if config.env == RESOURCE_GATHERING:
        return ResourceGathering.shuffled(generator)
    return _scalarisation(config, generator)


def build_ceiling(config: TrainConfig, population: Population) -> float | None:
    """The best welfare k policies can reach, where it is known."""
    if isinstance(population, TargetVelocity):
        return velocity_ceiling(population.targets, population.width, config.k)
    if isinstance(population, ResourceGathering):
        return resource_gathering_ceiling(config.k, Streams(0).numpy("ceiling")) / 100.0  # the same for every seed
    return None


def _scalarisation(config: TrainConfig, generator: np.random.Generator) -> LinearScalarisation:
    env = GymBatch(config.env, 1, np.random.default_rng(0))
    objectives = env.objectives
    env.close()
    if objectives is None:
        raise InputError(f"{config.env} has no built-in users: give --users package.module:factory")
    return LinearScalarisation.simplex(config.n, objectives, generator)


def build_networks(
    config: TrainConfig, env: BatchEnv, n: int, streams: Streams
) -> tuple[Policies, Critics, ObservationMoments]:
    """The untrained policies, critics and moments, initialised from the stream `initialisation` on the CPU."""
    generator = torch.Generator().manual_seed(derive_seed(streams.seed, "initialisation"))
    size, hidden = env.observation_size, config.hidden
    policies = Policies(
        config.k, size, env.actions, hidden=hidden, trunk=config.trunk, sigma=config.sigma, generator=generator
    )
    critics = Critics(config.k, size, n, hidden=hidden, sharing=config.critic, generator=generator)
    device = torch.device(config.device)
    return policies.to(device), critics.to(device), ObservationMoments(size).to(device)
