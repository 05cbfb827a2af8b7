"""Batches that mix settings: profiles of different sizes, padded to the largest.

Who is absent takes part in no mean, no attention and no softmax, and receives and pays nothing, so that a padded
profile gives the outcome of the profile alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from gt_core.errors import InputError
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Presence", "mean_over_bidders", "mean_over_items", "pad"]


class Presence(NamedTuple):
    """Who and what is there in each profile: at least one bidder and one item."""

    bidders: Tensor
    """True for each bidder that is there, bool [B, n]."""
    items: Tensor
    """True for each item that is there, bool [B, m]."""

    @property
    def entries(self) -> Tensor:
        """True where a bidder that is there can bid on an item that is there, bool [B, n, m]."""
        return self.bidders.unsqueeze(2) & self.items.unsqueeze(1)


def pad(profiles: Sequence[Tensor]) -> tuple[Tensor, Presence]:
    """One batch of profiles [n_k, m_k] of any sizes: bids [B, n, m] with zeros where nobody is, and who is there.

    Raises:
        InputError: if there is no profile, or one without bidders or items.
    """
    if not profiles or any(profile.ndim != 2 or profile.numel() == 0 for profile in profiles):
        raise InputError(f"profiles must be [n, m], both at least 1; got {[tuple(p.shape) for p in profiles]}")
    sizes = torch.tensor([profile.shape for profile in profiles], device=profiles[0].device)
    bidders, items = (int(size) for size in sizes.amax(0))
    bids = torch.stack([F.pad(p, (0, items - p.shape[1], 0, bidders - p.shape[0])) for p in profiles])
    counts = torch.arange(max(bidders, items), device=bids.device)
    return bids, Presence(counts[:bidders] < sizes[:, :1], counts[:items] < sizes[:, 1:])


def mean_over_bidders(x: Tensor, mask: Presence | None) -> Tensor:
    """Mean of [n, m, B, c] over the bidders that are there, [1, m, B, c]."""
    return x.mean(0, keepdim=True) if mask is None else _mean(x, mask.bidders.t()[:, None, :, None], 0)


def mean_over_items(x: Tensor, mask: Presence | None) -> Tensor:
    """Mean of [n, m, B, c] over the items that are there, [n, 1, B, c]."""
    return x.mean(1, keepdim=True) if mask is None else _mean(x, mask.items.t()[None, :, :, None], 1)


def _mean(x: Tensor, present: Tensor, axis: int) -> Tensor:
    """Mean over the entries of an axis that are present; the others must be finite."""
    weights = present.to(x.dtype)
    return (x * (weights / weights.sum(axis, keepdim=True))).sum(axis, keepdim=True)
