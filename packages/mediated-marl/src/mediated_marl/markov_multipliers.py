r"""Multipliers of constraints at every state and coalition: tables that share them, and a network of `(s, C)`.

The constraint of agent i at `(s, C)` exists where i was free to decide.  Tables know no state: one multiplier in all,
per agent, per size of C, per C and i, or per step, C and i; each ascends the mean violation of the samples that share
it.  Their price is `lambda * exp(damping * recent)`, where `recent` is a moving average of that mean: proportional
beside integral control, which damps the circling of primal and dual steps.  It is of measured returns, and so needs of
the critic only the values next door, which are those of larger coalitions under encouragement and well known once
agents commit.

One number for constraints that bind at one state and are slack at most others settles wherever their mean is 0.  Where
it is time that tells such states apart, as in the iterated public goods game, whose constraint binds at the last step
alone, a table by step does; otherwise the multiplier is a network, `ln lambda(s, C)_i = clip(f(s, C)_i, -4, 4)`, whose
f ascends

    mean over samples of  f(s, C)_i * g_i

and so moves each sample's multiplier in its own direction.  Beyond the clip, which is that of the published rule, f is
not pushed further but drawn back, lest it take as long to return.
"""

import math
from typing import Any

import numpy as np
import torch
from gt_core.dual import ExponentialAscent, Multiplier
from torch import Tensor, nn

from mediated_marl.by_hand import Array
from mediated_marl.coalitions import TooLargeError
from mediated_marl.markov_config import MarkovConfig, MarkovForm
from mediated_marl.markov_players import StateNetwork
from mediated_marl.rollout import Arena

__all__ = ["MultiplierNetwork", "MultiplierTable", "group_sizes", "groups"]

LOG_BOUND = 4.0
MAX_DAMPING = 3.0
RECENT = 0.05
MAX_MULTIPLIERS = 2**22


def group_sizes(form: MarkovForm, n_agents: int, horizon: int) -> int:
    """How many multipliers a table has.

    Raises:
        TooLargeError: more than four million.
    """
    every = n_agents << n_agents
    sizes = {"scalar": 1, "agent": n_agents, "size": n_agents + 1, "coalition": every, "step": horizon * every}
    if sizes[form] > MAX_MULTIPLIERS:
        raise TooLargeError(
            f"{n_agents} agents have {sizes[form]} multipliers by {form}; use --multipliers size or network"
        )
    return sizes[form]


def groups(form: MarkovForm, committed: Array) -> Array:
    """Which multiplier agent i's constraint at each coalition uses, int64 like `committed` `[S, N, T, *]`."""
    n_agents, along = committed.shape[1], [1] * (committed.ndim - 2)
    agents = np.arange(n_agents).reshape(-1, *along)
    if form == "scalar":
        return np.zeros(committed.shape, np.int64)
    if form == "agent":
        return np.broadcast_to(agents, committed.shape)
    if form == "size":
        return np.broadcast_to(committed.sum(1, keepdims=True), committed.shape)
    steps = np.arange(committed.shape[2]).reshape(-1, *along[1:]) if form == "step" else 0
    coalition = sum(committed[:, agent : agent + 1] * np.int64(n_agents << agent) for agent in range(n_agents))
    here: Array = coalition + (steps * (n_agents << n_agents) + agents)
    return here


class MultiplierTable:
    """The multipliers of one kind of constraint as a table, for all seeds.

    Args:
        form: which constraints share one.
        n_agents: N.
        seeds: S.
        rate: step in log space.
        start: the first value.
        horizon: T.
        damping: see above.
    """

    def __init__(
        self,
        form: MarkovForm,
        n_agents: int,
        seeds: int,
        rate: float,
        start: float = 1.0,
        horizon: int = 1,
        damping: float = 0.0,
    ) -> None:
        self.form: MarkovForm = form
        self.damping = damping
        self.multiplier = Multiplier(start, ExponentialAscent(rate), (seeds, group_sizes(form, n_agents, horizon)))
        self.recent = torch.zeros_like(self.multiplier.value)

    def at(self, committed: Array) -> Array:
        """The prices at coalitions `[S, N, T, *]`."""
        prices = self.multiplier.value * (self.damping * self.recent).clamp(-MAX_DAMPING, MAX_DAMPING).exp()
        return prices.float().numpy().take(self._places(committed))

    def ascend(self, committed: Array, violation: Array, counted: Array) -> None:
        """Move each by the mean of the counted violations `[S, N, T, *]` that share it; unobserved ones stay."""
        places, shape = self._places(committed)[counted], self.multiplier.value.shape
        total = torch.from_numpy(np.bincount(places, violation[counted], shape.numel())).reshape(shape)
        mass = torch.from_numpy(np.bincount(places, minlength=shape.numel())).reshape(shape)
        observed = mass > 0
        mean = (total / mass.double())[observed]
        self.recent[observed] = torch.lerp(self.recent[observed], mean, RECENT)
        self.multiplier.ascend(mean, observed)

    def _places(self, committed: Array) -> Array:
        """Where the multiplier of each constraint is among those of all seeds."""
        seeds, count = self.multiplier.value.shape
        first = np.arange(seeds).reshape(-1, *[1] * (committed.ndim - 1)) * count
        return first + groups(self.form, committed)

    def state_dict(self) -> dict[str, Any]:
        """The multipliers and the recent violations."""
        return {"multiplier": self.multiplier.state_dict(), "recent": self.recent.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.multiplier.load_state_dict(state["multiplier"])
        self.recent = state["recent"].clone()


class MultiplierNetwork(nn.Module):
    """The multipliers of one kind of constraint as a function of state and coalition, for all seeds.

    Args:
        arena: the game.
        config: sizes.
        generator: draws the initial parameters.
    """

    def __init__(self, arena: Arena, config: MarkovConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.network = StateNetwork(arena, config, generator)
        self.start = math.log(config.multiplier_start)

    def log_multipliers(self, features: Tensor, locks: Tensor, committed: Tensor) -> Tensor:
        """Their logarithms before the clip, `[S, *, N]`."""
        output: Tensor = self.network(features, locks, committed)
        return output + self.start

    @staticmethod
    def clipped(log_multipliers: Tensor) -> Tensor:
        """The multipliers, constants, `[S, *, N]`."""
        return log_multipliers.detach().clamp(-LOG_BOUND, LOG_BOUND).exp()

    @staticmethod
    def gain(log_multipliers: Tensor, violation: Tensor, weights: Tensor) -> Tensor:
        """What the network climbs: per seed the weighted mean of `f * g`, summed over seeds; 0 if unobserved."""
        excess = (log_multipliers.abs() - LOG_BOUND).clamp(min=0)
        outward = (excess > 0) & (log_multipliers * violation > 0)
        climbed = torch.where(outward, 0.0, violation * log_multipliers) - excess.square()
        observed = weights.flatten(1).sum(1).clamp(min=1)
        return ((weights * climbed).flatten(1).sum(1) / observed).sum()
