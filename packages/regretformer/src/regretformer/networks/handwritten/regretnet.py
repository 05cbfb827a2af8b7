"""RegretNet's utility of a report: two perceptrons, of whose first layer only the columns of the bidder's bids move."""

from collections.abc import Iterable
from itertools import chain, pairwise
from typing import cast

import numpy as np
from torch import Tensor, nn

from regretformer.networks.handwritten.arrays import Array, add_shift, empty, product, take, tanh_backward, to_array
from regretformer.networks.handwritten.utility import ReportUtility, others_seen
from regretformer.networks.regretnet import RegretNet

__all__ = ["RegretNetUtility"]


class RegretNetUtility(ReportUtility):
    """See `ReportUtility`."""

    def __init__(self, network: RegretNet, profiles: Tensor, bidder: int) -> None:
        super().__init__(network, profiles, bidder)
        size, _, items = profiles.shape
        others = others_seen(network, profiles, bidder).flatten(1)
        columns = slice(bidder * items, (bidder + 1) * items)
        self._at_seen = empty(self.seen, *self.seen.shape)
        self._allocation, self._payment = (
            _Perceptron(layers, others, columns, rows, self.seen, output, at_seen)
            for layers, rows, output, at_seen in (
                (network.allocation_layers, slice(None), self.logits.reshape(-1, size), self._at_seen),
                (network.payment_layers, slice(bidder, bidder + 1), self.payment_logit.reshape(1, size), self.seen),
            )
        )

    def forward(self) -> None:
        """See `ReportUtility`."""
        self._allocation.forward()
        self._payment.forward()

    def backward(self) -> None:
        """See `ReportUtility`."""
        self._allocation.backward()
        self._payment.backward()
        np.add(self.seen, self._at_seen, out=self.seen)


class _Perceptron:
    """Linear layers with tanh between them, [inputs, B] to [outputs, B].

    Args:
        layers: the linear layers.
        others: the bids that do not move, and zeros for those that do, [B, inputs].
        columns: of the first weight, for the bids that move.
        rows: of the last weight, for the outputs that matter.
        x: the bids that move, [m, B].
        output: what to fill; holds its derivative on the way back.
        at_x: what to fill on the way back.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        others: Tensor,
        columns: slice,
        rows: slice,
        x: Array,
        output: Array,
        at_x: Array,
    ) -> None:
        first, *between, last = cast("Iterable[nn.Linear]", layers)
        self._constant = to_array(first(others).t())
        self._between = [empty(x, layer.out_features, len(others)) for layer in (first, *between)]
        weights = [to_array(part) for part in (first.weight[:, columns], *(layer.weight for layer in between))]
        weights.append(to_array(last.weight[rows]))
        biases = [to_array(layer.bias) for layer in between] + [to_array(last.bias[rows])]
        sources, targets = [x, *self._between], [*self._between, output]
        self._first, *self._products = (product(*factors) for factors in zip(weights, sources, targets, strict=True))
        self._shifts = [add_shift(part, bias, part) for part, bias in zip(targets[1:], biases, strict=True)]
        slopes = [at_x, *(empty(part, *part.shape) for part in self._between), output]
        products = [
            product(part.T, above, below) for part, (below, above) in zip(weights, pairwise(slopes), strict=True)
        ]
        tanhs = [tanh_backward(x, slope) for x, slope in zip(self._between, slopes[1:-1], strict=True)]
        self._back = [products[-1], *chain(*zip(reversed(tanhs), reversed(products[:-1]), strict=True))]

    def forward(self) -> None:
        self._first()
        np.add(self._between[0], self._constant, out=self._between[0])
        for x, multiply, shift in zip(self._between, self._products, self._shifts, strict=True):
            np.tanh(x, out=x)
            multiply()
            shift()

    def backward(self) -> None:
        take(self._back)
