"""Chance decides whether there is a conflict at all.

=============  ====================================================================================
actions        0 = defect (D), 1 = cooperate (C)
payoffs        with probability `conflict` the prisoner's dilemma (DD (0, 0); DC (7, -5); CD (-5, 7);
               CC (2, 2)), otherwise a game without conflict (DD (0, 0); DC (1, 1); CD (1, 1); CC (2, 2))
observations   agents: the drawn game, one-hot `[2]` (dilemma first), or zeros unless `observed`;
               mediator: always the drawn game
arguments      `conflict` in [0, 1], default 0.5; `observed`, default True
episode        one step, then terminated
history        0.1.0 first version
=============  ====================================================================================
"""

from typing import NamedTuple

import torch
from gt_core.errors import InputError
from torch import Tensor

from mediated_marl.games.matrix import look_up
from mediated_marl.games.prisoners_dilemma import PAYOFFS
from mediated_marl.games.protocol import Step, flags

__all__ = ["DrawnGame", "RandomisedPrisonersDilemma"]

NO_CONFLICT = (((0.0, 0.0), (1.0, 1.0)), ((1.0, 1.0), (2.0, 2.0)))


class DrawnGame(NamedTuple):
    """Which game was drawn: `drawn [*batch]`, 0 = dilemma, 1 = no conflict."""

    drawn: Tensor


class RandomisedPrisonersDilemma:
    """The game of the table above.

    Args:
        conflict: probability of the dilemma.
        observed: whether the agents see which game was drawn before they act.

    Raises:
        InputError: `conflict` outside [0, 1].
    """

    name = "randomised-pd"
    n_agents = 2
    n_actions = 2
    action_counts = (2, 2)
    horizon = 1
    observation_size = 2
    state_size = 2

    def __init__(self, conflict: float = 0.5, *, observed: bool = True) -> None:
        if not 0 <= conflict <= 1:
            raise InputError(f"conflict is {conflict}; it is a probability, give a number in [0, 1]")
        self.conflict = conflict
        self.observed = observed
        self.payoffs = torch.tensor([PAYOFFS, NO_CONFLICT])

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> DrawnGame:
        """Draw one of the two games for each element of the batch."""
        uniform = torch.rand(batch_shape, generator=generator, device=generator.device)
        return DrawnGame((uniform >= self.conflict).long())

    def observe(self, state: DrawnGame) -> Tensor:
        """The drawn game for each agent, or zeros: `[*batch, 2, 2]`."""
        seen = self.features(state) * float(self.observed)
        return seen.unsqueeze(-2).expand(*seen.shape[:-1], 2, 2)

    def features(self, state: DrawnGame) -> Tensor:
        """The drawn game, one-hot `[*batch, 2]`."""
        return torch.nn.functional.one_hot(state.drawn, 2).to(self.payoffs.dtype)

    def step(self, state: DrawnGame, actions: Tensor) -> Step[DrawnGame]:
        """Pay by the drawn game; the game is over."""
        both = torch.stack([look_up(table, actions) for table in self.payoffs], dim=-2)
        index = state.drawn[..., None, None].expand(*state.drawn.shape, 1, 2)
        rewards = both.gather(-2, index).squeeze(-2)
        shape, device = tuple(rewards.shape[:-1]), rewards.device
        return Step(rewards, state, flags(shape, value=True, device=device), flags(shape, value=False, device=device))
