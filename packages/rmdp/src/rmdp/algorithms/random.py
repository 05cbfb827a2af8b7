"""The random baseline: users in random clusters of equal size, up to one, for good.

What a budget of k policies is worth without any thought about who shares a policy with whom (arXiv 2401.06514,
section 5). The budget need not divide the number of users.
"""

from gt_core.seeding import Streams

from rmdp.algorithms.fixed import Fixed
from rmdp.assignment import balanced_assignment
from rmdp.config import TrainConfig
from rmdp.population import Population

__all__ = ["random_clusters"]


def random_clusters(config: TrainConfig, population: Population) -> Fixed:
    """A run with shuffled users in clusters of equal size."""
    generator = Streams(config.seed).numpy("random clusters")
    return Fixed(config, population, balanced_assignment(config.k, population.n, generator))
