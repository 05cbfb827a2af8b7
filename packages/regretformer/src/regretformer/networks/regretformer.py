"""RegretFormer: attention over items and over bidders (paper, section 3.1; published shapes).

    x0 = tanh(Exchangeable(bids))                                        [B, n, m, h]
    x  = tanh(Block(x))                                                  K times
    allocation, payment fraction = Head(x)

A block attends over the m items of each bidder and, beside it, over the n bidders of each item; the two results are
concatenated and projected back to h channels. The network has no parameter that depends on n or m, and commutes with
permutations of bidders and of items.

Per item the allocation is a softmax over the bidders and "unsold", so no item is given twice.

Training and every search for misreports spend their time here, so some steps are rearranged, each exactly: both
attentions share one normalisation, whose scale and shift are folded into the projections; a sequence of one entry
attends to itself; two entries are weighed by the sigmoid of their difference; the head projects means.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regretformer.networks.exchangeable import Exchangeable, Positions, sell
from regretformer.networks.masks import Presence, mean_over_bidders, mean_over_items
from regretformer.networks.network import AuctionNetwork, Support, tanh

__all__ = ["RegretFormer", "Shape", "published_shape"]

_SHORT = 3  # the longest sequence for which broadcasting beats matrix products on a CPU
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
    """

    def __init__(self, shape: Shape, *, support: Support | None = None, positions: tuple[int, int] = (0, 0)) -> None:
        super().__init__(support)
        self.shape = shape
        self.input_layer = Exchangeable(1, shape.channels)
        self.positions = Positions(shape.channels, *positions)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.head = Head(shape.channels)

    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n] for bids [B, n, m]."""
        x = tanh(self.positions(self.input_layer(self.seen(bids).unsqueeze(-1), mask)))
        for block in self.blocks:
            x = tanh(block(x, mask))
        logits, fractions = self.head(x, mask)
        return sell(logits, mask), fractions if mask is None else fractions * mask.bidders


class Block(nn.Module):
    """Item attention beside bidder attention, joined by a linear layer, with a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.item_attention = Attention(shape)
        self.bidder_attention = Attention(shape)
        self.join = nn.Linear(2 * shape.channels, shape.channels)

    def forward(self, x: Tensor, mask: Presence | None = None) -> Tensor:
        """[B, n, m, h] to [B, n, m, h]."""
        z = F.layer_norm(x, x.shape[-1:], eps=_EPS).flatten(0, 2)
        over_items = self.item_attention(z, x, 2, None if mask is None else mask.items)
        over_bidders = self.bidder_attention(z, x, 1, None if mask is None else mask.bidders)
        joined: Tensor = self.join(tanh(torch.cat([over_items, over_bidders], dim=-1)))
        return joined.add_(x)


class Attention(nn.Module):
    """Multi-head self-attention with the norm in front and a residual, along one axis.

    A sequence of length one attends to itself alone: its softmax is 1 and only the value projection remains.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.heads * shape.head_channels
        self.heads, self.head_channels = shape.heads, shape.head_channels
        self.norm = nn.LayerNorm(shape.channels, eps=_EPS)
        self.queries = nn.Linear(shape.channels, width, bias=False)
        self.keys = nn.Linear(shape.channels, width, bias=False)
        self.values = nn.Linear(shape.channels, width, bias=False)
        self.output = nn.Linear(width, shape.channels, bias=False)

    def forward(self, z: Tensor, x: Tensor, axis: int, present: Tensor | None) -> Tensor:
        """The attended [B, n, m, h].

        Args:
            z: x brought to mean 0 and variance 1 over its channels, [B * n * m, h].
            x: [B, n, m, h].
            axis: along which to attend, 1 for bidders or 2 for items.
            present: which of the axis' entries are there, [B, n] or [B, m]; all if None.
        """
        if x.shape[axis] == 1:
            alone = self._project(z, self.output.weight @ self.values.weight)
            return alone.add_(x.flatten(0, 2)).view_as(x)
        joint = self._project(z, torch.cat([self.queries.weight, self.keys.weight, self.values.weight]))
        parts = [part.view(*x.shape[:3], self.heads, self.head_channels) for part in joint.chunk(3, dim=1)]
        queries, keys, values = parts if axis == 2 else [part.transpose(1, 2) for part in parts]
        mixed = mix(queries, keys, values, present)
        mixed = (mixed if axis == 2 else mixed.transpose(1, 2)).reshape(-1, self.output.in_features)
        return F.linear(mixed, self.output.weight).add_(x.flatten(0, 2)).view_as(x)

    def _project(self, z: Tensor, weight: Tensor) -> Tensor:
        """The weight on z after the norm's scale and shift, which are folded into the weight."""
        return F.linear(z, weight * self.norm.weight, weight @ self.norm.bias)


def mix(queries: Tensor, keys: Tensor, values: Tensor, present: Tensor | None = None) -> Tensor:
    """Softmax attention along the third axis.

    Args:
        queries: [B, S, L, H, d].
        keys: [B, S, L, H, d].
        values: [B, S, L, H, d].
        present: which of the L entries are there, [B, L]; all if None.

    Returns:
        [B, S, L, H, d].
    """
    length = queries.shape[2]
    if present is not None or length > _SHORT:
        return mix_long(queries, keys, values, present)
    return mix_pair(queries, keys, values) if length == 2 else mix_short(queries, keys, values)


def mix_pair(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Two entries: the weight of the first is the sigmoid of its score minus the second's."""
    (first_key, second_key), (first, second) = keys.split(1, dim=2), values.split(1, dim=2)
    lead = (queries * (first_key - second_key)).sum(-1, keepdim=True) / math.sqrt(queries.shape[-1])
    mixed: Tensor = second + torch.sigmoid(lead) * (first - second)
    return mixed


def mix_short(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """A few entries, by broadcasting; twice as fast as matrix products of three rows."""
    scores = (queries.unsqueeze(3) * keys.unsqueeze(2)).sum(-1) / math.sqrt(queries.shape[-1])  # [B, S, L, L, H]
    return (torch.softmax(scores, dim=3).unsqueeze(-1) * values.unsqueeze(2)).sum(3)


def mix_long(queries: Tensor, keys: Tensor, values: Tensor, present: Tensor | None = None) -> Tensor:
    """Any number of entries, by matrix products.

    Scores have the keys in front of the queries: a softmax over the last axis would take four times as long on a CPU.
    """
    q, k, v = (part.transpose(2, 3).contiguous() for part in (queries, keys, values))  # [B, S, H, L, d]
    scores = (k @ q.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    if present is not None:
        scores = scores.masked_fill(~present[:, None, None, :, None], -math.inf)
    return (torch.softmax(scores, dim=-2).transpose(-1, -2) @ v).transpose(2, 3)


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

    def forward(self, x: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """[B, n, m, h] to the allocation logits [B, n, m] and the payment fractions [B, n]."""
        z = self.norm(x)
        bidders = self.bidder_vectors(mean_over_items(z, mask).squeeze(2))
        items = self.item_vectors(mean_over_bidders(z, mask).squeeze(1))
        logits = bidders @ items.transpose(1, 2) / math.sqrt(x.shape[-1])
        return logits, torch.sigmoid(self.fractions(bidders)).squeeze(-1)
