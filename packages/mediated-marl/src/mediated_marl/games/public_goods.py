r"""The public goods game in one step, for any number of agents.

With `c_i = 1` if agent i contributes, and multiplier n, agent i earns

    r_i = ( -c_i + (n / N) * sum_j c_j ) / (n - 1),

scaled such that all contributing pays 1 each and all keeping pays 0.

=============  ====================================================================================
actions        0 = keep, 1 = contribute one unit
payoffs        the formula above; 1 < n < N makes it a dilemma: contributing costs 1 - n/N > 0
observations   one constant, 1
arguments      `n_agents` N >= 2; `multiplier` n > 1 (default 2 up to ten agents, 5 beyond, as in the
               paper's experiments); `dtype`
episode        one step, then terminated
equilibrium    without mediator nobody contributes; see `mediated_marl.equilibria` for the mediated ones
history        0.1.0 first version
=============  ====================================================================================
"""

import math

import torch
from gt_core.errors import InputError
from torch import Tensor

from mediated_marl.games.matrix import MatrixState
from mediated_marl.games.protocol import Step, flags

__all__ = ["PublicGoodsGame", "checked_multiplier", "default_multiplier", "public_good"]

MAX_TABLE_AGENTS = 16


class PublicGoodsGame:
    """The game of the table above, without ever forming its `2^N` payoffs.

    Raises:
        InputError: fewer than two agents, or a multiplier that is not finite and above 1.
    """

    name = "pgg"
    n_actions = 2
    horizon = 1
    observation_size = 1
    state_size = 1

    def __init__(self, n_agents: int, multiplier: float | None = None, dtype: torch.dtype = torch.float32) -> None:
        if n_agents < 2:
            raise InputError(f"n_agents is {n_agents}; a public good needs at least 2 agents")
        self.n_agents = n_agents
        self.multiplier = default_multiplier(n_agents) if multiplier is None else checked_multiplier(multiplier)
        self.action_counts = (2,) * n_agents
        self.dtype = dtype

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> MatrixState:
        """The constant state; the generator only names the device."""
        return MatrixState(torch.ones(*batch_shape, 1, dtype=self.dtype, device=generator.device))

    def observe(self, state: MatrixState) -> Tensor:
        """The constant, `[*batch, N, 1]`."""
        return state.constant.unsqueeze(-2).expand(*state.constant.shape[:-1], self.n_agents, 1)

    def features(self, state: MatrixState) -> Tensor:
        """The constant, `[*batch, 1]`."""
        return state.constant

    def step(self, state: MatrixState, actions: Tensor) -> Step[MatrixState]:
        """Pay the public good; the game is over."""
        rewards = public_good(actions.to(self.dtype), self.multiplier)
        shape, device = tuple(rewards.shape[:-1]), rewards.device
        return Step(rewards, state, flags(shape, value=True, device=device), flags(shape, value=False, device=device))

    def payoff_tensor(self) -> Tensor:
        """The normal form `[2, …, 2, N]`, for the solvers of small games.

        Raises:
            InputError: more than sixteen agents.
        """
        if self.n_agents > MAX_TABLE_AGENTS:
            raise InputError(
                f"a payoff tensor of {self.n_agents} agents has 2^{self.n_agents} x {self.n_agents} entries; "
                f"use at most {MAX_TABLE_AGENTS} agents, or the symmetric functions of mediated_marl.exact"
            )
        joint = torch.cartesian_prod(*[torch.arange(2)] * self.n_agents)
        return public_good(joint.to(self.dtype), self.multiplier).reshape(*self.action_counts, self.n_agents)


def public_good(contributions: Tensor, multiplier: float) -> Tensor:
    """Payoffs `[*batch, N]` of contributions `[*batch, N]`, which may be expectations in [0, 1]."""
    share = multiplier / contributions.shape[-1]
    return (share * contributions.sum(-1, keepdim=True) - contributions) / (multiplier - 1)


def default_multiplier(n_agents: int) -> float:
    """The multiplier of the paper's experiments."""
    return 5.0 if n_agents > 10 else 2.0


def checked_multiplier(multiplier: float) -> float:
    """The multiplier, if it is finite and above 1.

    Raises:
        InputError: otherwise.
    """
    if not (math.isfinite(multiplier) and multiplier > 1):
        raise InputError(f"multiplier is {multiplier}; the good must grow, give a finite number above 1")
    return float(multiplier)
