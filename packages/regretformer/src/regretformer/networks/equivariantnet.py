"""EquivariantNet: exchangeable layers with ReLU between them (Rahme et al. 2021; published shapes).

    x0 = relu(Exchangeable(bids)),  x = relu(Exchangeable(x))  L - 2 times         [n, m, B, 32]
    allocation logits = Exchangeable(x),  payment fraction = sigmoid(mean over items of Exchangeable(x))

Per item the allocation is a softmax over the bidders and "unsold", whose logit is minus the sum of theirs. The network
takes any number of bidders and items.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regretformer.networks.exchangeable import Exchangeable, InputLayer, Positions, entries_first, sell
from regretformer.networks.masks import Presence, mean_over_bidders, mean_over_items
from regretformer.networks.network import AuctionNetwork, Support
from regretformer.setting import Demand

__all__ = ["EquivariantNet", "published_layers"]

_CHANNELS = 32


def published_layers(bidders: int, items: int) -> int:
    """Exchangeable layers L: 3 for 1x2 and 2x2, 5 for 2x3, 6 for 2x5 and 3x10; for others, by the number of bids.

    Parameters: 4,546 for 3 layers; 12,802 for 5; 16,930 for 6.
    """
    if bidders * items <= 4:
        return 3
    return 5 if bidders * items <= 6 else 6


class EquivariantNet(AuctionNetwork):
    """The network, a `Mechanism` for any number of bidders and items.

    Args:
        layers: L, counting the first and the last.
        channels: width of the layers between.
        support: see `AuctionNetwork`.
        positions: how many bidders and how many items to tell apart; 0 treats them alike.
        sizes: tell the network how many bidders and items there are.
        rivals: show it the highest rival beside each bid.
        demand: see `AuctionNetwork`.
    """

    def __init__(
        self,
        layers: int,
        *,
        channels: int = _CHANNELS,
        support: Support | None = None,
        positions: tuple[int, int] = (0, 0),
        sizes: bool = False,
        rivals: bool = False,
        demand: Demand = "additive",
    ) -> None:
        super().__init__(support, demand)
        self.input_layer = InputLayer(channels, rivals=rivals)
        self.positions = Positions(channels, *positions, sizes=sizes)
        self.body_layers = nn.ModuleList(Exchangeable(channels, channels) for _ in range(layers - 2))
        self.allocation_layer = Exchangeable(channels, 1)
        self.payment_layer = Exchangeable(channels, 1)

    def numbers_per_profile(self, bidders: int, items: int) -> int:
        """See `AuctionNetwork`."""
        return 4 * bidders * items * self.input_layer.own.out_features

    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payment fractions [B, n] for bids [B, n, m]."""
        x = F.relu(self.positions(self.input_layer(entries_first(self.seen(bids)), mask), mask))
        for layer in self.body_layers:
            x = F.relu(layer(x, mask))
        allocation = sell(self.allocation_layer(x, mask).squeeze(-1).permute(2, 0, 1), mask, self.demand)
        fractions = torch.sigmoid(self._payment_logits(x, mask))
        return allocation, fractions if mask is None else fractions * mask.bidders

    def _payment_logits(self, x: Tensor, mask: Presence | None) -> Tensor:
        """Mean over items of the payment layer, [B, n]; taken before the layer, which is linear."""
        own, over_bidders, over_items, over_both = self.payment_layer.weights
        means = mean_over_items(x, mask)
        overall = F.linear(mean_over_bidders(means, mask), over_bidders + over_both, self.payment_layer.own.bias)
        return (F.linear(means, own + over_items) + overall)[:, 0, :, 0].t()
