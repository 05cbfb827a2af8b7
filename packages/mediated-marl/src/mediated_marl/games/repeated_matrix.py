"""Any finitely repeated normal-form game, with the same or with different payoffs in every round.

=============  ====================================================================================
actions        agent i: `0 … A_i - 1`, the same in all rounds
payoffs        `payoffs[t][a_1, …, a_N]` in round t
observations   the round, one-hot `[T]`; with `memory` also every agent's last action, one-hot
               `[N * n_actions]`, zeros in the first round; the mediator sees the same
arguments      `payoffs`: one table `[A_1, …, A_N, N]` with `rounds`, or a list of T tables;
               `memory`, default False; `name`
episode        T steps, then terminated: the horizon belongs to the rules
history        0.1.0 first version
=============  ====================================================================================
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from gt_core.errors import InputError
from numpy.typing import ArrayLike
from torch import Tensor

from mediated_marl.games.matrix import checked_payoffs, look_up
from mediated_marl.games.protocol import Step, flags

__all__ = ["RepeatedMatrixGame", "RoundState", "stacked_rounds"]


class RoundState(NamedTuple):
    """The round and, as the flat one-hot code `last [*batch, N * n_actions]`, what was played before it."""

    round: int
    last: Tensor


class RepeatedMatrixGame:
    """A stage game played T times.

    Args:
        payoffs: a list of T tables `[A_1, …, A_N, N]`, or one table together with `rounds`.
        rounds: how often one table is repeated; leave it out when `payoffs` is a list.
        memory: whether the last joint action is part of the observation.
        name: a word for file names and logs.

    Raises:
        InputError: tables of different shapes, no round at all, or `rounds` given beside a list.
    """

    def __init__(
        self,
        payoffs: ArrayLike | Sequence[ArrayLike] | Tensor,
        rounds: int | None = None,
        *,
        memory: bool = False,
        name: str = "repeated-matrix",
    ) -> None:
        self.payoffs = stacked_rounds(payoffs, rounds)
        self.memory = memory
        self.name = name
        self.horizon = self.payoffs.shape[0]
        self.n_agents = self.payoffs.shape[-1]
        self.action_counts = tuple(self.payoffs.shape[1:-1])
        self.n_actions = max(self.action_counts)
        self.state_size = self.horizon + (self.n_agents * self.n_actions if memory else 0)
        self.observation_size = self.state_size

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> RoundState:
        """Round 0, nothing played yet; the generator only names the device."""
        shape = (*batch_shape, self.n_agents * self.n_actions)
        return RoundState(0, torch.zeros(shape, dtype=self.payoffs.dtype, device=generator.device))

    def observe(self, state: RoundState) -> Tensor:
        """The same features for each agent, `[*batch, N, D]`."""
        seen = self.features(state)
        return seen.unsqueeze(-2).expand(*seen.shape[:-1], self.n_agents, self.observation_size)

    def features(self, state: RoundState) -> Tensor:
        """The round and, with memory, the last joint action: `[*batch, F]`."""
        current = torch.zeros(*state.last.shape[:-1], self.horizon, dtype=state.last.dtype, device=state.last.device)
        if state.round < self.horizon:
            current[..., state.round] = 1.0
        return torch.cat([current, state.last], dim=-1) if self.memory else current

    def step(self, state: RoundState, actions: Tensor) -> Step[RoundState]:
        """Pay this round's payoffs; terminated after the last round."""
        rewards = look_up(self.payoffs[state.round], actions)
        played = torch.nn.functional.one_hot(actions, self.n_actions).flatten(-2).to(rewards.dtype)
        shape, device = tuple(rewards.shape[:-1]), rewards.device
        over = flags(shape, value=state.round + 1 >= self.horizon, device=device)
        return Step(rewards, RoundState(state.round + 1, played), over, torch.zeros_like(over))


def stacked_rounds(payoffs: ArrayLike | Sequence[ArrayLike] | Tensor, rounds: int | None) -> Tensor:
    """All rounds' tables in one tensor `[T, A_1, …, A_N, N]`.

    Raises:
        InputError: see `RepeatedMatrixGame`.
    """
    if rounds is not None:
        if rounds < 1:
            raise InputError(f"rounds is {rounds}; a repeated game needs at least one")
        table = checked_payoffs(cast("ArrayLike | Tensor", payoffs))
        return table.expand(rounds, *table.shape)
    tables = [checked_payoffs(table) for table in cast("Iterable[ArrayLike]", payoffs)]
    shapes = sorted({tuple(table.shape) for table in tables})
    if len(shapes) != 1:
        raise InputError(
            f"the rounds' payoffs have shapes {shapes}; give at least one table, all of one shape "
            "(or one table and rounds=T)"
        )
    return torch.stack(tables)
