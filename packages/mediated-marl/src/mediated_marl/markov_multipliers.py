r"""Multipliers of constraints at every state and coalition: tables that share them, and a network of `(s, C)`.

The constraint of agent i at `(s, C)` exists where i was free to decide.  Tables know no state: one multiplier in all,
per agent, per size of C, or per C and i; each ascends the mean violation of the samples that share it.  One number for
constraints that bind at one state and are slack at most others settles wherever their mean is 0, so in games of many
states the multiplier is a network, `ln lambda(s, C)_i = clip(f(s, C)_i, -4, 4)`, whose f ascends

    mean over samples of  f(s, C)_i * g_i

and so moves each sample's multiplier in its own direction.  Beyond the clip, which is that of the published rule, f is
not pushed further but drawn back, lest it take as long to return.
"""

import math

import torch
from gt_core.dual import ExponentialAscent, Multiplier
from torch import Tensor, nn

from mediated_marl.coalitions import coalition_members, coalition_number
from mediated_marl.markov_config import MarkovConfig, MarkovForm
from mediated_marl.markov_players import StateNetwork
from mediated_marl.rollout import Arena

__all__ = ["MultiplierNetwork", "MultiplierTable", "group_sizes", "groups"]

LOG_BOUND = 4.0


def group_sizes(form: MarkovForm, n_agents: int) -> int:
    """How many multipliers a table has.

    Raises:
        TooLargeError: a multiplier per coalition of more than twenty agents.
    """
    if form == "coalition":
        coalition_members(n_agents)  # refuses too many
    return {"scalar": 1, "agent": n_agents, "size": n_agents + 1, "coalition": n_agents << n_agents}[form]


def groups(form: MarkovForm, committed: Tensor) -> Tensor:
    """Which multiplier agent i's constraint at each coalition uses, int64 like `committed` `[*, N]`."""
    agents = torch.arange(committed.shape[-1]).expand(committed.shape)
    if form == "scalar":
        return torch.zeros_like(agents)
    if form == "agent":
        return agents
    if form == "size":
        return committed.sum(-1, keepdim=True).expand(committed.shape)
    return coalition_number(committed).unsqueeze(-1) * committed.shape[-1] + agents


class MultiplierTable:
    """The multipliers of one kind of constraint as a table, for all seeds.

    Args:
        form: which constraints share one.
        n_agents: N.
        seeds: S.
        rate: step in log space.
        start: the first value.
    """

    def __init__(self, form: MarkovForm, n_agents: int, seeds: int, rate: float, start: float = 1.0) -> None:
        self.form: MarkovForm = form
        self.multiplier = Multiplier(start, ExponentialAscent(rate), (seeds, group_sizes(form, n_agents)))

    def at(self, committed: Tensor) -> Tensor:
        """The multipliers at coalitions `[S, *, N]`."""
        index = groups(self.form, committed).flatten(1)
        return self.multiplier.value.gather(1, index).reshape(committed.shape).float()

    def ascend(self, committed: Tensor, violation: Tensor, weights: Tensor) -> None:
        """Move each by the weighted mean of the violations `[S, *, N]` that share it; unobserved ones stay."""
        index = groups(self.form, committed).flatten(1)
        total, mass = torch.zeros_like(self.multiplier.value), torch.zeros_like(self.multiplier.value)
        total.scatter_add_(1, index, (weights * violation).double().flatten(1))
        mass.scatter_add_(1, index, weights.double().flatten(1))
        observed = mass > 0
        self.multiplier.ascend((total / mass)[observed], observed)


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
