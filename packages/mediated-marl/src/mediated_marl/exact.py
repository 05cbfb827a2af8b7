"""Expected payoffs of one-step games with a mediator, exactly and differentiably.

Each agent plays a policy over its own actions and, last, the commit action `m`.  The mediator sees the coalition C
and draws each member's action independently from `pi^M_i(. | C)` (paper, section 3).  Hence

    E[u_i] = sum_C sum_a u_i(a) * prod_{j in C} pi_j(m) pi^M_j(a_j | C) * prod_{j not in C} pi_j(a_j),

a polynomial that is linear in each policy; automatic differentiation of it gives exact policy gradients.  General
games are summed over `2^N` coalitions times `prod A_i` outcomes.  In the public goods game only the coalition's
size matters, and since payoffs are linear in contributions the Poisson-binomial law of the others' commitments is
enough: hundreds of agents in O(N^3).

Shapes: `[*batch]` any leading dimensions; policies `[*batch, N, A + 1]` with `A` the largest action count
(absent actions have probability 0); mediator `[*batch, 2^N, N, A]`, read at members only; payoff tensors
`[A_1, …, A_N, N]`.  Everything is in probabilities, not logits, and in the units of the payoffs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mediated_marl.coalitions import TooLargeError, coalition_members, others_poisson_binomial
from mediated_marl.games.public_goods import public_good

__all__ = [
    "check_enumerable",
    "coalition_payoffs",
    "deviation_payoffs",
    "expected_payoffs",
    "mixed_payoffs",
    "public_goods_deviation_payoffs",
    "public_goods_payoffs",
    "public_goods_values",
]

MAX_ENTRIES = 2**24


def check_enumerable(action_counts: tuple[int, ...]) -> None:
    """Check that coalitions times joint actions of a game can be enumerated.

    Raises:
        TooLargeError: more than `2^24` pairs; names the number and the alternatives.
    """
    pairs = 2 ** len(action_counts)
    for count in action_counts:
        pairs *= count
    if pairs > MAX_ENTRIES:
        raise TooLargeError(
            f"{len(action_counts)} agents with {action_counts} actions make {pairs} pairs of a coalition and a joint "
            f"action, more than {MAX_ENTRIES}; use fewer agents or actions, the symmetric public goods functions, or "
            "sampled gradients"
        )


def mixed_payoffs(payoffs: Tensor, marginals: Tensor) -> Tensor:
    """Contract a payoff tensor with one weight vector per agent.

    Args:
        payoffs: `[A_1, …, A_N, N]`.
        marginals: `[*batch, N, A]`, independent; they need not sum to one.

    Returns:
        `[*batch, N]`: `sum_a u_i(a) prod_j marginals_j(a_j)`.
    """
    *counts, _ = payoffs.shape
    value = payoffs.flatten()
    for agent, count in enumerate(counts):
        weights = marginals[..., agent, :count].unsqueeze(-2)
        value = (weights @ value.reshape(*value.shape[:-1], count, -1)).squeeze(-2)
    return value


def coalition_payoffs(payoffs: Tensor, outside: Tensor, mediator: Tensor) -> Tensor:
    """Every agent's value `V_i(C)` under every coalition, members and outsiders alike.

    Args:
        payoffs: `[A_1, …, A_N, N]`.
        outside: `[*batch, N, A]`, what an agent plays when it does not commit.
        mediator: `[*batch, 2^N, N, A]`.

    Returns:
        `[*batch, 2^N, N]`.

    Raises:
        TooLargeError: see `check_enumerable`.
    """
    check_enumerable(tuple(payoffs.shape[:-1]))
    members = coalition_members(payoffs.shape[-1], payoffs.device).unsqueeze(-1)
    return mixed_payoffs(payoffs, torch.where(members, mediator, outside.unsqueeze(-3)))


def expected_payoffs(payoffs: Tensor, policies: Tensor, mediator: Tensor) -> Tensor:
    """Every agent's expected payoff, `[*batch, N]`.

    Args:
        payoffs: `[A_1, …, A_N, N]`.
        policies: `[*batch, N, A + 1]`, commit last.
        mediator: `[*batch, 2^N, N, A]`.

    Raises:
        TooLargeError: see `check_enumerable`.
    """
    check_enumerable(tuple(payoffs.shape[:-1]))
    members = coalition_members(payoffs.shape[-1], payoffs.device).unsqueeze(-1)
    own, commit = policies[..., :-1].unsqueeze(-3), policies[..., -1:].unsqueeze(-3)
    return mixed_payoffs(payoffs, torch.where(members, commit * mediator, own)).sum(-2)


def public_goods_payoffs(policies: Tensor, contribution: Tensor, multiplier: float) -> Tensor:
    """Expected payoffs of the public goods game, any number of agents.

    Args:
        policies: `[*batch, N, 3]`: keep, contribute, commit.
        contribution: `[*batch, N]`: entry `k - 1` is the probability with which the mediator lets a member of a
            coalition of size k contribute.
        multiplier: n.

    Returns:
        `[*batch, N]`.
    """
    commit = policies[..., 2]
    others = others_poisson_binomial(commit)
    mediated = (others * contribution.unsqueeze(-2)).sum(-1)
    return public_good(policies[..., 1] + commit * mediated, multiplier)


def public_goods_values(contribution: Tensor, multiplier: float) -> tuple[Tensor, Tensor]:
    """Members' and outsiders' values of the public goods game at every size, when outsiders keep.

    Args:
        contribution: `[*batch, N]`, the mediator's probability at sizes 1 to N.
        multiplier: n.

    Returns:
        `members [*batch, N + 1]` and `outsiders [*batch, N + 1]`, entry k for a coalition of size k.  There is no
        member at size 0 and no outsider at size N: those entries are 0 and what a further outsider would get.
    """
    n_agents = contribution.shape[-1]
    padded = torch.nn.functional.pad(contribution, (1, 0))
    sizes = torch.arange(n_agents + 1, dtype=contribution.dtype, device=contribution.device)
    income = multiplier * sizes / n_agents * padded
    return (income - padded) / (multiplier - 1), income / (multiplier - 1)


def deviation_payoffs(policies: Tensor, payoff: Callable[[Tensor], Tensor]) -> Tensor:
    """What each agent would get from each pure action, commit included, while the others keep their policies.

    Since payoffs are linear in each policy, this is also the gradient of each agent's payoff in its own policy.

    Args:
        policies: `[*batch, N, A + 1]`.
        payoff: maps policies `[M, *batch, N, A + 1]` to payoffs `[M, *batch, N]`, for any M.

    Returns:
        `[*batch, N, A + 1]`; the best entry minus the agent's payoff is its gain from a one-step deviation.
    """
    *_, n_agents, n_choices = policies.shape
    pure = torch.eye(n_choices, dtype=policies.dtype, device=policies.device)
    values = []
    for agent in range(n_agents):
        deviated = policies.expand(n_choices, *policies.shape).clone()
        deviated[..., agent, :] = pure.reshape(n_choices, *[1] * (policies.ndim - 2), n_choices)
        values.append(payoff(deviated)[..., agent].movedim(0, -1))
    return torch.stack(values, dim=-2)


def public_goods_deviation_payoffs(policies: Tensor, contribution: Tensor, multiplier: float) -> Tensor:
    """`deviation_payoffs` of the public goods game, from the law of the others' commitments alone.

    A coalition of size k contributes `k p_k` on average; whether agent i is in it changes k by one.

    Args:
        policies: `[*batch, N, 3]`: keep, contribute, commit.
        contribution: `[*batch, N]`, the mediator's probability at sizes 1 to N.
        multiplier: n.

    Returns:
        `[*batch, N, 3]`.
    """
    n_agents = policies.shape[-2]
    others = others_poisson_binomial(policies[..., 2])
    joining = contribution.unsqueeze(-2)
    sizes = torch.arange(1, n_agents + 1, dtype=policies.dtype, device=policies.device)
    with_me = (others * sizes * joining).sum(-1)
    without_me = (others[..., 1:] * (sizes * joining)[..., :-1]).sum(-1)
    gifts = policies[..., 1].sum(-1, keepdim=True) - policies[..., 1]
    cost = (others * joining).sum(-1)
    share = multiplier / n_agents
    keep = share * (gifts + without_me)
    return torch.stack([keep, keep + share - 1, share * (gifts + with_me) - cost], dim=-1) / (multiplier - 1)
