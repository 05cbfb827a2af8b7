"""What EquivariantNet and RegretFormer share: the order of layers, the first of them, and the logit of "unsold".

Only bidder i's report moves, so the first layer is a constant, what it returns for a report of zero, and, with r the
report and s the mean of r over the items,

    (w_bidders / n) r_j + (w_both / n) s        for everybody,
    w_own r_j + w_items s                       for bidder i besides.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.exchangeable import Exchangeable, entries_first
from regretformer.networks.handwritten.arrays import Array, Step, empty, mean, product, ready, take, to_array
from regretformer.networks.handwritten.utility import ReportUtility, others_seen
from regretformer.networks.regretformer import RegretFormer

__all__ = ["ExchangeableUtility"]


class Layer(Protocol):
    """A layer between the first and the last, [c, n, m, B] to [c, n, m, B]."""

    def forward(self) -> None:
        """Fill its output."""

    def backward(self) -> None:
        """Fill the derivative by what it received, from that by its output."""


class LastLayer(Protocol):
    """What returns the logits."""

    def forward(self, logits: Array, payment_logit: Array) -> None:
        """Fill the logits of the bidders, [n, m, B], and the bidder's payment logit, [B]."""

    def backward(self, at_logits: Array, at_payment_logit: Array) -> None:
        """Fill the derivative by what it received, from those by the logits."""


class ExchangeableUtility(ReportUtility):
    """The utility by a network that keeps channels for every bidder and item; see `ReportUtility`.

    Attributes:
        first: the first layer.
        activation: the step that follows it, in its output's place, and its way back.
        layers: those between the first and the last.
        last: the last.
    """

    activation: tuple[Step, Step]
    layers: Sequence[Layer]
    last: LastLayer

    def __init__(self, network: EquivariantNet | RegretFormer, profiles: Tensor, bidder: int) -> None:
        super().__init__(network, profiles, bidder)
        others = entries_first(others_seen(network, profiles, bidder))
        self.first = FirstLayer(network.input_layer, network.positions(network.input_layer(others)), bidder)

    def forward(self) -> None:
        """See `ReportUtility`."""
        self.first.forward(self.seen)
        self.activation[0]()
        for layer in self.layers:
            layer.forward()
        self.last.forward(self.logits[:-1], self.payment_logit)
        leave_unsold(self.logits)

    def backward(self) -> None:
        """See `ReportUtility`."""
        self.last.backward(leave_unsold_backward(self.logits), self.payment_logit)
        for layer in reversed(self.layers):
            layer.backward()
        self.activation[1]()
        self.first.backward(self.seen)


class FirstLayer:
    """The first layer and the positional encodings.

    Args:
        layer: the first layer.
        others: what it and the encodings return for a report of zero, [n, m, B, c].
        bidder: who deviates.

    Attributes:
        output: [c, n, m, B].
        at_output: where the way back expects the derivative by the output.
    """

    def __init__(self, layer: Exchangeable, others: Tensor, bidder: int) -> None:
        self._others = to_array(others.permute(3, 0, 1, 2))
        channels, bidders, items, size = self._others.shape
        own, over_bidders, over_items, over_both = layer.weights
        everybody = torch.cat([over_bidders, over_both], dim=1) / bidders
        weights = to_array(torch.cat([everybody, torch.cat([own, over_items], dim=1)]))
        self._bidder = bidder
        self._inputs = empty(self._others, 2, items, size)
        self._moved = empty(self._others, 2, channels, items, size)
        self.output, self.at_output = (empty(self._others, *self._others.shape) for _ in range(2))
        inputs, moved = self._inputs.reshape(2, -1), self._moved.reshape(2 * channels, -1)
        self._move = (
            product(weights, inputs, moved),
            ready(torch.add, self._others, self._moved[0][:, None], out=self.output),
        )
        self._back = product(weights.T, moved, inputs)

    def forward(self, seen: Array) -> None:
        """From the report [m, B]."""
        self._inputs[0] = seen
        mean(seen, 0, self._inputs[1, 0])
        self._inputs[1, 1:] = self._inputs[1, 0]
        take(self._move)
        self.output[:, self._bidder] += self._moved[1]

    def backward(self, seen: Array) -> None:
        """Fill with the derivative by the report, [m, B]."""
        np.add.reduce(self.at_output, axis=1, out=self._moved[0])
        self._moved[1] = self.at_output[:, self._bidder]
        self._back()
        np.add(self._inputs[0], self._inputs[1].mean(0), out=seen)


def leave_unsold(logits: Array) -> None:
    """Fill the logit of "unsold", the last of [n + 1, m, B], with minus the sum of the others."""
    np.negative(logits[:-1].sum(0), out=logits[-1])


def leave_unsold_backward(logits: Array) -> Array:
    """The derivative by the logits of the bidders alone, [n, m, B]."""
    at_bidders = logits[:-1]
    at_bidders -= logits[-1]
    return at_bidders
