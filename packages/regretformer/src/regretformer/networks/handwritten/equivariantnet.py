"""EquivariantNet's utility of a report: exchangeable layers with ReLU between them.

The derivative of an exchangeable layer is the layer with the transposed weights: what came in from a mean goes back as
a mean. The last two layers have one channel, so there the products come before the means.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.exchangeable import Exchangeable
from regretformer.networks.handwritten.arrays import (
    Array,
    add_shift,
    empty,
    mean,
    product,
    ready,
    relu,
    relu_backward,
    take,
    to_array,
)
from regretformer.networks.handwritten.exchangeable import ExchangeableUtility

__all__ = ["EquivariantNetUtility"]


class EquivariantNetUtility(ExchangeableUtility):
    """See `ReportUtility`."""

    def __init__(self, network: EquivariantNet, profiles: Tensor, bidder: int) -> None:
        super().__init__(network, profiles, bidder)
        x, at_x = self.first.output, self.first.at_output
        self.activation = relu(x), relu_backward(x, at_x)
        layers: list[_Layer] = []
        for layer in cast("Iterable[Exchangeable]", network.body_layers):
            layers.append(_Layer(layer, x, at_x))
            x, at_x = layers[-1].output, layers[-1].at_output
        self.layers, self.last = layers, _LastLayers(network, x, at_x, bidder)


class _Layer:
    """relu(Exchangeable(x)) in `output`; on the way back from `at_output` to `at_x`, all [c, n, m, B]."""

    def __init__(self, layer: Exchangeable, x: Array, at_x: Array) -> None:
        self.output, self.at_output = empty(x, *x.shape), empty(x, *x.shape)
        weights = layer.weights
        self._forward = _Exchange(weights, x, self.output)
        self._backward = _Exchange([weight.t() for weight in weights], self.at_output, at_x)
        flat = self.output.reshape(len(x), -1)
        self._shift = add_shift(flat, to_array(layer.own.bias), flat)
        self._relu, self._relu_back = relu(self.output), relu_backward(self.output, self.at_output)

    def forward(self) -> None:
        self._forward()
        self._shift()
        self._relu()

    def backward(self) -> None:
        self._relu_back()
        self._backward()


class _Exchange:
    """The linear part of an exchangeable layer, from [c, n, m, B] to [c, n, m, B]."""

    def __init__(self, weights: Sequence[Tensor], x: Array, out: Array) -> None:
        channels, bidders, items, size = x.shape
        own, over_bidders, over_items, over_both = weights
        self._x = x
        self._of_item, item = empty(x, channels, items, size), empty(x, channels, items, size)
        self._of_bidder, bidder = empty(x, 2, channels, bidders, size), empty(x, channels, bidders, size)
        of_item, from_item, from_bidder = (part.reshape(channels, -1) for part in (self._of_item, item, bidder))
        self._steps = (
            product(to_array(own), x.reshape(channels, -1), out.reshape(channels, -1)),
            product(to_array(over_bidders), of_item, from_item),
            product(
                to_array(torch.cat([over_items, over_both], dim=1)),
                self._of_bidder.reshape(2 * channels, -1),
                from_bidder,
            ),
            ready(torch.add, out, item[:, None], out=out),
            ready(torch.add, out, bidder[:, :, None], out=out),
        )

    def __call__(self) -> None:
        of_bidder, overall = self._of_bidder
        mean(self._x, 1, self._of_item)
        mean(self._x, 2, of_bidder)
        mean(of_bidder, 1, overall[:, 0])
        overall[:, 1:] = overall[:, :1]
        take(self._steps)


class _LastLayers:
    """The layers that return the logits of the allocation and the bidder's payment logit.

    From one product with six rows: the allocation layer's four weights; the payment layer's weights of what the bidder
    and what everybody is seen to bid.
    """

    def __init__(self, network: EquivariantNet, x: Array, at_x: Array, bidder: int) -> None:
        channels, bidders, items, size = x.shape
        own, over_bidders, over_items, over_both = network.payment_layer.weights
        rows = torch.cat([*network.allocation_layer.weights, own + over_items, over_bidders + over_both])
        weights = to_array(rows)
        self._shift, self._payment_shift = (
            to_array(layer.own.bias) for layer in (network.allocation_layer, network.payment_layer)
        )
        self._bidder, self._rows = bidder, empty(x, len(rows), bidders, items, size)
        flat = self._rows.reshape(len(rows), -1)
        self._multiply = product(weights, x.reshape(channels, -1), flat)
        self._back = product(weights.T, flat, at_x.reshape(channels, -1))

    def forward(self, logits: Array, payment_logit: Array) -> None:
        """Fill the logits [n, m, B] and [B]."""
        self._multiply()
        own, over_bidders, over_items, over_both, own_bids, all_bids = self._rows
        small = over_items.mean(1, keepdims=True) + (over_both.mean((0, 1)) + self._shift)
        np.add(own, over_bidders.mean(0), out=logits)
        np.add(logits, small, out=logits)
        np.add(own_bids[self._bidder].mean(0), all_bids.mean((0, 1)) + self._payment_shift, out=payment_logit)

    def backward(self, at_logits: Array, at_payment_logit: Array) -> None:
        """Fill the derivative by x."""
        own, over_bidders, over_items, over_both, own_bids, all_bids = self._rows
        own[:] = at_logits
        over_bidders[:] = at_logits.mean(0)
        over_items[:] = at_logits.mean(1, keepdims=True)
        over_both[:] = over_items[:, 0].mean(0)
        own_bids[:] = 0
        own_bids[self._bidder] = at_payment_logit / own.shape[1]
        all_bids[:] = own_bids[self._bidder, 0] / len(own)
        self._back()
