"""Attention along an axis, and its derivative, on normalised entries z and with the norm's scale and shift folded in.

Entry e of a sequence, one of head h's queries, keys and values being q, k and v, and O its output,

    a_e = sum_h O_h sum_l w_hel v_hl,    w_hel = softmax over l of q_he . k_hl / sqrt(d).

- One entry attends to itself alone: a = O v.
- Two differ by z_1 - z_2, and with tau_he = tanh((q_he . (k_h1 - k_h2)) / (2 sqrt(d))) = 2 w_he1 - 1

      a_e = sum_h O_h (v_h1 + v_h2) / 2 + sum_h tau_he O_h (v_h1 - v_h2) / 2,

  so that, with the products of the weights folded, K_h = Q_h' K_h and O_h V_h act on the difference alone. That pays
  for few heads, whose products of weights are small.
- More, or two with many heads, are multiplied as they stand.

Arrays are [c, n, m, B]; along the axis they are looked at as [c, L, R, B].
"""

import math
from typing import Protocol

import numpy as np
import torch

from regretformer.networks.handwritten.arrays import (
    Array,
    Step,
    add_shift,
    centred,
    empty,
    product,
    ready,
    take,
    tanh_backward,
    to_array,
    weighted_sum,
)
from regretformer.networks.regretformer import Attention

__all__ = ["Along", "attention_along"]

_FEW_HEADS = 2


class Along(Protocol):
    """Attention along one axis."""

    def forward(self) -> None:
        """Fill the output with x + a."""

    def backward(self) -> Array:
        """From the derivative by the output, in its place, that by z, [c, n, m, B]."""


def attention_along(axis: int, layer: Attention, x: Array, z: Array, output: Array, at_output: Array) -> Along:
    """Attention along an axis, as fits its length.

    Args:
        axis: 1 for bidders, 2 for items.
        layer: the weights.
        x: the entries, [c, n, m, B].
        z: the entries, normalised, of the same shape.
        output: x + a, of the same shape.
        at_output: where the derivative by the output will stand.
    """
    length = x.shape[axis]
    if length == 1:
        return _One(layer, x, z, output, at_output)
    kind = _Two if length == 2 and layer.heads <= _FEW_HEADS else _Many
    return kind(axis, layer, x, z, output, at_output)


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)


class _One:
    def __init__(self, layer: Attention, x: Array, z: Array, output: Array, at_output: Array) -> None:
        folded = layer.output.weight @ layer.values.weight
        weight = to_array(centred(folded * layer.norm.weight))
        self._at_z = empty(z, *z.shape)
        self._shift = add_shift(_flat(x), to_array(folded @ layer.norm.bias), _flat(output))
        self._add = product(weight, _flat(z), _flat(output), add=True)
        self._back = product(weight.T, _flat(at_output), _flat(self._at_z))

    def forward(self) -> None:
        self._shift()
        self._add()

    def backward(self) -> Array:
        self._back()
        return self._at_z


class _Two:
    def __init__(self, axis: int, layer: Attention, x: Array, z: Array, output: Array, at_output: Array) -> None:
        heads, channels = layer.heads, len(z)
        on_lead, on_sum, constant = _folded(layer)
        x, self._z, output, at_output = (np.moveaxis(part, axis, 1) for part in (x, z, output, at_output))
        rest = self._z.shape[2:]
        self._at_z = empty(z, *z.shape)
        lead, both, base, self._scratch = (empty(z, channels, *rest) for _ in range(4))
        self._lead, self._sum, self._along_at_z = lead, both, np.moveaxis(self._at_z, axis, 1)
        folded = empty(z, heads * (2 * channels + 1), *rest)
        keys, values, self._offsets = np.split(folded, [heads * channels, 2 * heads * channels])
        keys, values = (part.reshape(heads, channels, *rest) for part in (keys, values))
        self._keys, self._values = keys, values
        self._tau, self._at_tau = tau, at_tau = empty(z, heads, 2, *rest), empty(z, heads, 2, *rest)
        self._at_output = at_output
        self._multiply = (
            product(on_lead, _flat(lead), _flat(folded)),
            product(on_sum, _flat(both), _flat(base)),
            add_shift(_flat(base), constant, _flat(base)),
            ready(torch.add, x, base[:, None], out=output),
        )
        self._mix = weighted_sum(tau[:, None], values[:, :, None], output, add=True)
        tau_of_ends, at_tau_of_ends = (part.swapaxes(0, 1)[:, :, None] for part in (tau, at_tau))
        self._part = weighted_sum(tau_of_ends, at_output.swapaxes(0, 1)[:, None], values)
        self._tanh_back = tanh_backward(tau, at_tau)
        self._back = (
            *weighted_sum(at_tau[:, None], keys[:, :, None], self._along_at_z),
            *weighted_sum(at_tau_of_ends, self._z.swapaxes(0, 1)[:, None], keys),
            ready(torch.add, at_tau[:, 0], at_tau[:, 1], out=self._offsets),
            ready(torch.add, at_output[:, 0], at_output[:, 1], out=base),
            product(on_lead.T, _flat(folded), _flat(lead)),
            product(on_sum.T, _flat(base), _flat(both)),
        )

    def forward(self) -> None:
        first, second = self._z[:, 0], self._z[:, 1]
        np.subtract(first, second, out=self._lead)
        np.add(first, second, out=self._sum)
        take(self._multiply)
        np.einsum("hcrb,cerb->herb", self._keys, self._z, out=self._tau)
        np.add(self._tau, self._offsets[:, None], out=self._tau)
        np.tanh(self._tau, out=self._tau)
        take(self._mix)

    def backward(self) -> Array:
        np.einsum("cerb,hcrb->herb", self._at_output, self._values, out=self._at_tau)
        take(self._part)
        self._tanh_back()
        take(self._back)
        at_first, at_second = self._along_at_z[:, 0], self._along_at_z[:, 1]
        for at_end, combine in ((at_first, np.add), (at_second, np.subtract)):
            combine(self._sum, self._lead, out=self._scratch)
            np.add(at_end, self._scratch, out=at_end)
        return self._at_z


def _folded(layer: Attention) -> tuple[Array, Array, Array]:
    """What acts on the difference, [(2 h + 1) H, h], what on the sum, [h, h], and the constant of a, [h]."""
    scale, norm = 0.5 / math.sqrt(layer.head_channels), layer.norm
    queries, keys, values = (
        part.weight.unflatten(0, (layer.heads, -1)) for part in (layer.queries, layer.keys, layer.values)
    )
    outputs = layer.output.weight.unflatten(1, (layer.heads, -1)).transpose(0, 1)
    seen = centred(scale * (queries * norm.weight).transpose(1, 2) @ keys)
    offsets = scale * (queries @ norm.bias).unsqueeze(1) @ keys
    bought = 0.5 * outputs @ values
    on_lead = torch.cat([centred(part * norm.weight, -1).flatten(0, 1) for part in (seen, bought, offsets)])
    on_sum = centred(bought.sum(0) * norm.weight)
    return to_array(on_lead), to_array(on_sum), to_array(2 * bought.sum(0) @ norm.bias)


class _Many:
    def __init__(self, axis: int, layer: Attention, x: Array, z: Array, output: Array, at_output: Array) -> None:
        norm, width = layer.norm, layer.output.in_features
        queries = layer.queries.weight / math.sqrt(layer.head_channels)
        projections = to_array(centred(torch.cat([queries, layer.keys.weight, layer.values.weight]) * norm.weight))
        outer = to_array(layer.output.weight)
        constant = to_array(layer.output.weight @ (layer.values.weight @ norm.bias))
        projected, at_projected = (empty(z, 3, width, *z.shape[1:]) for _ in range(2))
        mixed, at_mixed, self._at_z = (empty(z, *part.shape) for part in (projected[0], projected[0], z))
        q, k, v, at_q, at_k, at_v, a, at_a = (
            np.moveaxis(part.reshape(layer.heads, -1, *part.shape[1:]), axis + 1, 2)
            for part in (*projected, *at_projected, mixed, at_mixed)
        )
        self._queries, self._keys, self._values, self._at_mixed = q, k, v, at_a
        length, *rest = q.shape[2:]
        self._weights, self._at_weights = (empty(z, layer.heads, length, length, *rest) for _ in range(2))
        self._reduced = empty(z, layer.heads, length, 1, *rest)
        rows, at_rows = (part.reshape(3 * width, -1) for part in (projected, at_projected))
        self._project = (
            product(projections, _flat(z), rows),
            add_shift(rows[:width], to_array(queries @ norm.bias), rows[:width]),
        )
        self._mix = (
            *_mixed(self._weights, v, a),
            add_shift(_flat(x), constant, _flat(output)),
            product(outer, _flat(mixed), _flat(output), add=True),
        )
        turned, at_turned = self._weights.swapaxes(1, 2), self._at_weights.swapaxes(1, 2)
        self._part = (product(outer.T, _flat(at_output), _flat(at_mixed)), *_mixed(turned, at_a, at_v))
        self._back = (
            *_mixed(self._at_weights, k, at_q),
            *_mixed(at_turned, q, at_k),
            product(projections.T, at_rows, _flat(self._at_z)),
        )

    def forward(self) -> None:
        take(self._project)
        weights, reduced = self._weights, self._reduced
        np.einsum("hdirb,hdlrb->hilrb", self._queries, self._keys, out=weights)
        np.subtract(weights, np.maximum.reduce(weights, axis=2, keepdims=True, out=reduced), out=weights)
        np.exp(weights, out=weights)
        np.divide(weights, np.add.reduce(weights, axis=2, keepdims=True, out=reduced), out=weights)
        take(self._mix)

    def backward(self) -> Array:
        take(self._part)
        weights, at_weights = self._weights, self._at_weights
        np.einsum("hdirb,hdlrb->hilrb", self._at_mixed, self._values, out=at_weights)
        np.einsum("hilrb,hilrb->hirb", weights, at_weights, out=self._reduced[:, :, 0])
        np.subtract(at_weights, self._reduced, out=at_weights)
        np.multiply(at_weights, weights, out=at_weights)
        take(self._back)
        return self._at_z


def _mixed(weights: Array, parts: Array, out: Array) -> list[Step]:
    """The steps to out_i = sum_l weights_il parts_l, with weights [H, i, l, R, B] and the others [H, d, ., R, B]."""
    return weighted_sum(np.moveaxis(weights, 2, 0)[:, :, None], np.moveaxis(parts, 2, 0)[:, :, :, None], out)
