r"""The public goods game with growing balances: what is shared today can be shared again tomorrow.

A contributor puts the share phi of its current balance in, the sum is multiplied by n and split evenly:

    b_i  <-  b_i - phi * b_i * c_i + (n / N) * sum_j phi * b_j * c_j,        reward = change of b_i.

=============  ====================================================================================
actions        0 = keep, 1 = contribute the share phi of the own balance
payoffs        the change of the balance; undiscounted, an episode pays the final balance minus the endowment
observations   agent: [own balance / scale, time]; mediator: [all N balances / scale, time]; as in the paper scale
               is the final balance if all always contribute, time the elapsed share of the episode
arguments      `n_agents` >= 2; `horizon` (10); `share` phi in (0, 1] (0.5); `multiplier` n > 1 (2);
               `random_endowments`: uniform in (0, 1] instead of 1 each (False); `relative_balances`: scale is the
               balance at this step if all always contribute, and time 1 / steps left (False); `dtype`
episode        `horizon` steps, then terminated: the last step is known to all
equilibrium    without mediator nobody contributes (backward induction); all contributing grows each balance
               by 1 + phi * (n - 1) per step: 57.665 for the default three agents
history        0.1.0 first version
=============  ====================================================================================

What the paper shows of early balances is all near 0, and its last step, the one whose constraint binds, looks almost
like the one before; `relative_balances` shows the same so that networks can tell them apart.
"""

from typing import NamedTuple

import torch
from gt_core.errors import InputError
from torch import Tensor

from mediated_marl.games.protocol import Step, flags, progress
from mediated_marl.games.public_goods import checked_multiplier

__all__ = ["Balances", "IteratedPublicGoodsGame", "balance_change"]


class Balances(NamedTuple):
    """Steps played so far, and the balances `[*batch, N]`."""

    time: int
    balances: Tensor


class IteratedPublicGoodsGame:
    """The game of the table above.

    Raises:
        InputError: an argument outside its range.
    """

    name = "iterated-pgg"
    n_actions = 2
    observation_size = 2

    def __init__(
        self,
        n_agents: int = 3,
        *,
        horizon: int = 10,
        share: float = 0.5,
        multiplier: float = 2.0,
        random_endowments: bool = False,
        relative_balances: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if n_agents < 2:
            raise InputError(f"n_agents is {n_agents}; a public good needs at least 2 agents")
        if horizon < 1:
            raise InputError(f"horizon is {horizon}; an episode needs at least one step")
        if not 0 < share <= 1:
            raise InputError(f"share is {share}; a contribution is a share of the balance, give a number in (0, 1]")
        self.n_agents = n_agents
        self.horizon = horizon
        self.share = share
        self.multiplier = checked_multiplier(multiplier)
        self.random_endowments = random_endowments
        self.relative_balances = relative_balances
        self.dtype = dtype
        self.action_counts = (2,) * n_agents
        self.state_size = n_agents + 1
        self.growth = 1 + share * (self.multiplier - 1)

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> Balances:
        """Endowments of 1, or uniform in (0, 1]."""
        shape = (*batch_shape, self.n_agents)
        if not self.random_endowments:
            return Balances(0, torch.ones(shape, dtype=self.dtype, device=generator.device))
        uniform = torch.rand(shape, generator=generator, dtype=self.dtype, device=generator.device)
        return Balances(0, 1 - uniform)

    def observe(self, state: Balances) -> Tensor:
        """Own balance and time, `[*batch, N, 2]`."""
        scale, time = self._scale_and_time(state.time)
        own = state.balances / scale
        return torch.stack([own, torch.full_like(own, time)], dim=-1)

    def features(self, state: Balances) -> Tensor:
        """All balances and time, `[*batch, N + 1]`."""
        scale, time = self._scale_and_time(state.time)
        scaled = state.balances / scale
        return torch.cat([scaled, torch.full_like(scaled[..., :1], time)], dim=-1)

    def _scale_and_time(self, step: int) -> tuple[float, float]:
        """How balances and the step are shown; after the last step as at it."""
        if self.relative_balances:
            return self.growth**step, 1 / max(self.horizon - step, 1)
        return self.growth**self.horizon, progress(step, self.horizon)

    def step(self, state: Balances, actions: Tensor) -> Step[Balances]:
        """Collect, multiply and split; terminated at the horizon."""
        change = balance_change(state.balances, actions.to(state.balances.dtype), self.share, self.multiplier)
        over = flags(tuple(change.shape[:-1]), value=state.time + 1 >= self.horizon, device=change.device)
        return Step(change, Balances(state.time + 1, state.balances + change), over, torch.zeros_like(over))


def balance_change(balances: Tensor, contributes: Tensor, share: float, multiplier: float) -> Tensor:
    """One step's change of the balances, `[*batch, N]`; `contributes` may be expectations in [0, 1]."""
    contributions = share * balances * contributes
    income = multiplier / balances.shape[-1] * contributions.sum(-1, keepdim=True)
    return income - contributions
