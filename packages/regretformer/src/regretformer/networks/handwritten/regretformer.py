"""RegretFormer's utility of a report: first layer, blocks, head.

A norm's scale and shift are folded into the weights behind it, and so is that it takes the mean away: of z, the
normalised entries, the products then pass only gradients whose mean is zero, and with sigma the standard deviation

    dL/dx = (dL/dz - z mean(z dL/dz)) / sigma.

The logits are written as products of the items' means with folded bidders' means.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from regretformer.networks.handwritten.arrays import (
    Array,
    add_shift,
    centred,
    empty,
    mean,
    product,
    ready,
    take,
    tanh_backward,
    to_array,
)
from regretformer.networks.handwritten.attention import attention_along
from regretformer.networks.handwritten.exchangeable import ExchangeableUtility
from regretformer.networks.regretformer import Block, Head, RegretFormer

__all__ = ["RegretFormerUtility"]


class RegretFormerUtility(ExchangeableUtility):
    """See `ReportUtility`."""

    def __init__(self, network: RegretFormer, profiles: Tensor, bidder: int) -> None:
        super().__init__(network, profiles, bidder)
        x, at_x = self.first.output, self.first.at_output
        self.activation = partial(np.tanh, x, out=x), tanh_backward(x, at_x)
        blocks: list[_Block] = []
        for block in cast("Iterable[Block]", network.blocks):
            blocks.append(_Block(block, x, at_x))
            x, at_x = blocks[-1].output, blocks[-1].at_output
        self.layers, self.last = blocks, _Head(network.head, x, at_x, bidder)


class _Norm:
    """z = (x - mean) / sigma over the channels of x [c, n, m, B], without scale and shift, and back in `at_z`.

    The derivative by z has mean zero.
    """

    def __init__(self, x: Array, at_z: Array, eps: float) -> None:
        self._x, self._eps, self.z, self._at_z = x, eps, empty(x, *x.shape), at_z
        self._scale, self._row = scale, row = empty(x, *x.shape[1:]), empty(x, *x.shape[1:])
        self._centre = ready(torch.sub, x, row, out=self.z)
        self._rescale = ready(torch.mul, self.z, scale, out=self.z)
        self._back = (
            ready(torch.addcmul, at_z, self.z, row, out=at_z),
            ready(torch.mul, at_z, scale, out=at_z),
        )

    def forward(self) -> None:
        mean(self._x, 0, self._row)
        self._centre()
        scale = self._scale
        np.einsum("cnmb,cnmb->nmb", self.z, self.z, out=scale)
        np.multiply(scale, 1 / len(self.z), out=scale)
        np.add(scale, self._eps, out=scale)
        np.sqrt(scale, out=scale)
        np.reciprocal(scale, out=scale)
        self._rescale()

    def backward(self) -> None:
        np.einsum("cnmb,cnmb->nmb", self.z, self._at_z, out=self._row)
        np.multiply(self._row, -1 / len(self.z), out=self._row)
        take(self._back)


class _Block:
    """A block, from x to `output`; on the way back from `at_output` to `at_x`, all [c, n, m, B]."""

    def __init__(self, block: Block, x: Array, at_x: Array) -> None:
        self.output, self.at_output = empty(x, *x.shape), empty(x, *x.shape)
        self._at_x, self._halves, self._at_halves = at_x, empty(x, 2, *x.shape), empty(x, 2, *x.shape)
        self._norm = _Norm(x, at_x, block.item_attention.norm.eps)
        self._sides = [
            attention_along(axis, layer, x, self._norm.z, half, at_half)
            for axis, layer, half, at_half in zip(
                (2, 1), (block.item_attention, block.bidder_attention), self._halves, self._at_halves, strict=True
            )
        ]
        join, shift, channels = to_array(block.join.weight), to_array(block.join.bias), len(x)
        halves, at_halves = (part.reshape(2 * channels, -1) for part in (self._halves, self._at_halves))
        flat, output, at_output = (part.reshape(channels, -1) for part in (x, self.output, self.at_output))
        self._join = (add_shift(flat, shift, output), product(join, halves, output, add=True))
        self._back = (
            tanh_backward(self.output, self.at_output),
            product(join.T, at_output, at_halves),
            tanh_backward(self._halves, self._at_halves),
        )

    def forward(self) -> None:
        self._norm.forward()
        for side in self._sides:
            side.forward()
        np.tanh(self._halves, out=self._halves)
        take(self._join)
        np.tanh(self.output, out=self.output)

    def backward(self) -> None:
        take(self._back)
        over_items, over_bidders = (side.backward() for side in self._sides)
        np.add(over_items, over_bidders, out=self._at_x)
        self._norm.backward()
        for part in (self.at_output, *self._at_halves):
            np.add(self._at_x, part, out=self._at_x)


class _Head:
    """Logits b_i . c_j / sqrt(h) of bidder and item vectors, and the bidder's payment logit.

    With means y_i over the items and z_j over the bidders, that is a_i . z_j + s_i for the folded a_i and s_i.
    """

    def __init__(self, head: Head, x: Array, at_x: Array, bidder: int) -> None:
        channels, bidders, items, size = x.shape
        self._norm, self._at_x, self._bidder = _Norm(x, at_x, head.norm.eps), at_x, bidder
        self._of_bidders, self._of_items = empty(x, channels, bidders, size), empty(x, channels, items, size)
        self._folded, self._at_of_items = empty(x, channels + 1, bidders, size), empty(x, channels, items, size)
        weight, shift, self._payment_weight, self._payment_shift = _folded(head)
        folded, of_bidders = (part.reshape(len(part), -1) for part in (self._folded, self._of_bidders))
        self._fold = (product(weight, of_bidders, folded), add_shift(folded, shift, folded))
        self._back = product(weight.T, folded, of_bidders)

    def forward(self, logits: Array, payment_logit: Array) -> None:
        """Fill the logits [n, m, B] and [B]."""
        self._norm.forward()
        mean(self._norm.z, 2, self._of_bidders)
        mean(self._norm.z, 1, self._of_items)
        take(self._fold)
        np.einsum("cib,cjb->ijb", self._folded[:-1], self._of_items, out=logits)
        np.add(logits, self._folded[-1][:, None], out=logits)
        np.matmul(self._payment_weight, self._of_bidders[:, self._bidder], out=payment_logit)
        np.add(payment_logit, self._payment_shift, out=payment_logit)

    def backward(self, at_logits: Array, at_payment_logit: Array) -> None:
        """Fill the derivative by x, [c, n, m, B]."""
        _, bidders, items, _ = self._norm.z.shape
        np.einsum("ijb,cib->cjb", at_logits, self._folded[:-1], out=self._at_of_items)
        np.multiply(self._at_of_items, 1 / bidders, out=self._at_of_items)
        np.einsum("ijb,cjb->cib", at_logits, self._of_items, out=self._folded[:-1])
        np.add.reduce(at_logits, axis=1, out=self._folded[-1])
        self._back()
        self._of_bidders[:, self._bidder] += self._payment_weight[:, None] * at_payment_logit
        np.multiply(self._of_bidders, 1 / items, out=self._of_bidders)
        np.add(self._of_bidders[:, :, None], self._at_of_items[:, None], out=self._at_x)
        self._norm.backward()


def _folded(head: Head) -> tuple[Array, Array, Array, Array]:
    """Weight [h + 1, h] and shift [h + 1] of a_i and s_i, weight [h] and shift of the payment logit."""
    norm, scale = head.norm, 1 / math.sqrt(head.fractions.in_features)
    items = scale * torch.cat([centred(head.item_vectors.weight * norm.weight).t(),
                               (head.item_vectors.weight @ norm.bias).unsqueeze(0)])  # fmt: skip
    bidders = centred(head.bidder_vectors.weight * norm.weight)
    shift = head.bidder_vectors.weight @ norm.bias
    pays = head.fractions.weight[0]
    folded = (items @ bidders, items @ shift, pays @ bidders, pays @ shift + head.fractions.bias)
    weight, constant, payment_weight, payment_shift = (to_array(part) for part in folded)
    return weight, constant, payment_weight, payment_shift
