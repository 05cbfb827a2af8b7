"""RegretFormer: attention over items and over bidders (paper, section 3.1; published shapes).

    x0 = tanh(Exchangeable(bids))                                        [B, n, m, h]
    x  = tanh(Block(x))                                                  K times
    allocation, payment fraction = Head(x)

A block attends over the m items of each bidder and, beside it, over the n bidders of each item; the two results are
concatenated and projected back to h channels. The network has no parameter that depends on n or m, and commutes with
permutations of bidders and of items.

Per item the allocation is a softmax over the bidders and "unsold", so no item is given twice.

Training and every search for misreports spend their time here, so some steps are rearranged, each exactly: see
`regretformer.networks.block`; and the head projects means instead of averaging projections.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regretformer.networks.block import Folded, Options, attention_block
from regretformer.networks.exchangeable import InputLayer, Positions, entries_first, sell
from regretformer.networks.masks import Presence, mean_over_bidders, mean_over_items
from regretformer.networks.network import AuctionNetwork, Support
from regretformer.setting import Demand

__all__ = ["RegretFormer", "Shape", "published_shape"]

_EPS = 1e-6  # of every LayerNorm


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a RegretFormer."""

    channels: int
    """Width h of every layer."""
    head_channels: int
    """Width d of each attention head."""
    heads: int
    """Attention heads H."""
    blocks: int
    """Attention blocks K."""


def published_shape(bidders: int, items: int) -> Shape:
    """The shape the paper uses for a setting; for others, that of the published setting next in size.

    Parameters: 12,705 for 1x2; 49,985 for 2x2 and 2x3; 362,753 for 2x5 and 3x10.
    """
    if bidders * items <= 2:
        return Shape(channels=32, head_channels=16, heads=2, blocks=1)
    if bidders * items <= 6:
        return Shape(channels=64, head_channels=32, heads=2, blocks=1)
    return Shape(channels=128, head_channels=32, heads=4, blocks=2)


class RegretFormer(AuctionNetwork):
    """The network, a `Mechanism` for any number of bidders and items.

    Args:
        shape: its sizes.
        support: see `AuctionNetwork`.
        positions: how many bidders and how many items to tell apart; 0 treats them alike.
        sizes: tell the network how many bidders and items there are.
        rivals: show it the highest rival beside each bid.
        demand: see `AuctionNetwork`.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        support: Support | None = None,
        positions: tuple[int, int] = (0, 0),
        sizes: bool = False,
        rivals: bool = False,
        demand: Demand = "additive",
    ) -> None:
        super().__init__(support, demand)
        self.shape = shape
        self.input_layer = InputLayer(shape.channels, rivals=rivals)
        self.positions = Positions(shape.channels, *positions, sizes=sizes)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.head = Head(shape.channels)

    def numbers_per_profile(self, bidders: int, items: int) -> int:
        """See `AuctionNetwork`."""
        return 6 * bidders * items * self.shape.heads * self.shape.head_channels

    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n] for bids [B, n, m]."""
        s = torch.sigmoid(2 * self.positions(self.input_layer(entries_first(self.seen(bids)), mask), mask))
        for block in self.blocks:
            s = block(s, mask)
        logits, fractions = self.head(s, mask)
        return sell(logits, mask, self.demand), fractions if mask is None else fractions * mask.bidders


class Block(nn.Module):
    """Item attention beside bidder attention, joined by a linear layer, with a residual; then tanh."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.item_attention = Attention(shape)
        self.bidder_attention = Attention(shape)
        self.join = nn.Linear(2 * shape.channels, shape.channels)

    def forward(self, s: Tensor, mask: Presence | None = None) -> Tensor:
        """[n, m, B, h] to [n, m, B, h], both as sigmoids; see `regretformer.networks.block`."""
        present = (None, None) if mask is None else (mask.items, mask.bidders)
        return attention_block(s, Options(self.item_attention.heads, _EPS, *present), self._folded(*s.shape[:2]))

    def _folded(self, bidders: int, items: int) -> Folded:
        join = self.join.weight
        offsets = 2 * (self.join.bias - join.sum(1)) - 2
        return Folded(*self.item_attention.folded(items), *self.bidder_attention.folded(bidders), 4 * join, offsets)


class Attention(nn.Module):
    """Multi-head self-attention with the norm in front and a residual, along one axis."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.heads * shape.head_channels
        self.heads, self.head_channels = shape.heads, shape.head_channels
        self.norm = nn.LayerNorm(shape.channels, eps=_EPS)
        self.queries = nn.Linear(shape.channels, width, bias=False)
        self.keys = nn.Linear(shape.channels, width, bias=False)
        self.values = nn.Linear(shape.channels, width, bias=False)
        self.output = nn.Linear(width, shape.channels, bias=False)

    def folded(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, shifts and output for sequences of a length, with the norm's scale and shift; see `Folded`."""
        output = 2 * self.output.weight
        if length == 1:
            weights = (output @ self.values.weight).unsqueeze(0)
        else:
            queries = self.queries.weight / math.sqrt(self.head_channels)
            weights = torch.stack([queries, self.keys.weight, self.values.weight])
        return weights * self.norm.weight, weights @ self.norm.bias, output


class Head(nn.Module):
    """Allocation logits as inner products of bidder and item vectors; a payment fraction from each bidder vector.

    Projecting after the mean instead of before it is the same, since both are linear, and m or n times cheaper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.bidder_vectors = nn.Linear(channels, channels, bias=False)
        self.item_vectors = nn.Linear(channels, channels, bias=False)
        self.fractions = nn.Linear(channels, 1)

    def forward(self, s: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Sigmoids [n, m, B, h] to the allocation logits [B, n, m] and the payment fractions [B, n]."""
        z = F.layer_norm(s, self.norm.normalized_shape, self.norm.weight, self.norm.bias, _EPS / 4)
        bidders = self.bidder_vectors(mean_over_items(z, mask))
        items = self.item_vectors(mean_over_bidders(z, mask))
        logits = (bidders * items).sum(-1) / math.sqrt(s.shape[-1])
        return logits.permute(2, 0, 1), torch.sigmoid(self.fractions(bidders))[:, 0, :, 0].t()
