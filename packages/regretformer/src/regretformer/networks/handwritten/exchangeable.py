"""What EquivariantNet and RegretFormer share: the order of layers, the first of them, and the logit of "unsold".

Only bidder i's report moves, so the first layer is a constant, what it returns for a report of zero, and, with r the
report and s the mean of r over the items,

    (w_bidders / n) r_j + (w_both / n) s        for everybody,
    w_own r_j + w_items s                       for bidder i besides.

If it is shown the highest rivals, r comes with a rise of (r_j - o_kj)^+ in those of the others, o_kj being the highest
among the bids of all but i and k, and the layer is linear in those rises, too.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.exchangeable import InputLayer, entries_first, highest_rivals
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
        layer = network.input_layer
        without_report = network.positions(layer(others))
        self.first = (
            FirstLayerOfRivals(layer, without_report, bidder, highest_rivals(others))
            if layer.rivals
            else FirstLayer(layer, without_report, bidder)
        )

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

    def __init__(self, layer: InputLayer, others: Tensor, bidder: int) -> None:
        self._others = to_array(others.permute(3, 0, 1, 2))
        channels, bidders, items, size = self._others.shape
        own, over_bidders, over_items, over_both = (weight[:, :1] for weight in layer.weights)
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


class FirstLayerOfRivals(FirstLayer):
    """The first layer that is shown the highest rivals, and the positional encodings; see `FirstLayer`.

    Args:
        layer: see `FirstLayer`.
        others: see `FirstLayer`.
        bidder: see `FirstLayer`.
        rivals: the highest for a report of zero, [n, m, B, 1].
    """

    def __init__(self, layer: InputLayer, others: Tensor, bidder: int, rivals: Tensor) -> None:
        super().__init__(layer, others, bidder)
        self._rivals = to_array(rivals[..., 0])
        self._rivals[bidder] = np.inf  # the bidder's own rival does not move
        self._rises = empty(self._rivals, 4, *self._rivals.shape)
        rises, output, at_output = (x.reshape(len(x), -1) for x in (self._rises, self.output, self.at_output))
        weights = to_array(torch.cat([weight[:, 1:] for weight in layer.weights], dim=1))
        self._raise = product(weights, rises, output, add=True)
        self._lower = product(weights.T, at_output, rises)

    def forward(self, seen: Array) -> None:
        """See `FirstLayer`."""
        super().forward(seen)
        rises = self._rises
        np.maximum(seen - self._rivals, 0, out=rises[0])
        rises[1], rises[2] = rises[0].mean(0), rises[0].mean(1, keepdims=True)
        rises[3] = rises[1].mean(1, keepdims=True)
        self._raise()

    def backward(self, seen: Array) -> None:
        """See `FirstLayer`."""
        rises = self._rises
        raised = seen > self._rivals
        super().backward(seen)
        self._lower()
        rises[1] += rises[3].mean(1, keepdims=True)
        rises[0] += rises[1].mean(0)
        rises[0] += rises[2].mean(1, keepdims=True)
        seen += (rises[0] * raised).sum(0)


def leave_unsold(logits: Array) -> None:
    """Fill the logit of "unsold", the last of [n + 1, m, B], with minus the sum of the others."""
    np.negative(logits[:-1].sum(0), out=logits[-1])


def leave_unsold_backward(logits: Array) -> Array:
    """The derivative by the logits of the bidders alone, [n, m, B]."""
    at_bidders = logits[:-1]
    at_bidders -= logits[-1]
    return at_bidders
