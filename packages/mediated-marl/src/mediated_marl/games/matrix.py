"""Any normal-form game, from its payoff tensor in one call.

=============  ====================================================================================
actions        agent i: `0 … A_i - 1`; the agents may differ in how many they have
payoffs        `payoffs[a_1, …, a_N]` is the vector of the N agents' payoffs
observations   agents and mediator see one constant, 1: there is nothing to see
arguments      `payoffs` array or tensor `[A_1, …, A_N, N]`; `name`
episode        one step, then terminated
history        0.1.0 first version
=============  ====================================================================================
"""

from typing import NamedTuple

import torch
from gt_core.errors import InputError
from numpy.typing import ArrayLike
from torch import Tensor

from mediated_marl.games.protocol import Step, flags

__all__ = ["MatrixGame", "MatrixState", "checked_payoffs", "look_up"]


class MatrixState(NamedTuple):
    """The only state of a one-step game: a constant `[*batch, 1]`."""

    constant: Tensor


class MatrixGame:
    """A one-step game given by `payoffs[a_1, …, a_N, i]`.

    Args:
        payoffs: `[A_1, …, A_N, N]`; integers become float32, a floating type is kept.
        name: a word for file names and logs.

    Raises:
        InputError: a shape that is no normal-form game, or a payoff that is not finite.
    """

    horizon = 1
    observation_size = 1
    state_size = 1

    def __init__(self, payoffs: ArrayLike | Tensor, name: str = "matrix") -> None:
        self.payoffs = checked_payoffs(payoffs)
        self.name = name
        self.n_agents = self.payoffs.shape[-1]
        self.action_counts = tuple(self.payoffs.shape[:-1])
        self.n_actions = max(self.action_counts)

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> MatrixState:
        """The constant state; the generator only names the device."""
        return MatrixState(torch.ones(*batch_shape, 1, dtype=self.payoffs.dtype, device=generator.device))

    def observe(self, state: MatrixState) -> Tensor:
        """The constant, `[*batch, N, 1]`."""
        return state.constant.unsqueeze(-2).expand(*state.constant.shape[:-1], self.n_agents, 1)

    def features(self, state: MatrixState) -> Tensor:
        """The constant, `[*batch, 1]`."""
        return state.constant

    def step(self, state: MatrixState, actions: Tensor) -> Step[MatrixState]:
        """Look the payoffs up; the game is over."""
        rewards = look_up(self.payoffs, actions)
        shape, device = tuple(rewards.shape[:-1]), rewards.device
        return Step(rewards, state, flags(shape, value=True, device=device), flags(shape, value=False, device=device))


def checked_payoffs(payoffs: ArrayLike | Tensor) -> Tensor:
    """A payoff tensor `[A_1, …, A_N, N]` that was checked.

    Raises:
        InputError: wrong number of dimensions, no agent, an agent without actions, or a payoff that is not finite.
    """
    table = torch.as_tensor(payoffs)
    table = table if table.is_floating_point() else table.to(torch.float32)
    n_agents = table.shape[-1] if table.ndim else 0
    if table.ndim < 2 or table.ndim != n_agents + 1 or 0 in table.shape:
        raise InputError(
            f"payoffs has shape {tuple(table.shape)}; a normal-form game of N agents needs one dimension of actions "
            f"per agent and a last one of size N: [A_1, …, A_N, N], for instance (2, 2, 2) for two agents"
        )
    if not bool(torch.isfinite(table).all()):
        where = (~torch.isfinite(table)).nonzero()[0].tolist()
        raise InputError(f"payoffs{where} is {table[tuple(where)].item()}; give every outcome a finite payoff")
    return table


def look_up(payoffs: Tensor, actions: Tensor) -> Tensor:
    """`payoffs[a_1, …, a_N]` for a batch of joint actions.

    Args:
        payoffs: `[A_1, …, A_N, N]`.
        actions: `[*batch, N]` int64.

    Returns:
        `[*batch, N]`.
    """
    return payoffs.to(actions.device)[tuple(actions.unbind(-1))]
