"""The algorithms, one file each; they differ in who is served by whom, policies learn alike (`representatives`)."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rmdp.algorithms.bounds import one_each, one_for_all
from rmdp.algorithms.cluster import Cluster
from rmdp.algorithms.em import EM
from rmdp.algorithms.end_to_end import EndToEnd
from rmdp.algorithms.oracle import oracle
from rmdp.algorithms.random import random_clusters
from rmdp.assignment import Assignment
from rmdp.config import TrainConfig
from rmdp.population import Population
from rmdp.representatives import Representatives

__all__ = ["ALGORITHMS", "Algorithm"]


class Algorithm(Protocol):
    """A run in memory."""

    @property
    def step(self) -> int:
        """Iterations done."""
        ...

    @property
    def population(self) -> Population:
        """The users."""
        ...

    @property
    def representatives(self) -> Representatives:
        """The k policies and what they learn with."""
        ...

    @property
    def assignment(self) -> Assignment:
        """Who is served by whom, (n,)."""
        ...

    def iterate(self) -> dict[str, float]:
        """Do one iteration; the figures to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        ...


ALGORITHMS: Mapping[str, Callable[[TrainConfig, Population], Algorithm]] = {
    "em": EM,
    "end-to-end": EndToEnd,
    "cluster": Cluster,
    "random": random_clusters,
    "oracle": oracle,
    "one-for-all": one_for_all,
    "one-each": one_each,
}
"""What `--algorithm` names."""
