"""The auction: what a mechanism is, what bidders get from it, and what it earns.

A mechanism maps bids b [..., n, m] to an allocation g(b) [..., n, m], the probability with which each bidder receives
each item (column sums at most 1), and payments p(b) [..., n]. Bidder i with values v_i gains

    u_i(v_i; b) = sum_j g_ij(b) v_ij - p_i(b).

With unit demand this is the expected utility too, since each draw then gives a bidder one item at most.

Regret of bidder i at profile v is how much it could gain by reporting b_i instead of v_i,
max_b_i u_i(v_i; (b_i, v_-i)) - u_i(v_i; v) >= 0. Money has the unit of the valuations.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Mechanism", "Outcome", "replace_report", "utilities"]


class Outcome(NamedTuple):
    """What a mechanism decides."""

    allocation: Tensor
    """Probability that a bidder receives an item, [..., n, m]."""
    payments: Tensor
    """What each bidder pays, [..., n]."""


class Mechanism(Protocol):
    """Anything that turns bids into an outcome: a network, an oracle, a function."""

    def __call__(self, bids: Tensor) -> Outcome:
        """The outcome for each profile of bids [..., n, m]."""
        ...


def utilities(values: Tensor, outcome: Outcome) -> Tensor:
    """Utility of each bidder with the given values, [..., n].

    Args:
        values: true values, [..., n, m]; they need not be the bids that led to the outcome.
        outcome: allocation [..., n, m] and payments [..., n].
    """
    return (values * outcome.allocation).sum(-1) - outcome.payments


def replace_report(profiles: Tensor, bidder: int, reports: Tensor) -> Tensor:
    """The profiles [..., n, m] with one bidder's row replaced by `reports` [..., m]."""
    before, after = profiles[..., :bidder, :], profiles[..., bidder + 1 :, :]
    return torch.cat([before, reports.unsqueeze(-2), after], dim=-2)
