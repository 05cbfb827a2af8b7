"""What is done with a run after training: its pictures, and representatives for users it never saw."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from gt_core.seeding import Streams

from rmdp.ceilings import own_returns
from rmdp.plots import plot_learning_curve, plot_paths, plot_returns, plot_targets, walks_of
from rmdp.population import ResourceGathering, TargetVelocity
from rmdp.setup import build_ceiling, build_population
from rmdp.train import load_model, returns

__all__ = ["assign_new_users", "plot_run"]


def plot_run(directory: Path, seed: int = 1) -> list[Path]:
    """Draw what there is to draw of a run into its `plots/`; the files written.

    Args:
        directory: A run, finished or stopped.
        seed: Of the episodes that users are judged on.
    """
    model = load_model(directory)
    config, population, assignment = model.config, model.population, model.assignment
    place = directory / "plots"
    place.mkdir(parents=True, exist_ok=True)
    title = f"{config.env}, {config.algorithm}, {population.n} users, {config.k} policies"
    values = returns(model, Streams(seed).numpy("evaluation"), config.evaluation_episodes)
    own = values[assignment, np.arange(population.n)]
    written = [place / "returns.png"]
    plot_returns(written[0], own, assignment, config.k, title)
    if (directory / "metrics.jsonl").is_file():
        written.append(place / "learning_curve.png")
        ceiling = build_ceiling(config, population)
        plot_learning_curve(written[-1], directory / "metrics.jsonl", ceiling, title)
    if isinstance(population, TargetVelocity):
        written.append(place / "targets.png")
        plot_targets(written[-1], population.targets, assignment, config.k, title)
    if isinstance(population, ResourceGathering):
        written.append(place / "paths.png")
        walks = walks_of(model.policies, model.moments, config.k)
        plot_paths(written[-1], walks, population.cells, assignment, title)
    return written


def assign_new_users(
    directory: Path, users: str = "auto", n: int = 0, seed: int = 1, episodes: int = 10
) -> dict[str, Any]:
    """Give users who took no part in training the representative that is best for them.

    Representatives are chosen on some episodes and judged on others. What a policy of their own could bring is known
    where there is a ceiling for single users; the loss against it is then an upper estimate of what the budget costs.

    Args:
        directory: A run.
        users: Who they are, as in training; auto draws fresh ones of the run's kind.
        n: How many; 0 takes as many as in training.
        seed: Of the users and the episodes.
        episodes: Per representative.

    Returns:
        A flat object; `own_policy` and `loss` are null where no ceiling is known.
    """
    model = load_model(directory)
    config = dataclasses.replace(model.config, algorithm="em", k=1, users=users, n=n or model.config.n, seed=seed)
    population = build_population(config)
    model = model._replace(population=population)
    chosen = returns(model, Streams(seed).numpy("assignment"), episodes).argmax(axis=0)
    values = returns(model, Streams(seed).numpy("evaluation"), episodes)
    own = values[chosen, np.arange(population.n)]
    alone = own_returns(population)
    return {
        "env": config.env,
        "k": model.config.k,
        "n": population.n,
        "users": users,
        "welfare": float(own.mean()),
        "mean_loss": None if alone is None else float((alone - own).mean()),
        "assignment": chosen.tolist(),
        "return": own.tolist(),
        "own_policy": None if alone is None else alone.tolist(),
        "loss": None if alone is None else (alone - own).tolist(),
    }
