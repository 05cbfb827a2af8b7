"""Evaluation: deterministic episodes apart from training, and what they say about the users.

Every representative plays whole episodes with its most probable actions; every user is scored on all of them, which
gives the table of returns (k, n) that assignment, welfare and regret are read from. The assignment is chosen on
episodes of their own and judged on others, so that choosing does not flatter the result.
"""

from typing import Any

import numpy as np
import torch
from gt_core.welfare import egalitarian, gini, nash, quantiles
from numpy.typing import NDArray

from rmdp.assignment import Assignment, cluster_sizes, regrets, social_welfare
from rmdp.envs.batch import BatchEnv, Floats, Transition
from rmdp.policies import ObservationMoments, Policies
from rmdp.population import Population

__all__ = ["deterministic_returns", "most_probable_actions", "welfare_figures"]


@torch.no_grad()
def deterministic_returns(
    env: BatchEnv, policies: Policies, moments: ObservationMoments, population: Population, k: int
) -> Floats:
    """Undiscounted returns of all users with all representatives.

    Args:
        env: k E copies, E episodes for each representative.
        policies: k of them.
        moments: Normalise what they see.
        population: n users.
        k: How many policies.

    Returns:
        Mean return per episode, (k, n).
    """
    observation = env.reset()
    returns, running = np.zeros((env.copies, population.n)), np.ones(env.copies, dtype=bool)
    while running.any():
        action = most_probable_actions(policies, moments, observation, k)
        step = env.step(action)
        transition = Transition(observation, action, step.final_observation, step.terminated, step.truncated, step.info)
        returns += running[:, None] * population.rewards(transition)
        running &= ~(step.terminated | step.truncated)
        observation = step.observation
    return np.asarray(returns.reshape(k, -1, population.n).mean(axis=1))


@torch.no_grad()
def most_probable_actions(policies: Policies, moments: ObservationMoments, observation: Floats, k: int) -> NDArray[Any]:
    """What k policies would rather do, in the environment's units, (B, A) or (B,), for observations (B, D), B = k E."""
    view = moments.normalise(observation).view(k, -1, observation.shape[-1])
    played: NDArray[Any] = policies.to_environment(policies.mode(view)).flatten(0, 1).cpu().numpy()
    return played


def welfare_figures(values: Floats, assignment: Assignment) -> dict[str, Any]:
    """Flat figures of an assignment (n,) judged by returns (k, n): welfare, its spread, regret and cluster sizes."""
    own = values[assignment, np.arange(values.shape[1])]
    regret = regrets(values, assignment)
    levels = (0.1, 0.5, 0.9)
    figures: dict[str, Any] = {
        "welfare": social_welfare(values, assignment),
        "worst_user": float(egalitarian(own)),
        **{f"quantile_{level:g}": float(value) for level, value in zip(levels, quantiles(own, levels), strict=True)},
        "regret_mean": float(regret.mean()),
        "regret_max": float(regret.max()),
        "cluster_sizes": cluster_sizes(assignment, len(values)).tolist(),
        "assignment": assignment.tolist(),
    }
    if own.min() >= 0:
        figures |= {"gini": float(gini(own)) if own.any() else 0.0, "nash": float(nash(own))}
    return figures
