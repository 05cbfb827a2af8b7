"""The block of a RegretFormer, with its derivative written out.

Training and every search for misreports spend their time here. Between the layers the block carries s = sigmoid(2 x)
instead of x = tanh = 2 s - 1, which a CPU computes six times as fast; the constants that follow are folded into the
weights. With z the normalised s (mean 0 and variance 1 over the channels, the same for s and x),

    q, k, v = P z + p                        for attention over items and, beside it, over bidders
    t = sigmoid(2 (O mixed + x)),            mixed = softmax(q . k / sqrt(d)) v,   one half of t per attention
    s' = sigmoid(2 (J (2 t - 1) + j + x)).

Entries come first and profiles behind them, [n, m, B, h], so that a bidder or an item is one stretch of memory.
Gradients with respect to the weights are computed only where they are asked for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regretformer.networks.mixing import Projected, mix, mix_backward
from regretformer.networks.network import Context

__all__ = ["Folded", "Options", "attention_block"]

_ATEN = torch.ops.aten
_AXES = (1, 0)  # attention over items, over bidders


class Folded(NamedTuple):
    """The weights of a block as it applies them; h channels, attention of width W.

    A sequence of one entry attends to itself alone, so there P is 2 O V, of which there is one, and O is not used.
    """

    item_projections: Tensor
    """P of the attention over items: queries (divided by sqrt(d)), keys and values, [3, W, h], or [1, h, h]."""
    item_shifts: Tensor
    """p of the attention over items, [3, W] or [1, h]."""
    item_output: Tensor
    """2 O of the attention over items, [h, W]."""
    bidder_projections: Tensor
    """As `item_projections`, over bidders."""
    bidder_shifts: Tensor
    """As `item_shifts`, over bidders."""
    bidder_output: Tensor
    """As `item_output`, over bidders."""
    join: Tensor
    """4 J, [h, 2 h]."""
    offsets: Tensor
    """2 j - 2 J 1 - 2, [h]."""


class Options(NamedTuple):
    """What a block needs besides weights."""

    heads: int
    """H, which share the width W."""
    eps: float
    """Added to the variance of x."""
    items: Tensor | None
    """Which items are there, [B, m]; all if None."""
    bidders: Tensor | None
    """Which bidders are there, [B, n]; all if None."""


def attention_block(s: Tensor, options: Options, weights: Folded) -> Tensor:
    """The block from s [n, m, B, h], which is (x + 1) / 2, to s' [n, m, B, h]."""
    result: Tensor = _Block.apply(s, options, *weights)
    return result


class _Block(torch.autograd.Function):
    """`attention_block`."""

    @staticmethod
    def forward(ctx: Context, s: Tensor, options: Options, *folded: Tensor) -> Tensor:
        weights = Folded(*folded)
        x = s.flatten(0, 2)
        z, mean, scale = torch.native_layer_norm(x, [x.shape[1]], None, None, options.eps / 4)
        t = (4 * x).sub_(2).repeat(1, 2)
        saved: list[Tensor] = []
        for axis, half, there, (projections, shifts, output) in zip(
            _AXES, t.chunk(2, dim=1), (options.items, options.bidders), _sides(weights), strict=True
        ):
            projected = [torch.addmm(shift, z, weight.t()) for shift, weight in zip(shifts, projections, strict=True)]
            if s.shape[axis] == 1:
                half.add_(projected[0])
            else:
                mixed, shares = mix(_by_head(projected, s, options.heads), axis, there)
                half.addmm_(mixed.view_as(projected[0]), output.t())
                saved += [*projected, mixed, shares]
        t.sigmoid_()
        result = torch.add(weights.offsets, x, alpha=4).addmm_(t, weights.join.t()).sigmoid_().view_as(s)
        ctx.save_for_backward(s, z, mean, scale, t, result, *weights, *saved)
        ctx.heads = options.heads
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        s, z, mean, scale, t, result, *rest = ctx.saved_tensors
        weights, saved, asked = Folded(*rest[:8]), rest[8:], ctx.needs_input_grad[2:]
        x = s.flatten(0, 2)
        at_result = _ATEN.sigmoid_backward(gradient, result).flatten(0, 2)
        at_t = _ATEN.sigmoid_backward(at_result @ weights.join, t)
        at_z = torch.zeros_like(z)
        at_weights: list[Tensor | None] = []
        for axis, half, (projections, _, output) in zip(_AXES, at_t.chunk(2, dim=1), _sides(weights), strict=True):
            wanted = asked[len(at_weights)]
            at_output = None
            if s.shape[axis] == 1:
                at_projected: Sequence[Tensor] = [half]
            else:
                (*projected, mixed, shares), saved = saved[:5], saved[5:]
                at_mixed = (half @ output).view_as(mixed)
                at_projected = [
                    part.flatten(3).flatten(0, 2)
                    for part in mix_backward(at_mixed, _by_head(projected, s, ctx.heads), shares, axis)
                ]
                at_output = half.t() @ mixed.view_as(projected[0]) if wanted else None
            for part, weight in zip(at_projected, projections, strict=True):
                at_z.addmm_(part, weight)
            at_weights += [
                torch.stack([part.t() @ z for part in at_projected]) if wanted else None,
                torch.stack([part.sum(0) for part in at_projected]) if wanted else None,
                at_output,
            ]
        at_x = _ATEN.native_layer_norm_backward(at_z, x, [x.shape[1]], mean, scale, None, None, [True, False, False])[0]
        for share in (at_result, *at_t.chunk(2, dim=1)):
            at_x.add_(share, alpha=4)
        at_join = at_result.t() @ t if asked[6] else None
        return at_x.view_as(s), None, *at_weights, at_join, at_result.sum(0) if asked[7] else None


def _sides(weights: Folded) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Projections, shifts and output of the attention over items, and over bidders."""
    return weights[:3], weights[3:6]


def _by_head(projected: Sequence[Tensor], s: Tensor, heads: int) -> Projected:
    """Queries, keys and values [n * m * B, W] as [n, m, B, H, d]."""
    queries, keys, values = (part.view(*s.shape[:3], heads, -1) for part in projected)
    return queries, keys, values
