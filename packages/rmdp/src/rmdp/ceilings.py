"""The best welfare a budget of k policies can reach, to stand beside every result.

*Target velocities.* With perfect control of the speed, a policy that moves at v gives user i the return
100 * clip(1 - |v - t_i| / w, 0, 1) (1000 steps at 0.1). Choosing k speeds for n users on a line is a facility location
problem. The best clusters are contiguous in the sorted targets, and the best speed of a cluster is one of its targets:
the summed return is piecewise linear in v and bends downwards only at targets. Dynamic programming over the last
cluster is therefore exact.

*Resource gathering.* A policy is a closed walk from home; a walk of t steps gives the owner of a visited cell
100 * (1 - t / 100), and an owner uses the best of the k walks. The walks considered are all simple cycles through
home and all paths out and back, each also with one more cell visited out and back on the way, and the bump into the
wall at home. Which k of them are best is searched by exchanges from many starts: exact for k = 1 and k = 25, elsewhere
the best value known.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rmdp.assignment import require_budget
from rmdp.envs.batch import Floats
from rmdp.envs.resource_gathering import HOME, SIDE
from rmdp.envs.robots import HORIZON
from rmdp.population import Population, ResourceGathering, TargetVelocity

__all__ = ["closed_walks", "own_returns", "resource_gathering_ceiling", "velocity_ceiling"]

_STARTS = 30
_CELLS = SIDE * SIDE
_HOME = HOME[0] * SIDE + HOME[1]


def velocity_ceiling(targets: Floats, width: float, k: int) -> float:
    """Mean return of n users under the best k constant speeds.

    Args:
        targets: Liked velocities in m/s, (n,).
        width: Distance in m/s at which the reward reaches zero.
        k: How many policies.

    Returns:
        Mean return in 0..100.

    Raises:
        InputError: k is less than 1 or more than n.
    """
    require_budget(k, len(targets))
    ordered = np.sort(targets)
    kernel = np.clip(1.0 - np.abs(ordered[:, None] - ordered) / width, 0.0, 1.0)
    sums = np.concatenate([np.zeros((len(targets), 1)), np.cumsum(kernel, axis=1)], axis=1)
    # cluster[a, b]: best sum of users a..b-1 with one speed; -inf would be the value of a reversed cluster
    cluster = (sums[:, None, :] - sums[:, :, None]).max(axis=0)
    best = cluster[0]
    for _ in range(k - 1):
        best = np.triu(best[:, None] + cluster).max(axis=0)
    return float(100.0 * best[-1] / len(targets))


def resource_gathering_ceiling(k: int, generator: np.random.Generator) -> float:
    """Mean value of the 25 cells under the best k closed walks found.

    Args:
        k: How many policies.
        generator: Draws where the search starts; 0.1 s per start for small k, 30 starts.

    Returns:
        Mean value in 0..100.

    Raises:
        InputError: k is less than 1 or more than 25.
    """
    require_budget(k, _CELLS)
    worth = _worth_of_walks()
    if k == 1:
        return float(worth.sum(axis=1).max() / _CELLS)
    if k == _CELLS:
        return float(worth.max(axis=0).sum() / _CELLS)
    starts = generator.integers(len(worth), size=(_STARTS, k))
    return max(_exchange(worth, chosen) for chosen in starts) / _CELLS


def own_returns(population: Population) -> Floats | None:
    """The best return of each user with a policy of their own, (n,), where it is known."""
    if isinstance(population, TargetVelocity):
        return np.full(population.n, HORIZON * population.scale)
    if isinstance(population, ResourceGathering):
        return np.asarray(_worth_of_walks().max(axis=0)[population.cells] / 100.0, dtype=np.float64)
    return None


@cache
def closed_walks() -> dict[int, int]:
    """Steps of the shortest considered walk for each set of visited cells, a bit mask over row-major cells.

    Walks are left out that another one replaces at no loss: one cell more in no more steps, or more than the 26 steps
    that visit every cell.
    """
    walks = _with_spur(_simple_walks())
    walks[1 << _HOME] = 1
    longest = walks[(1 << _CELLS) - 1]
    return {cells: steps for cells, steps in walks.items() if steps <= longest and not _is_replaced(walks, cells)}


def _simple_walks() -> dict[int, int]:
    """Simple cycles through home, and paths out and back, by depth-first search."""
    walks: dict[int, int] = {}

    def extend(cell: int, cells: int, steps: int) -> None:
        for neighbour in _NEIGHBOURS[cell]:
            if neighbour == _HOME and steps > 1:
                _note(walks, cells, steps + 1)
            elif not cells >> neighbour & 1:
                extend(neighbour, cells | 1 << neighbour, steps + 1)
        if steps:
            _note(walks, cells, 2 * steps)

    extend(_HOME, 1 << _HOME, 0)
    return walks


def _with_spur(walks: dict[int, int]) -> dict[int, int]:
    """The walks, and each of them with one more cell visited out and back, in two steps, from a cell but home."""
    longer = dict(walks)
    for cells, steps in walks.items():
        for cell in range(_CELLS):
            if cell != _HOME and cells >> cell & 1:
                for neighbour in _NEIGHBOURS[cell]:
                    if not cells >> neighbour & 1:
                        _note(longer, cells | 1 << neighbour, steps + 2)
    return longer


def _note(walks: dict[int, int], cells: int, steps: int) -> None:
    walks[cells] = min(steps, walks.get(cells, steps))


def _is_replaced(walks: dict[int, int], cells: int) -> bool:
    steps = walks[cells]
    return any(walks.get(cells | 1 << cell, steps + 1) <= steps for cell in range(_CELLS) if not cells >> cell & 1)


def _neighbours(cell: int) -> list[int]:
    row, column = divmod(cell, SIDE)
    around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [r * SIDE + c for r, c in around if 0 <= r < SIDE and 0 <= c < SIDE]


_NEIGHBOURS = [_neighbours(cell) for cell in range(_CELLS)]


@cache
def _worth_of_walks() -> Floats:
    """What each walk is worth to the owner of each cell, (walks, cells), in 0..100."""
    walks = closed_walks()
    visited = np.array(list(walks))[:, None] >> np.arange(_CELLS) & 1
    return np.asarray(visited * (100.0 - np.array(list(walks.values())))[:, None], dtype=np.float32)


def _exchange(worth: Floats, chosen: NDArray[np.int64]) -> float:
    """Exchange one walk at a time for the best one beside the others, until none is better; the summed value."""
    value, improved = float(worth[chosen].max(axis=0).sum()), True
    while improved:
        improved = False
        for place in range(len(chosen)):
            others = worth[np.delete(chosen, place)].max(axis=0)
            values = np.maximum(worth, others).sum(axis=1)
            if values.max() > value:
                chosen[place], value, improved = values.argmax(), float(values.max()), True
    return value
