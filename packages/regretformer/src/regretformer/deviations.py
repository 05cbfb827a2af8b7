"""What training learns from: profiles, and the best lies found on them.

A search for misreports chooses the profiles too, because what makes it fast is how they are drawn: from a pool that is
slowly renewed, or from a fixed set. So recipes are exchanged without touching the loop: `regretformer.pool_search` and
`regretformer.published_search`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from regretformer.auction import Mechanism, Outcome, replace_report, utilities
from regretformer.networks.network import AuctionNetwork

__all__ = ["Deviations", "Search", "gains"]


class Deviations(NamedTuple):
    """A batch, and misreports in it."""

    profiles: Tensor
    """True values, [B, n, m]."""
    truthful: Outcome
    """The network's outcome for them, with its gradient."""
    reports: Mapping[int, Tensor]
    """For each bidder that deviates, its report in each profile, [B, m], while the others are truthful."""


class Search(Protocol):
    """A source of batches with misreports; all its state is in `state_dict` and in the run's random streams."""

    def find(self, network: AuctionNetwork) -> Deviations:
        """The next batch, and the best misreports found on it."""
        ...

    def learn(self, found: Deviations) -> None:
        """Take note of the batch once the loss was differentiated; reports that require gradients have theirs."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Everything needed to continue."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        ...


def gains(network: Mechanism, found: Deviations) -> dict[int, Tensor]:
    """What each deviating bidder gains by its report, at least 0, differentiable in the weights, [B] each.

    Their means estimate the bidders' regrets from below.
    """
    truthful = utilities(found.profiles, found.truthful)
    gained = {}
    for bidder, reports in found.reports.items():
        deviating = network(replace_report(found.profiles, bidder, reports))
        gained[bidder] = (utilities(found.profiles, deviating) - truthful)[:, bidder].clamp_min(0)
    return gained
