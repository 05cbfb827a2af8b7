r"""What the best mediator can reach in a normal-form game, by linear programming.

Let `mu_C` be the mediator's distribution over the joint actions of the members of coalition C, and let outsiders
play a given strategy (by default the game's only pure equilibrium).  Every agent's value `V_i(C)` is linear in
`mu_C`.  The naive mediator maximises `sum_{i in C} V_i(C)` for every C on its own.  The two constraints of the
paper (section 4) are one inequality seen from its two sides:

    IC, at C:  V_i(C) >= V_i(C \ {i})   for all i in C:       staying in must pay (moves the policy at C);
    E,  at C:  V_j(C) <= V_j(C + {j})   for all j not in C:   joining must pay  (moves the policy at C).

So IC alone is solved from small coalitions to large ones, E alone from large to small, each against values that are
already fixed.  Under both, all coalitions are solved in one programme, lexicographically from the grand coalition
down; that programme is always feasible, since a mediator that imitates the outsiders changes nothing.

Joint distributions are allowed here; the learnt mediator draws members' actions independently, so these values are
upper bounds for it (they coincide in the paper's games).  Multipliers are the shadow prices of the constraints: by
how much the objective would rise if the counterfactual value moved by one unit in the mediator's favour.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from gt_core.errors import InputError
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from mediated_marl.coalitions import TooLargeError

__all__ = [
    "InfeasibleMediatorError",
    "MediatedOptimum",
    "checked_table",
    "coalition_blocks",
    "commitment_game",
    "empty_optimum",
    "link_rows",
    "maximise",
    "mediated_optimum",
    "only_pure_equilibrium",
    "outside_strategies",
    "pure_equilibria",
    "record_prices",
    "solve",
    "split",
    "with_fair_shares",
]

Array = NDArray[np.float64]
TOLERANCE = 1e-9
MAX_VARIABLES = 2**16
MAX_ENTRIES = 2**25

Link = tuple[int, int]
"""One constraint: a coalition's number and the member that compares it with the same coalition without itself."""


class InfeasibleMediatorError(InputError):
    """No mediator policy meets the constraints at some coalition; the message names it and the remedy."""


@dataclass(frozen=True)
class MediatedOptimum:
    """The solution for all coalitions; coalition c contains agent i if bit i of c is set."""

    values: Array
    """`[2^N, N]`: `V_i(C)`."""
    policies: list[Array]
    """For each coalition the joint distribution over its members' actions, one axis per member in order."""
    ic_multipliers: Array
    """`[2^N, N]`: shadow price of agent i's IC constraint at C, >= 0."""
    e_multipliers: Array
    """`[2^N, N]`: shadow price of agent j's E constraint at C, >= 0."""


@dataclass(frozen=True)
class _Coalition:
    """One block of variables: `payoffs[a_C, i]`, outsiders averaged out."""

    number: int
    members: tuple[int, ...]
    outsiders: tuple[int, ...]
    shape: tuple[int, ...]
    payoffs: Array

    @property
    def to_members(self) -> Array:
        """What each joint action pays the members together."""
        return np.asarray(self.payoffs[:, self.members].sum(axis=1))

    @property
    def to_outsiders(self) -> Array:
        """What each joint action pays the outsiders together."""
        return np.asarray(self.payoffs[:, self.outsiders].sum(axis=1))


def pure_equilibria(payoffs: ArrayLike, tolerance: float = 1e-9) -> list[tuple[int, ...]]:
    """All pure Nash equilibria of a normal-form game, weak ones included, in lexicographic order."""
    table = checked_table(payoffs)
    n_agents = table.shape[-1]
    stable = np.ones(table.shape[:-1], dtype=bool)
    for agent in range(n_agents):
        own = table[..., agent]
        stable &= own >= own.max(axis=agent, keepdims=True) - tolerance
    return [tuple(int(action) for action in profile) for profile in np.argwhere(stable)]


def only_pure_equilibrium(payoffs: ArrayLike) -> list[Array]:
    """The unmediated equilibrium as one strategy per agent, if the game has exactly one pure equilibrium.

    Raises:
        InputError: none or several; the remedy is to say what outsiders play.
    """
    table = checked_table(payoffs)
    found = pure_equilibria(table)
    if len(found) != 1:
        raise InputError(
            f"the game has {len(found)} pure equilibria {found[:4]}; pass `outside`, one strategy per agent, to say "
            "what an agent plays when it does not commit"
        )
    return [np.eye(count)[action] for count, action in zip(table.shape[:-1], found[0], strict=True)]


def mediated_optimum(
    payoffs: ArrayLike, *, ic: bool = False, e: bool = False, outside: Iterable[ArrayLike] | None = None
) -> MediatedOptimum:
    """The best mediator of any normal-form game: naive, or under IC, E or both.

    Among equally good policies the one with the largest smallest member's share is returned, and among those the one
    that leaves outsiders least.

    Args:
        payoffs: `[A_1, …, A_N, N]`.
        ic: impose incentive compatibility.
        e: impose encouragement.
        outside: per agent a distribution over its actions, played when not committed.

    Raises:
        InputError: a table of a wrong shape, strategies that are no distributions, or no unique pure equilibrium.
        TooLargeError: more joint actions over all coalitions than can be solved.
        InfeasibleMediatorError: IC alone, or E alone, cannot be met at some coalition.
    """
    table = checked_table(payoffs)
    blocks = coalition_blocks(table, outside_strategies(table, outside))
    optimum = empty_optimum(blocks)
    if ic and e:
        everywhere = [(block.number, agent) for block in blocks for agent in block.members]
        solve(blocks, everywhere, optimum)
        return optimum
    for block in reversed(blocks) if e else blocks:
        inner = [(block.number, agent) for agent in block.members if ic]
        outer = [(block.number | 1 << agent, agent) for agent in block.outsiders if e]
        solve([block], inner + outer, optimum)
    return optimum


def commitment_game(values: Array) -> Array:
    """The game of committing (1) or not (0), `[2, …, 2, N]`, that values `[2^N, N]` of coalitions induce."""
    n_agents = values.shape[1]
    table = values.reshape((2,) * n_agents + (n_agents,))
    return np.transpose(table, (*reversed(range(n_agents)), n_agents))


def checked_table(payoffs: ArrayLike) -> Array:
    """The payoffs as a float64 array `[A_1, …, A_N, N]`.

    Raises:
        InputError: a wrong shape or a payoff that is not finite.
    """
    table = np.asarray(payoffs, dtype=np.float64)
    if table.ndim < 2 or table.shape[-1] != table.ndim - 1 or 0 in table.shape:
        raise InputError(f"payoffs has shape {table.shape}; a game of N agents needs [A_1, …, A_N, N]")
    if not np.isfinite(table).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(table))[0])
        raise InputError(f"payoffs{list(where)} is {table[where]}; give every outcome a finite payoff")
    return table


def outside_strategies(table: Array, outside: Iterable[ArrayLike] | None) -> list[Array]:
    """What outsiders play, checked.

    Raises:
        InputError: a number of strategies other than N, or one that is no distribution over its agent's actions.
    """
    if outside is None:
        return only_pure_equilibrium(table)
    strategies = [np.asarray(strategy, dtype=np.float64) for strategy in outside]
    if len(strategies) != table.shape[-1]:
        raise InputError(
            f"outside holds {len(strategies)} strategies; give one for each of the {table.shape[-1]} agents"
        )
    for agent, (strategy, count) in enumerate(zip(strategies, table.shape[:-1], strict=True)):
        if strategy.shape != (count,) or (strategy < 0).any() or abs(strategy.sum() - 1) > 1e-6:
            raise InputError(f"outside[{agent}] is {strategy.tolist()}; give {count} probabilities that sum to 1")
    return strategies


def coalition_blocks(table: Array, outside: list[Array]) -> list[_Coalition]:
    """The blocks of all coalitions, ordered by size, then number.

    Raises:
        TooLargeError: more than `2^16` variables over all coalitions.
    """
    counts = table.shape[:-1]
    n_variables = int(np.prod([count + 1 for count in counts], dtype=float))
    if n_variables > MAX_VARIABLES:
        raise TooLargeError(
            f"the game's coalitions have {n_variables} joint actions together, more than {MAX_VARIABLES}; use fewer "
            "agents or actions, or the closed forms of mediated_marl.closed_forms for public goods"
        )
    n_agents = len(counts)
    numbers = sorted(range(2**n_agents), key=lambda number: (number.bit_count(), number))
    return [_block(table, outside, number) for number in numbers]


def _block(table: Array, outside: list[Array], number: int) -> _Coalition:
    everyone = range(len(outside))
    members = tuple(agent for agent in everyone if number >> agent & 1)
    outsiders = tuple(agent for agent in everyone if not number >> agent & 1)
    averaged = table
    for agent in reversed(outsiders):
        averaged = np.tensordot(outside[agent], averaged, (0, agent))
    return _Coalition(number, members, outsiders, averaged.shape[:-1], averaged.reshape(-1, len(outside)))


def empty_optimum(blocks: list[_Coalition]) -> MediatedOptimum:
    """Room for the solution of all coalitions."""
    shape = (len(blocks), blocks[0].payoffs.shape[1])
    return MediatedOptimum(np.zeros(shape), [np.zeros(0)] * len(blocks), np.zeros(shape), np.zeros(shape))


def solve(blocks: list[_Coalition], links: list[Link], optimum: MediatedOptimum) -> None:
    """Solve some coalitions together, larger ones first, and write what was found into `optimum`.

    Args:
        blocks: the coalitions whose distributions are free.
        links: the constraints; a coalition in them that is not free keeps its value in `optimum`.
        optimum: known values in, solution out.

    Raises:
        InfeasibleMediatorError: no distribution meets the constraints.
        TooLargeError: the programme would not fit in memory.
    """
    matrix, exact = link_rows(blocks, links, optimum.values)
    bound = exact + TOLERANCE  # known values carry the solver's rounding
    for size in sorted({len(block.members) for block in blocks}, reverse=True):
        level = np.concatenate([block.to_members * (len(block.members) == size) for block in blocks])
        value, _, prices = maximise(level, matrix, bound, blocks)
        record_prices(prices[: len(links)], links, size, optimum)
        matrix, bound = np.vstack([matrix, -level]), np.append(bound, TOLERANCE - value)
    matrix, bound = with_fair_shares(matrix, bound, blocks)
    _, weights, _ = maximise(-np.concatenate([block.to_outsiders for block in blocks]), matrix, bound, blocks)
    for block, share in zip(blocks, split(weights, blocks), strict=True):
        optimum.values[block.number] = share @ block.payoffs
        optimum.policies[block.number] = share.reshape(block.shape)


def with_fair_shares(matrix: Array, bound: Array, blocks: list[_Coalition]) -> tuple[Array, Array]:
    """Add the rows that secure to every member the largest possible smallest share of its coalition.

    Optima are often not unique in who bears the cost; an arbitrary choice would make the neighbours' encouragement
    needlessly hard, or impossible.
    """
    members = [(index, agent) for index, block in enumerate(blocks) for agent in block.members]
    rows, marks = np.zeros((len(members), matrix.shape[1])), np.zeros((len(members), len(blocks)))
    for row, mark, (index, agent) in zip(rows, marks, members, strict=True):
        split(row, blocks)[index][:] = -blocks[index].payoffs[:, agent]
        mark[index] = 1.0
    extended = np.block([[matrix, np.zeros((len(matrix), len(blocks)))], [rows, marks]])
    objective = np.append(np.zeros(matrix.shape[1]), marks.max(axis=0, initial=0.0))
    _, found, _ = maximise(objective, extended, np.append(bound, np.zeros(len(members))), blocks)
    smallest = marks @ found[matrix.shape[1] :]
    return np.vstack([matrix, rows]), np.append(bound, TOLERANCE - smallest)


def link_rows(blocks: list[_Coalition], links: list[Link], values: Array) -> tuple[Array, Array]:
    """The constraints `V_i(C without i) - V_i(C) <= 0` as rows over the free coalitions' distributions.

    Raises:
        TooLargeError: more than `2^25` entries.
    """
    starts = np.cumsum([0] + [len(block.payoffs) for block in blocks])
    if len(links) * starts[-1] > MAX_ENTRIES:
        raise TooLargeError(
            f"{len(links)} constraints on {starts[-1]} joint actions do not fit one programme; impose IC or E alone, "
            "which are solved coalition by coalition, or use fewer agents"
        )
    free = {block.number: (block, start) for block, start in zip(blocks, starts, strict=False)}
    matrix, bound = np.zeros((len(links), int(starts[-1]))), np.zeros(len(links))
    for row, (number, agent) in enumerate(links):
        for side, sign in ((number, -1.0), (number ^ 1 << agent, 1.0)):
            if side in free:
                block, start = free[side]
                matrix[row, start : start + len(block.payoffs)] = sign * block.payoffs[:, agent]
            else:
                bound[row] -= sign * values[side, agent]
    return matrix, bound


def maximise(objective: Array, matrix: Array, bound: Array, blocks: list[_Coalition]) -> tuple[float, Array, Array]:
    """Maximise over one distribution per block, subject to `matrix @ weights <= bound`.

    Columns beyond the blocks' are further variables of any sign.

    Returns:
        The largest value, the weights, and the shadow price of each row.

    Raises:
        InfeasibleMediatorError: nothing meets the rows.
    """
    counts = [len(block.payoffs) for block in blocks]
    owner = np.repeat(np.arange(len(blocks)), counts)
    simplex = np.zeros((len(blocks), len(objective)))
    simplex[:, : len(owner)] = owner == np.arange(len(blocks))[:, None]
    ranges = [(0, None)] * len(owner) + [(None, None)] * (len(objective) - len(owner))
    found = linprog(-objective, matrix, bound, simplex, np.ones(len(blocks)), ranges, method="highs")
    if found.status != 0:
        raise InfeasibleMediatorError(
            f"no mediator policy satisfies the constraints at coalition {list(blocks[0].members)} ({found.message}); "
            "one constraint alone takes the neighbouring coalitions as given: impose both (ic=True, e=True), which "
            "solves all coalitions together and is always possible"
        )
    weights = np.asarray(found.x, dtype=np.float64)
    return float(objective @ weights), weights, -np.asarray(found.ineqlin.marginals)


def split(vector: Array, blocks: list[_Coalition]) -> list[Array]:
    """The parts of a vector that belong to each block."""
    return np.split(vector, np.cumsum([len(block.payoffs) for block in blocks])[:-1])


def record_prices(prices: Array, links: list[Link], size: int, optimum: MediatedOptimum) -> None:
    """File each shadow price under the side whose objective it moved: IC at C, E at C without the agent."""
    for price, (number, agent) in zip(prices, links, strict=True):
        if number.bit_count() == size:
            optimum.ic_multipliers[number, agent] = price
        elif number.bit_count() == size + 1:
            optimum.e_multipliers[number ^ 1 << agent, agent] = price
