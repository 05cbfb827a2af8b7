"""What EquivariantNet and RegretFormer share: layers that commute with permutations of bidders and of items.

Entries come first and profiles behind them, [n, m, B, c], so that a bidder or an item is one stretch of memory: a CPU
takes means and differences of such stretches several times as fast.

None of their parameters depends on the number of bidders or items. Where bidders or items are not interchangeable,
positional encodings tell them apart. Nor do means and attention say how many there are, or who bids most: a network for
several settings can be told.
"""

import math

import torch
from gt_core.errors import InputError
from torch import Tensor, nn
from torch.nn import functional as F

from regretformer.networks.masks import Presence, mean_over_bidders, mean_over_items
from regretformer.setting import Demand

__all__ = ["Exchangeable", "InputLayer", "Positions", "entries_first", "highest_rivals", "sell", "sinusoids"]


def entries_first(bids: Tensor) -> Tensor:
    """Bids [B, n, m] as the layers take them, [n, m, B, 1]."""
    return bids.permute(1, 2, 0).unsqueeze(-1).contiguous()


class Exchangeable(nn.Module):
    """Linear layer on [n, m, B, c] that commutes with permutations of bidders and of items (Hartford et al. 2018).

    Each entry sees itself and the means over bidders, over items and over both; only its own weight has a bias.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.over_bidders = nn.Linear(inputs, outputs, bias=False)
        self.over_items = nn.Linear(inputs, outputs, bias=False)
        self.over_both = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, mask: Presence | None = None) -> Tensor:
        """[n, m, B, inputs] to [n, m, B, outputs]."""
        of_item, of_bidder = mean_over_bidders(x, mask), mean_over_items(x, mask)
        overall = mean_over_bidders(of_bidder, mask)
        if self.own.in_features <= 2:  # one product of a few columns is faster than four sums of outer products
            columns = torch.cat([x, of_item.expand_as(x), of_bidder.expand_as(x), overall.expand_as(x)], dim=-1)
            return F.linear(columns, torch.cat(self.weights, dim=1), self.own.bias)
        small: Tensor = self.over_items(of_bidder) + self.over_both(overall)
        return self.own(x).add_(self.over_bidders(of_item)).add_(small)  # type: ignore[no-any-return]

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of the entry and of its means over bidders, items and both, each [outputs, inputs]."""
        return self.own.weight, self.over_bidders.weight, self.over_items.weight, self.over_both.weight


class InputLayer(Exchangeable):
    """The first layer, of the bids or of the bids and their highest rivals.

    Means blur what the known auctions turn on, the highest bid of the others: it decides who wins an item, and what the
    winner pays.

    Args:
        outputs: channels that go out.
        rivals: show the highest rival beside each bid.
    """

    def __init__(self, outputs: int, *, rivals: bool = False) -> None:
        super().__init__(2 if rivals else 1, outputs)
        self.rivals = rivals

    def forward(self, x: Tensor, mask: Presence | None = None) -> Tensor:
        """Bids in the unit box [n, m, B, 1] to [n, m, B, outputs]."""
        return super().forward(torch.cat([x, highest_rivals(x, mask)], dim=-1) if self.rivals else x, mask)


def highest_rivals(x: Tensor, mask: Presence | None = None) -> Tensor:
    """Beside each bid of [n, m, B, 1] the highest that others make for the item; 0 where nobody else is there."""
    if mask is not None:
        x = x * mask.bidders.t()[:, None, :, None]
    if torch.compiler.is_exporting():  # slower, but one formula for any number of bidders
        none = torch.zeros_like(x[:1])
        first, second = torch.cat([x, none, none]).topk(2, dim=0).values
        return torch.where(x == first, second, first)
    if len(x) == 1:
        return torch.zeros_like(x)
    return torch.stack([torch.cat([x[:bidder], x[bidder + 1 :]]).amax(0) for bidder in range(len(x))])


class Positions(nn.Module):
    """What a network is told of its bidders and items besides the bids, added to [n, m, B, c].

    Sinusoidal encodings tell them apart; a linear layer of (ln n, ln m) says how many there are.

    Args:
        channels: c, an even number.
        bidders: how many bidders to tell apart; 0 treats them alike.
        items: how many items to tell apart; 0 treats them alike.
        sizes: say how many bidders and items there are.
    """

    def __init__(self, channels: int, bidders: int, items: int, *, sizes: bool = False) -> None:
        super().__init__()
        self.bidders: Tensor | None
        self.items: Tensor | None
        self.register_buffer("bidders", sinusoids(bidders, channels).unsqueeze(1) if bidders else None)
        self.register_buffer("items", sinusoids(items, channels).unsqueeze(0) if items else None)
        self.sizes = nn.Linear(2, channels, bias=False) if sizes else None

    def forward(self, x: Tensor, mask: Presence | None = None) -> Tensor:
        """[n, m, B, c] to [n, m, B, c].

        Raises:
            InputError: if there are more bidders or items than the network can tell apart.
        """
        bidders, items = x.shape[:2]
        if self.sizes is not None:
            x = x + self.sizes(_log_counts(x, mask))
        if self.bidders is not None:
            x = x + _first(self.bidders, 0, bidders, "bidders")
        return x if self.items is None else x + _first(self.items, 1, items, "items")


def _log_counts(x: Tensor, mask: Presence | None) -> Tensor:
    """Logarithms of how many bidders and items there are in [n, m, B, c]: [2], or [B, 2] by a mask."""
    counts = torch.tensor(x.shape[:2]) if mask is None else torch.stack([side.sum(1) for side in mask], dim=1)
    return counts.double().log().to(x)


def _first(encodings: Tensor, axis: int, count: int, who: str) -> Tensor:
    if count > encodings.shape[axis]:
        raise InputError(
            f"this network tells {encodings.shape[axis]} {who} apart by position, got {count}; "
            f"train one for {count}, or one without positions"
        )
    return encodings.narrow(axis, 0, count).unsqueeze(2)


def sinusoids(length: int, channels: int) -> Tensor:
    """Encodings of the positions 0 .. length - 1, [length, channels].

    Channel 2k holds sin(t / 10000^(2k / channels)) and channel 2k + 1 the cosine (Vaswani et al. 2017, section 3.5).
    """
    if channels % 2:
        raise InputError(f"positional encodings need an even number of channels, got {channels}")
    rates = torch.exp(-math.log(10_000) / channels * torch.arange(0, channels, 2))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def sell(logits: Tensor, mask: Presence | None = None, demand: Demand = "additive") -> Tensor:
    """Allocation from logits, both [B, n, m]: for each item a softmax over the bidders and "unsold".

    The logit of leaving an item unsold is minus the sum of its bidders' logits, as published; with one bidder the
    allocation is then sigmoid(2 logit). With unit demand, no more than the softmax over the items and "nothing" leaves
    to each bidder, of the same logits.
    """
    if demand == "unit":
        turned = None if mask is None else Presence(mask.items, mask.bidders)
        return torch.minimum(sell(logits, mask), sell(logits.transpose(1, 2), turned).transpose(1, 2))
    if mask is None:
        if logits.shape[1] == 1:
            return torch.sigmoid(2 * logits)
        return torch.softmax(torch.cat([logits, -logits.sum(1, keepdim=True)], dim=1), dim=1)[:, :-1]
    absent = ~mask.bidders.unsqueeze(2)
    unsold = -logits.masked_fill(absent, 0.0).sum(1, keepdim=True)
    bidding = logits.masked_fill(absent, -math.inf)
    return torch.softmax(torch.cat([bidding, unsold], dim=1), dim=1)[:, :-1] * mask.items.unsqueeze(1)
