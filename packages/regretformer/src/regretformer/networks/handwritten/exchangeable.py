"""What EquivariantNet and RegretFormer share: the first layer, and the logit of "unsold".

Only bidder i's report moves, so the first layer is a constant, what it returns for a report of zero, and, with r the
report and s the mean of r over the items,

    (w_bidders / n) r_j + (w_both / n) s        for everybody,
    w_own r_j + w_items s                       for bidder i besides.
"""

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.exchangeable import Exchangeable
from regretformer.networks.handwritten.arrays import Array, empty, mean, product, ready, take, to_array

__all__ = ["FirstLayer", "leave_unsold", "leave_unsold_backward"]


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
