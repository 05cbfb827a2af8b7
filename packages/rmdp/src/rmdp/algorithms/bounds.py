"""The two bounds between which every budget lies: one policy for all users, and one for each.

With k = 1 there is nobody to assign and the policy maximises the mean return, which is reinforcement learning without
personalisation. With k = n each user has a policy of their own, which is personalisation without a budget; what a user
gets there is what any assignment is judged against.
"""

import numpy as np

from rmdp.algorithms.fixed import Fixed
from rmdp.config import TrainConfig
from rmdp.population import Population

__all__ = ["one_each", "one_for_all"]


def one_for_all(config: TrainConfig, population: Population) -> Fixed:
    """A run in which representative 0 serves everyone; the config has k = 1."""
    return Fixed(config, population, np.zeros(population.n, dtype=np.int64))


def one_each(config: TrainConfig, population: Population) -> Fixed:
    """A run in which representative i serves user i; the config has k = n."""
    return Fixed(config, population, np.arange(population.n))
