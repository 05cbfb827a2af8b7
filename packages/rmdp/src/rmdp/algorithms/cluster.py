"""The clustering baseline: users who were rewarded alike by one policy share a policy.

After Hassouni et al. (2018), as compared with in arXiv 2401.06514, section 5:

1. one policy learns for all users together;
2. it acts for another segment, and the rewards of user i at its steps are the features of user i;
3. k-means of the features gives the clusters, for good;
4. k policies learn from scratch, each for its cluster.

All algorithms get the same number of environment steps: step 1 takes the share `pretrain` of the iterations, with as
many steps per iteration as k policies would make. At k = 5 a tenth is what the paper's pretraining comes to, which it
added on top. Features are rewards of tolerant users while there are any: of one policy's many steps, most are worth
nothing to most users as they are.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from gt_core.seeding import Streams, derive_seed
from numpy.typing import NDArray

from rmdp.algorithms.fixed import Fixed
from rmdp.assignment import Assignment, balanced_assignment, greedy_assignment
from rmdp.config import TrainConfig
from rmdp.envs.batch import Floats
from rmdp.population import Population
from rmdp.representatives import Representatives, tolerance

__all__ = ["Cluster", "k_means"]

_STARTS = 10
_ROUNDS = 100


class Cluster:
    """A run that clusters users by their rewards under one policy.

    Args:
        config: The run's config.
        population: The users.
    """

    def __init__(self, config: TrainConfig, population: Population) -> None:
        self.config, self.population = config, population
        self.pretraining = min(math.ceil(config.pretrain * config.iterations), config.iterations - 1)
        together = config.copies_each * config.k
        alone = dataclasses.replace(
            config,
            algorithm="one-for-all",
            k=1,
            seed=derive_seed(config.seed, "pretraining"),
            copies=together,
            samples=together * config.segment,
        )
        self.alone = Fixed(alone, population, np.zeros(population.n, dtype=np.int64))
        anybody = balanced_assignment(config.k, population.n)
        remaining = dataclasses.replace(config, iterations=config.iterations - self.pretraining)
        self.clusters = Fixed(remaining, population, anybody)
        self.streams = Streams(config.seed)

    @property
    def step(self) -> int:
        """Iterations done, of both parts."""
        return self.alone.step + self.clusters.step

    @property
    def representatives(self) -> Representatives:
        """The k policies; the one policy until the users are clustered."""
        return self._learning.representatives

    @property
    def assignment(self) -> Assignment:
        """Who is served by whom, (n,)."""
        return self._learning.assignment

    @property
    def _learning(self) -> Fixed:
        """The part that has something to show."""
        return self.clusters if self.clusters.step else self.alone

    def iterate(self) -> dict[str, float]:
        """An iteration of the one policy, or of the k policies; the figures to log."""
        if self.alone.step < self.pretraining:
            figures = self.alone.iterate()
        else:
            if self.clusters.step == 0:
                self.clusters.assignment = self._cluster()
            figures = self.clusters.iterate()
        return figures | {"train/env_steps": self.step * self.config.steps_per_iteration}

    def _cluster(self) -> Assignment:
        segment = self.alone.representatives.collect()
        users = self.population.eased(tolerance(self.alone.config, self.alone.step))
        features = users.rewards(segment.transition).reshape(-1, self.population.n).T
        return k_means(features, self.config.k, self.streams.numpy("clusters"))

    def state_dict(self) -> dict[str, Any]:
        """Both parts and the random generators."""
        return {
            "alone": self.alone.state_dict(),
            "clusters": self.clusters.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        for name in ("alone", "clusters", "streams"):
            getattr(self, name).load_state_dict(state[name])


def k_means(features: Floats, k: int, generator: np.random.Generator) -> Assignment:
    """Cluster points by Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii 2007); the best of ten.

    Args:
        features: One row per point, (n, F), n >= k.
        k: How many clusters; none is left empty.
        generator: Draws the starts.

    Returns:
        The cluster of each point, (n,).
    """
    # distances among n points decide everything: n coordinates hold them, however many features there are
    left, scales, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    points = left * scales
    attempts = [_lloyd(points, _plus_plus(points, k, generator)) for _ in range(_STARTS)]
    return min(attempts, key=lambda attempt: attempt[1])[0]


def _plus_plus(points: Floats, k: int, generator: np.random.Generator) -> Floats:
    """Draw k of the points as centres, each drawn by its squared distance from those before."""
    centres = points[[generator.integers(len(points))]]
    for _ in range(k - 1):
        distance = _squared_distances(centres, points).min(axis=0)
        total = distance.sum()
        chances = distance / total if total > 0 else None
        centres = np.concatenate([centres, points[[generator.choice(len(points), p=chances)]]])
    return centres


def _lloyd(points: Floats, centres: Floats) -> tuple[Assignment, float]:
    """Assign to the nearest centre and move centres to their mean, until nothing moves; the summed squared distance."""
    chosen: NDArray[np.int64] = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ROUNDS):
        distance = _squared_distances(centres, points)
        before, chosen = chosen, greedy_assignment(-distance, chosen)
        centres = np.array([points[chosen == j].mean(axis=0) for j in range(len(centres))])
        if (before == chosen).all():
            break
    return chosen, float(_squared_distances(centres, points)[chosen, np.arange(len(points))].sum())


def _squared_distances(centres: Floats, points: Floats) -> Floats:
    return np.asarray(np.square(centres[:, None] - points).sum(axis=-1))
