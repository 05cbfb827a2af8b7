r"""What a game of several steps can be worth: the largest welfare, and an equilibrium without a mediator.

Both by backward induction over the rounds of `mediated_marl.backward_induction`, in pure joint actions.  The largest
welfare is what one hand earns that moves everybody: at each state the joint action a of the largest
`sum_i (r_i(s, a) + gamma E V_i(s'))`.  Without a mediator a is one from which no agent gains by moving otherwise, given
what follows; of several, that of the largest sum.

Where every agent earns at least as much under the former as under the latter, from every first state, a mediator to
whom all commit for the whole episode reaches the largest welfare in equilibrium, and needs no constraint: who stays out
leaves the others without it.

Shapes: M states of a round, J joint actions, N agents.
"""

from collections.abc import Callable

import torch
from gt_core.errors import InputError
from torch import Tensor

from mediated_marl.backward_induction import Round, expected

__all__ = ["equilibrium_values", "optimal_values"]

TOLERANCE = 1e-9


def optimal_values(rounds: list[Round], discount: float = 1.0) -> Tensor:
    """What each agent earns from each first state where welfare is the largest, `[M, N]`."""
    return backwards(rounds, discount, lambda earned, _: earned.sum(-1).argmax(1))


def equilibrium_values(rounds: list[Round], discount: float = 1.0) -> Tensor:
    """What each agent earns from each first state in the equilibrium above, `[M, N]`.

    Raises:
        InputError: a state without an equilibrium in pure actions.
    """
    return backwards(rounds, discount, stable_choice)


def backwards(rounds: list[Round], discount: float, choose: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """Values of the first round, where `choose` says which joint action `[M]` is played, from `[M, J, N]`."""
    values = torch.zeros(1, rounds[0].locks.shape[-1], dtype=torch.float64)
    for current in reversed(rounds):
        earned = current.rewards[:, 0] + discount * expected(current, values)[current.following[:, 0]]
        played = choose(earned, current.legal.sum(1).tolist())
        values = earned[torch.arange(len(earned)), played]
    return values


def stable_choice(earned: Tensor, counts: list[int]) -> Tensor:
    """The joint action `[M]` from which nobody gains by moving otherwise, of `[M, J, N]` with J the product of counts.

    Raises:
        InputError: a state that has none.
    """
    table = earned.unflatten(1, counts)
    stable = torch.ones(table.shape[:-1], dtype=torch.bool)
    for agent in range(len(counts)):
        mine = table[..., agent]
        stable &= mine >= mine.amax(1 + agent, keepdim=True) - TOLERANCE
    stable = stable.flatten(1)
    if not stable.any(1).all():
        raise InputError("a state has no equilibrium in pure actions; only mixed ones exist there")
    return torch.where(stable, earned.sum(-1), -torch.inf).argmax(1)
