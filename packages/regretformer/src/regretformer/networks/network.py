"""What every learnt mechanism has in common: shares decided by a network, payments that follow from them.

A network maps bids b [B, n, m] to the allocation g [B, n, m] and to payment fractions f in (0, 1) [B, n]; bidder i pays

    p_i = f_i * sum_j g_ij b_ij,

a share of what it says its lottery is worth. So a truthful bidder with values of at least 0 never
pays more than its value (individual rationality), whatever the weights. Payments use the bids as they are given, also
where the network sees them normalised.
"""

import abc
from typing import Protocol

import torch
from gt_core.errors import InputError
from torch import Tensor, nn

from regretformer.auction import Outcome
from regretformer.networks.masks import Presence
from regretformer.setting import Demand

__all__ = ["AuctionNetwork", "Context", "Normalisation", "Support", "tanh"]

_CACHED_NUMBERS = 2**20  # of the widest layer; measured with all three networks on a CPU with 1 MiB of L2 per core

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
        demand: with unit demand nobody receives more than one item in expectation, nor in any draw: a matrix whose rows
            and columns sum to at most 1 is a lottery over matchings (Birkhoff and von Neumann).
    """

    def __init__(self, support: Support | None = None, demand: Demand = "additive") -> None:
        super().__init__()
        self.demand = demand
        self.normalisation = None if support is None else Normalisation(*support)

    @abc.abstractmethod
    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n] for bids [B, n, m]; both are 0 for whoever is absent."""

    @abc.abstractmethod
    def numbers_per_profile(self, bidders: int, items: int) -> int:
        """How many numbers the widest layer holds for each profile."""

    def profiles_at_once(self, bids: Tensor) -> int:
        """How many profiles of `bids` [B, n, m] to evaluate at once: on a CPU as many as its cache holds, else all."""
        if bids.device.type != "cpu" or torch.compiler.is_exporting():
            return len(bids)
        return max(1, _CACHED_NUMBERS // self.numbers_per_profile(*bids.shape[1:]))

    def forward(self, bids: Tensor, mask: Presence | None = None) -> Outcome:
        """Allocation [B, n, m] and payments [B, n].

        Args:
            bids: [B, n, m]; what stands where the mask has nobody or nothing does not matter.
            mask: who and what is there, for batches that mix settings; everything if None.
        """
        if mask is not None:
            bids = bids.masked_fill(~mask.entries, 0.0)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            allocation, fractions = self.decide(bids, mask)
        else:
            size = self.profiles_at_once(bids)
            masks = [None] * len(bids) if mask is None else map(Presence, *(side.split(size) for side in mask))
            decided = [self.decide(*part) for part in zip(bids.split(size), masks, strict=False)]
            allocation, fractions = (torch.cat(side) for side in zip(*decided, strict=True))
        return Outcome(allocation, fractions * (allocation * bids).sum(-1))

    def seen(self, bids: Tensor) -> Tensor:
        """The bids as the layers see them, [B, n, m]."""
        return bids if self.normalisation is None else self.normalisation(bids)


class Context(Protocol):
    """What a function whose derivative is written out keeps between its forward and its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    """As they were given to `save_for_backward`."""
    needs_input_grad: tuple[bool, ...]
    """Of which arguments the gradient is asked for."""
    heads: int
    """Attention heads, of a block."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the backward pass."""


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent; on a CPU 2 sigmoid(2 x) - 1: three times as fast and equal to the last digits of 1."""
    return _SigmoidTanh.apply(x) if x.device.type == "cpu" else torch.tanh(x)


class _SigmoidTanh(torch.autograd.Function):
    """`tanh`; its derivative 1 - tanh(x)^2 needs the result alone."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        result = (2 * x).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.tanh_backward(gradient, *ctx.saved_tensors)
        return result
