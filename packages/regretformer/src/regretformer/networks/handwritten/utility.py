"""The deviating bidder's utility from what its network's last layer says.

    p_j = softmax over the bidders and "unsold" of item j's logits,    g_j = p_ij,    f = sigmoid(the payment logit)
    u = sum_j g_j v_j - f sum_j g_j r_j

with value v and report r; and back, with a_j = v_j - f r_j,

    du/dlogit_kj = g_j a_j (1 [k = i] - p_kj),    du/dpayment logit = -f (1 - f) sum_j g_j r_j,    du/dr_j = -f g_j.
"""

import abc

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.handwritten.arrays import Array, empty, to_array
from regretformer.networks.network import AuctionNetwork

__all__ = ["ReportUtility", "others_seen"]


class ReportUtility(abc.ABC):
    """The utility of one bidder as a function of its report, the other bids and all weights being fixed.

    Args:
        network: whose outcome; its weights must not change.
        profiles: true values of everybody, [B, n, m].
        bidder: who deviates.

    Attributes:
        logits: of every item for each bidder and "unsold", [n + 1, m, B]; after the way back the derivative by them.
        payment_logit: of the bidder's payment fraction, [B]; after the way back the derivative by it.
        seen: the bidder's report as the layers see it, [m, B]; after the way back the derivative by it.
    """

    def __init__(self, network: AuctionNetwork, profiles: Tensor, bidder: int) -> None:
        size, bidders, items = profiles.shape
        self.bidder = bidder
        self.values = to_array(profiles[:, bidder].t())
        self.low, self.width = _box(network, profiles, bidder)
        self.logits = empty(self.values, bidders + 1, items, size)
        self.payment_logit = empty(self.values, size)
        self.seen = empty(self.values, items, size)

    @abc.abstractmethod
    def forward(self) -> None:
        """Fill the logits, from `seen`."""

    @abc.abstractmethod
    def backward(self) -> None:
        """Fill `seen` with the derivative by it, from those by the logits."""

    def __call__(self, reports: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
        """Utility [B] of reports [B, m], and its gradient [B, m] if it is asked for."""
        own = reports.detach().t().numpy()
        np.divide(own - self.low, self.width, out=self.seen)
        self.forward()
        shares = _softmax(self.logits)
        share = shares[self.bidder].copy()
        fraction = 0.5 * np.tanh(0.5 * self.payment_logit) + 0.5
        bid_worth = (share * own).sum(0)
        utility = torch.from_numpy((share * self.values).sum(0) - fraction * bid_worth)
        if not differentiate:
            return utility, None
        surplus = share * (self.values - fraction * own)
        np.multiply(shares, -surplus, out=self.logits)
        self.logits[self.bidder] += surplus
        np.multiply(fraction * (fraction - 1), bid_worth, out=self.payment_logit)
        self.backward()
        return utility, torch.from_numpy(self.seen / self.width - fraction * share).t()


def others_seen(network: AuctionNetwork, profiles: Tensor, bidder: int) -> Tensor:
    """The bids as the layers see them, [B, n, m], with zeros where the bidder's report goes."""
    seen = network.seen(profiles).clone()
    seen[:, bidder] = 0
    return seen


def _box(network: AuctionNetwork, profiles: Tensor, bidder: int) -> tuple[Array, Array]:
    """Smallest report and width of the box by which the network normalises a bidder's, each [m, 1]."""
    row = profiles.new_zeros(profiles.shape[1:])
    support = network.normalisation
    low, width = (row, row + 1) if support is None else (row + support.low, row + (support.high - support.low))
    return to_array(low[bidder].unsqueeze(1)), to_array(width[bidder].unsqueeze(1))


def _softmax(logits: Array) -> Array:
    """Over the first axis, in place."""
    np.subtract(logits, logits.max(0), out=logits)
    np.exp(logits, out=logits)
    np.divide(logits, logits.sum(0), out=logits)
    return logits
