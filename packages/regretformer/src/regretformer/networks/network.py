"""What every learnt mechanism has in common: shares decided by a network, payments that follow from them.

A network maps bids b [B, n, m] to the allocation g [B, n, m] and to payment fractions f in (0, 1) [B, n]; bidder i pays

    p_i = f_i * sum_j g_ij b_ij,

a share of what it says its lottery is worth. So a truthful bidder with values of at least 0 never
pays more than its value (individual rationality), whatever the weights. Payments use the bids as they are given, also
where the network sees them normalised.
"""

import abc

import torch
from gt_core.errors import InputError
from torch import Tensor, nn

from regretformer.auction import Outcome
from regretformer.networks.masks import Presence

__all__ = ["AuctionNetwork", "Normalisation", "Support", "tanh"]

Support = tuple[Tensor, Tensor]
"""Smallest and largest bid, each a number, [m] or [n, m]."""


class Normalisation(nn.Module):
    """The affine map of a support onto the unit box, (b - low) / (high - low).

    Args:
        low: smallest bid, a number, [m] or [n, m].
        high: largest bid, of the same shape.

    Raises:
        InputError: if the support is empty, negative or not finite.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        if not (torch.isfinite(low) & torch.isfinite(high) & (low >= 0) & (low < high)).all():
            raise InputError(f"bids must have 0 <= low < high < inf, got low {low.tolist()}, high {high.tolist()}")
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", low.detach().clone())
        self.register_buffer("high", high.detach().clone())

    def forward(self, bids: Tensor) -> Tensor:
        """[B, n, m] to [B, n, m]."""
        return (bids - self.low) / (self.high - self.low)


class AuctionNetwork(nn.Module, abc.ABC):
    """A learnt `Mechanism`.

    Args:
        support: normalise what the network sees of the bids by this box; None, as published, shows them as they are.
    """

    def __init__(self, support: Support | None = None) -> None:
        super().__init__()
        self.normalisation = None if support is None else Normalisation(*support)

    @abc.abstractmethod
    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n] for bids [B, n, m]; both are 0 for whoever is absent."""

    def forward(self, bids: Tensor, mask: Presence | None = None) -> Outcome:
        """Allocation [B, n, m] and payments [B, n].

        Args:
            bids: [B, n, m]; what stands where the mask has nobody or nothing does not matter.
            mask: who and what is there, for batches that mix settings; everything if None.
        """
        if mask is not None:
            bids = bids.masked_fill(~mask.entries, 0.0)
        allocation, fractions = self.decide(bids, mask)
        return Outcome(allocation, fractions * (allocation * bids).sum(-1))

    def seen(self, bids: Tensor) -> Tensor:
        """The bids as the layers see them, [B, n, m]."""
        return bids if self.normalisation is None else self.normalisation(bids)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent as 2 sigmoid(2 x) - 1, which a CPU computes twice as fast; equal to the last digits of 1."""
    return torch.sigmoid(2 * x).mul(2).sub_(1) if x.device.type == "cpu" else torch.tanh(x)
