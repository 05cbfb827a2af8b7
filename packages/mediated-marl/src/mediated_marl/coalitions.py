"""Coalitions: the sets of agents that committed in one step, as bit masks, and how likely they are.

Coalition number `c` in `[0, 2^N)` contains agent i if bit i of `c` is set; 0 is the empty coalition and
`2^N - 1` the grand coalition.  If the agents commit independently with probabilities `q_i`, then

    P(C) = prod_{i in C} q_i * prod_{i not in C} (1 - q_i),

and the size |C| follows the Poisson-binomial law, whose mass function comes from the recursion over agents
`f_i(k) = (1 - q_i) f_{i-1}(k) + q_i f_{i-1}(k - 1)` in O(N^2), differentiable in every `q_i`.

`[*batch]` stands for any leading dimensions.
"""

import torch
from gt_core.errors import InputError
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "TooLargeError",
    "coalition_members",
    "coalition_number",
    "coalition_probabilities",
    "others_poisson_binomial",
    "poisson_binomial",
    "toggled",
]

MAX_AGENTS = 20


class TooLargeError(InputError):
    """An enumeration that would not fit: the message names the size and what to use instead."""


def coalition_members(n_agents: int, device: torch.device | None = None) -> Tensor:
    """Who is in which coalition, `[2^N, N]` bool.

    Raises:
        TooLargeError: more than twenty agents.
    """
    if n_agents > MAX_AGENTS:
        raise TooLargeError(
            f"{n_agents} agents form 2^{n_agents} coalitions; enumerate at most {MAX_AGENTS} agents, use the size of "
            "the coalition where the game is symmetric, or sample"
        )
    numbers = torch.arange(2**n_agents, device=device)
    return (numbers.unsqueeze(-1) >> torch.arange(n_agents, device=device)) % 2 == 1


def coalition_number(committed: Tensor) -> Tensor:
    """The number `[*batch]` of each coalition `committed [*batch, N]` bool."""
    bits = 2 ** torch.arange(committed.shape[-1], device=committed.device)
    return (committed * bits).sum(-1)


def toggled(numbers: Tensor, n_agents: int) -> Tensor:
    """The coalition next door for each agent: without it where it is a member, with it where it is not.

    Args:
        numbers: `[*batch]` coalition numbers.
        n_agents: `N`.

    Returns:
        `[*batch, N]`: entry i is the coalition with agent i's membership changed.
    """
    return numbers.unsqueeze(-1) ^ (2 ** torch.arange(n_agents, device=numbers.device))


def coalition_probabilities(commit: Tensor) -> Tensor:
    """`P(C)` for all coalitions, `[*batch, 2^N]`, from commit probabilities `[*batch, N]`.

    Raises:
        TooLargeError: more than twenty agents.
    """
    members = coalition_members(commit.shape[-1], commit.device)
    chosen = torch.where(members, commit.unsqueeze(-2), 1 - commit.unsqueeze(-2))
    return chosen.prod(-1)


def poisson_binomial(probabilities: Tensor) -> Tensor:
    """The law of the number of successes, `[*batch, N + 1]`, of independent trials `[*batch, N]`."""
    mass = torch.ones_like(probabilities[..., :1])
    for success in probabilities.unsqueeze(-1).unbind(-2):
        mass = pad(mass, (0, 1)) * (1 - success) + pad(mass, (1, 0)) * success
    return mass


def others_poisson_binomial(probabilities: Tensor) -> Tensor:
    """For each agent the law of the number of successes among the *others*.

    An agent's own trial is set to failure instead of being divided out, which stays exact at probabilities 0 and 1.

    Args:
        probabilities: `[*batch, N]`.

    Returns:
        `[*batch, N, N]`: entry `[i, m]` is the probability of `m` successes, `0 <= m <= N - 1`.
    """
    n_agents = probabilities.shape[-1]
    others = 1 - torch.eye(n_agents, dtype=probabilities.dtype, device=probabilities.device)
    return poisson_binomial(probabilities.unsqueeze(-2) * others)[..., :n_agents]
