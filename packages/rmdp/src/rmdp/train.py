"""From a config to a trained model on disk, and from there to its figures.

The model is what evaluation and deployment need: the policies, the moments that normalise their observations, and the
assignment of the users. Algorithms that learn the assignment settle it on deterministic episodes, since exploration
noise would judge policies by what they will not do; figures come from other episodes.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import RunError
from gt_core.pretrained import located
from gt_core.run import Run, learn
from gt_core.seeding import Streams

from rmdp.algorithms import ALGORITHMS, Algorithm
from rmdp.assignment import Assignment, greedy_assignment
from rmdp.config import TrainConfig
from rmdp.envs.batch import Floats
from rmdp.evaluate import deterministic_returns, welfare_figures
from rmdp.fingerprint import keep_users, require_same_users
from rmdp.policies import ObservationMoments, Policies
from rmdp.population import Population
from rmdp.setup import build_ceiling, build_env, build_networks, build_population

__all__ = ["Model", "evaluate_model", "load_model", "model_of", "returns", "snapshot", "train"]


class Model(NamedTuple):
    """Trained policies and who is served by which."""

    config: TrainConfig
    population: Population
    policies: Policies
    moments: ObservationMoments
    assignment: Assignment


def train(
    run: Run, config: TrainConfig, population: Population, users: dict[str, Any], ceiling: float | None = None
) -> Model:
    """Train to the end, from the run's newest checkpoint if it has one; leave the model in the run's directory.

    Args:
        run: Where to.
        config: Its config.
        population: Its users.
        users: Their fingerprint.
        ceiling: Logged beside the welfare, if it is known.

    Raises:
        InputError: The run was started for other users.
        Interrupted: After a signal, once the state is saved.
    """
    keep_users(run.directory / "users", users, population)
    algorithm = ALGORITHMS[config.algorithm](config, population)
    learn(run, algorithm, config.iterations, {} if ceiling is None else {"train/ceiling": ceiling})
    algorithm.representatives.env.close()
    model = model_of(algorithm, config)
    run.keep_model(
        {
            "policies": model.policies.state_dict(),
            "moments": model.moments.state_dict(),
            "assignment": torch.from_numpy(model.assignment),
        }
    )
    return model


def model_of(algorithm: Algorithm, config: TrainConfig) -> Model:
    """What an algorithm has learnt so far, its users moved to their best policies where it moves users."""
    model = snapshot(algorithm, config)
    if not config.moves_users:
        return model
    values = returns(model, Streams(config.seed).numpy("final assignment"), config.evaluation_episodes)
    return model._replace(assignment=greedy_assignment(values, model.assignment))


def snapshot(algorithm: Algorithm, config: TrainConfig) -> Model:
    """What an algorithm holds at present: `cluster` has a single policy until its users are clustered."""
    members = algorithm.representatives
    config = dataclasses.replace(config, k=members.config.k, algorithm=members.config.algorithm)
    return Model(config, algorithm.population, members.policies, members.moments, algorithm.assignment)


def load_model(directory: Path) -> Model:
    """The model of a run: the trained one, or what its newest checkpoint holds if it was stopped.

    Raises:
        RunError: There is no run, or it was stopped before its first checkpoint.
        InputError: The users of the run are others today.
        CheckpointError: The files were altered.
    """
    directory = located("rmdp", directory)
    if not (directory / "config.json").is_file():
        raise RunError(f"{directory} holds no model; is it a run?")
    config = read_config(TrainConfig(), directory / "config.json")
    population = build_population(config)
    if (directory / "users").is_dir():
        require_same_users(load_checkpoint(directory / "users"), population, directory)
    if not (directory / "model").is_dir():
        return _unfinished(directory, config, population)
    env = build_env(config, 1, np.random.default_rng(0))
    policies, _, moments = build_networks(config, env, population.n, Streams(config.seed))
    env.close()
    state = load_checkpoint(directory / "model")
    policies.load_state_dict(state["policies"])
    moments.load_state_dict(state["moments"])
    return Model(config, population, policies, moments, state["assignment"].numpy())


def _unfinished(directory: Path, config: TrainConfig, population: Population) -> Model:
    checkpoints = sorted((directory / "checkpoints").glob("step-*"))
    if not checkpoints:
        raise RunError(f"{directory} holds no model and no checkpoint yet; continue it with --resume")
    algorithm = ALGORITHMS[config.algorithm](config, population)
    algorithm.load_state_dict(load_checkpoint(checkpoints[-1])["state"])
    algorithm.representatives.env.close()
    return model_of(algorithm, config)


def evaluate_model(model: Model, seed: int = 0, episodes: int = 0) -> dict[str, Any]:
    """Flat figures of a model on fresh deterministic episodes.

    Args:
        model: What to judge.
        seed: Of the episodes.
        episodes: Per representative; 0 takes the config's number.
    """
    config = model.config
    values = returns(model, Streams(seed).numpy("evaluation"), episodes or config.evaluation_episodes)
    figures = welfare_figures(values, model.assignment)
    ceiling = build_ceiling(config, model.population)
    if ceiling is not None:
        figures |= {"ceiling": ceiling, "share_of_ceiling": figures["welfare"] / ceiling}
    return {"env": config.env, "k": config.k, "n": model.population.n, "algorithm": config.algorithm} | figures


def returns(model: Model, generator: np.random.Generator, episodes: int) -> Floats:
    """Deterministic returns of all users with all representatives, (k, n)."""
    config = model.config
    env = build_env(config, episodes, generator)
    values = deterministic_returns(env, model.policies, model.moments, model.population, config.k)
    env.close()
    return values
