"""RegretNet: two perceptrons on the flattened bids (Dütting et al. 2019; published shapes).

One returns (n + 1) x m logits: for each item a softmax over the bidders and "unsold", whose logit is free. The other
returns the n payment fractions. Layers between have 100 units and tanh; weights start Xavier-uniform and biases at
zero. A RegretNet fits one number of bidders and items only, and tells them all apart.

With unit demand there are n x (m + 1) logits more, for each bidder a softmax over the items and "nothing", and the
allocation is the smaller of the two shares.
"""

import itertools
from collections.abc import Iterable
from typing import cast

import torch
from gt_core.errors import InputError
from torch import Tensor, nn

from regretformer.networks.masks import Presence
from regretformer.networks.network import AuctionNetwork, Support, tanh
from regretformer.setting import Demand

__all__ = ["RegretNet", "published_layers"]

_WIDTH = 100


def published_layers(bidders: int, items: int) -> int:
    """Linear layers of each perceptron: 3 up to 2x5, 6 for 3x10; for other settings, by the number of bids.

    Parameters: 21,305 for 1x2; 22,008 for 2x2; 22,711 for 2x3; 24,117 for 2x5; 91,343 for 3x10.
    """
    return 3 if bidders * items <= 10 else 6


class RegretNet(AuctionNetwork):
    """The network.

    Args:
        bidders: n.
        items: m.
        layers: linear layers of each perceptron.
        width: units of the layers between.
        support: see `AuctionNetwork`.
        demand: see `AuctionNetwork`.
    """

    def __init__(
        self,
        bidders: int,
        items: int,
        layers: int,
        *,
        width: int = _WIDTH,
        support: Support | None = None,
        demand: Demand = "additive",
    ) -> None:
        super().__init__(support, demand)
        self.bidders, self.items, self.width = bidders, items, width
        between = [width] * (layers - 1)
        logits = (bidders + 1) * items + (bidders * (items + 1) if demand == "unit" else 0)
        self.allocation_layers = perceptron([bidders * items, *between, logits])
        self.payment_layers = perceptron([bidders * items, *between, bidders])

    def numbers_per_profile(self, bidders: int, items: int) -> int:  # noqa: ARG002 (it has one size)
        """See `AuctionNetwork`."""
        return 2 * self.width

    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n].

        Raises:
            InputError: if the bids have another size than the network, or a mask is given.
        """
        if mask is not None or bids.shape[1:] != (self.bidders, self.items):
            raise InputError(
                f"this RegretNet takes unmasked bids [B, {self.bidders}, {self.items}], got {tuple(bids.shape)}"
                f"{'' if mask is None else ' with a mask'}; equivariantnet and regretformer take any size"
            )
        flat = self.seen(bids).flatten(1)
        logits = run(self.allocation_layers, flat)
        fractions = torch.sigmoid(run(self.payment_layers, flat))
        per_item, per_bidder = logits.tensor_split([(self.bidders + 1) * self.items], dim=1)
        allocation = torch.softmax(per_item.unflatten(1, (self.bidders + 1, self.items)), dim=1)[:, :-1]
        if self.demand == "unit":
            wanted = torch.softmax(per_bidder.unflatten(1, (self.bidders, self.items + 1)), dim=2)[:, :, :-1]
            allocation = torch.minimum(allocation, wanted)
        return allocation, fractions


def perceptron(widths: list[int]) -> nn.ModuleList:
    """Linear layers from each width to the next, Xavier-uniform with zero biases."""
    layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
    for layer in cast("Iterable[nn.Linear]", layers):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


def run(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """The layers one after the other with tanh between them, [B, first] to [B, last]."""
    *between, last = layers
    for layer in between:
        x = tanh(layer(x))
    result: Tensor = last(x)
    return result
