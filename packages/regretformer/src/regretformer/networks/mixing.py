"""Softmax attention along one axis of [n, m, B, H, d], and its derivative.

    mixed_i = sum_l w_il v_l,    w_il = softmax over l of q_i . k_l

Two entries are weighed by the sigmoid of the difference of their scores; a few are multiplied by broadcasting, which
beats matrix products of a few rows on a CPU; more by matrix products.
"""

import math

import torch
from torch import Tensor

__all__ = ["Projected", "mix", "mix_backward"]

_SHORT = 3  # the longest sequence that broadcasting multiplies faster
_ATEN = torch.ops.aten

Projected = tuple[Tensor, Tensor, Tensor]
"""Queries (divided by the square root of d), keys and values, each [n, m, B, H, d]."""


def mix(projected: Projected, axis: int, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention along an axis.

    Args:
        projected: queries, keys and values.
        axis: 0 for bidders, 1 for items.
        present: which of the axis' entries are there, bool [B, entries]; all if None.

    Returns:
        The mixed values [n, m, B, H, d], and the weights in the form that `mix_backward` takes.
    """
    length = projected[0].shape[axis]
    if length > _SHORT or present is not None:
        return _mix_long(*projected, axis, present)
    return _mix_pair(*projected, axis) if length == 2 else _mix_short(*projected, axis)


def mix_backward(at_mixed: Tensor, projected: Projected, weights: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values.

    Args:
        at_mixed: gradient of the mixed values, [n, m, B, H, d].
        projected: as given to `mix`.
        weights: as `mix` returned them.
        axis: as given to `mix`.
    """
    if weights.shape[-1] > 1:
        return _long_backward(at_mixed, *projected, weights, axis)
    return (_pair_backward if weights.ndim == 5 else _short_backward)(at_mixed, *projected, weights, axis)


def _ends(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    first, second = x.split(1, dim=axis)
    return first, second


def _lead(x: Tensor, axis: int) -> Tensor:
    """The first entry minus the second."""
    first, second = _ends(x, axis)
    return first - second


def _mix_pair(queries: Tensor, keys: Tensor, values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Weights are those of the first entry, [n, m, B, H, 1]."""
    weights = torch.sigmoid((queries * _lead(keys, axis)).sum(-1, keepdim=True))
    return (weights * _lead(values, axis)).add_(_ends(values, axis)[1]), weights


def _pair_backward(
    at_mixed: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    at_lead = _ATEN.sigmoid_backward((at_mixed * _lead(values, axis)).sum(-1, keepdim=True), weights)
    at_keys, at_values = torch.empty_like(keys), torch.empty_like(values)
    (first_key, second_key), (first, second) = _ends(at_keys, axis), _ends(at_values, axis)
    torch.neg(torch.add(*_ends(at_lead * queries, axis), out=first_key), out=second_key)
    torch.add(*_ends(weights * at_mixed, axis), out=first)
    torch.add(*_ends(at_mixed, axis), out=second).sub_(first)
    return at_lead * _lead(keys, axis), at_keys, at_values


def _mix_short(queries: Tensor, keys: Tensor, values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Weights have the queries along the axis and the keys behind it: [L, L, m, B, H, 1] or [n, L, L, B, H, 1]."""
    behind = axis + 1
    scores = (queries.unsqueeze(behind) * keys.unsqueeze(axis)).sum(-1, keepdim=True)
    weights = torch.softmax(scores, dim=behind)
    return (weights * values.unsqueeze(axis)).sum(behind), weights


def _short_backward(
    at_mixed: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    behind = axis + 1
    at_mixed = at_mixed.unsqueeze(behind)
    at_weights = (at_mixed * values.unsqueeze(axis)).sum(-1, keepdim=True)
    at_scores = _ATEN._softmax_backward_data(at_weights, weights, behind, weights.dtype)
    return (
        (at_scores * keys.unsqueeze(axis)).sum(behind),
        (at_scores * queries.unsqueeze(behind)).sum(axis),
        (weights * at_mixed).sum(axis),
    )


def _rows(x: Tensor, axis: int) -> Tensor:
    """[n, m, B, H, d] with the axis before d, [., B, H, L, d]."""
    return x.movedim(axis, 3).contiguous()


def _mix_long(
    queries: Tensor, keys: Tensor, values: Tensor, axis: int, present: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weights have the keys in front of the queries, [., B, H, L, L].

    A softmax over the last axis would take four times as long on a CPU.
    """
    queries, keys, values = (_rows(part, axis) for part in (queries, keys, values))
    scores = keys @ queries.transpose(-1, -2)
    if present is not None:
        scores = scores.masked_fill(~present[:, None, :, None], -math.inf)
    weights = torch.softmax(scores, dim=-2)
    return (weights.transpose(-1, -2) @ values).movedim(3, axis).contiguous(), weights


def _long_backward(
    at_mixed: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    at_mixed, queries, keys, values = (_rows(part, axis) for part in (at_mixed, queries, keys, values))
    at_weights = values @ at_mixed.transpose(-1, -2)
    at_scores = _ATEN._softmax_backward_data(at_weights, weights, -2, weights.dtype)
    at_queries, at_keys, at_values = at_scores.transpose(-1, -2) @ keys, at_scores @ queries, weights @ at_mixed
    return at_queries.movedim(3, axis), at_keys.movedim(3, axis), at_values.movedim(3, axis)
