"""One representative cut out of the stacked networks: from a raw observation to its most probable action.

    action = low + (clip(tanh(net(clip((o - mean) / deviation))), -1, 1) + 1) / 2 (high - low)     (bounded Box)
    action = argmax net(clip((o - mean) / deviation))                                              (Discrete)

This is all that acts on a user's behalf, small enough to be read, hashed and certified.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rmdp.policies import OBSERVATION_LIMIT, ObservationMoments, Policies, StackedLinear

__all__ = ["Actor"]


class Actor(nn.Module):
    """Deterministic policy of representative j.

    Args:
        policies: The stacked networks.
        moments: Statistics of the observations.
        j: Which one.
    """

    mean: Tensor
    deviation: Tensor
    limit: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policies: Policies, moments: ObservationMoments, j: int) -> None:
        super().__init__()
        self.discrete = policies.discrete
        self.bounded = not policies.discrete and policies.bounded
        self.net = nn.Sequential(*(_own(layer, j) for layer in policies.net))
        seen = bool(moments.count > 0)
        deviation = moments.deviation.float() if seen else torch.ones_like(moments.mean.float())
        self.register_buffer("mean", moments.mean.float().clone())
        self.register_buffer("deviation", deviation)
        self.register_buffer("limit", torch.tensor(OBSERVATION_LIMIT if seen else torch.inf))
        if not self.discrete:
            self.register_buffer("low", policies.low.clone())
            self.register_buffer("high", policies.high.clone())

    def forward(self, observation: Tensor) -> Tensor:
        """Raw observations (B, D) to actions (B, A) or (B,), in the environment's units."""
        view = torch.clamp((observation - self.mean) / self.deviation, -self.limit, self.limit)
        output: Tensor = self.net(view)
        if self.discrete:
            return output.argmax(-1)
        if not self.bounded:
            return torch.minimum(torch.maximum(output, self.low), self.high)
        return self.low + (torch.tanh(output) + 1.0) / 2.0 * (self.high - self.low)


def _own(layer: nn.Module, j: int) -> nn.Module:
    """Row j of a stacked layer; the only row where all share it."""
    if not isinstance(layer, StackedLinear):
        return nn.Tanh()
    row: dict[str, Any] = {
        "weight": layer.weight[j % len(layer.weight)].detach().T.contiguous(),
        "bias": layer.bias[j % len(layer.bias), 0].detach().clone(),
    }
    linear = nn.Linear(row["weight"].shape[1], row["weight"].shape[0])
    linear.load_state_dict(row)
    return linear
