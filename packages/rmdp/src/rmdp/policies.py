"""k policies in one network, their critics, and the statistics that normalise observations.

All k policies (and critics) are stacked along the leading dimension of their parameters and evaluated by one batched
matrix product; representative j sees its own rows of the input (k, batch, D). With `trunk="shared"` the hidden layers
are one set of weights for all, with a head each; with `trunk="own"` the policies share nothing, so one user's gradient
never moves another's policy.

- Box actions: a normal distribution around the mean in units where the bounds are -1 and 1, the mean squashed by tanh,
  with a trained standard deviation per policy and action. Samples beyond the bounds act as the bounds do, and their
  probability is that of the sample. Unbounded actions are neither squashed nor scaled.
- Discrete actions: a categorical distribution.
- The critic of representative j estimates the returns of *all* n users under policy j: k critics, or one that is told
  which policy acts.

Observation statistics are shared by all representatives: they move in one process, in the same units, and k times the
data makes the statistics k times as sure.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rmdp.arrays import Array, limited, namespace, to_array
from rmdp.envs.batch import Actions, DiscreteActions, Floats

__all__ = ["OBSERVATION_LIMIT", "Critics", "ObservationMoments", "Policies", "Sharing", "StackedLinear"]

Sharing = Literal["own", "shared"]
OBSERVATION_LIMIT = 5.0
"""How many standard deviations from the mean normalised observations may lie."""


class StackedLinear(nn.Module):
    """`stack` affine maps side by side; one map serves any number of rows when `stack` is 1.

    Args:
        stack: How many maps.
        inputs: Size of the input.
        outputs: Size of the output.
        gain: Scale of the orthogonal initialisation.
        generator: Draws the initial weights.
        told: For how many representatives a single map has a bias each, as if the input ended with the representative's
            number as a one-hot vector; with 0 each map has its own.
    """

    def __init__(
        self, stack: int, inputs: int, outputs: int, gain: float, generator: torch.Generator, told: int = 0
    ) -> None:
        super().__init__()
        sizes = outputs, inputs + told
        weights = torch.stack([nn.init.orthogonal_(torch.empty(sizes), gain, generator).T for _ in range(stack)])
        self.weight = nn.Parameter(weights[:, :inputs].contiguous())
        self.bias = nn.Parameter(weights[0, inputs:, None].contiguous() if told else torch.zeros(stack, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """(k, batch, inputs) to (k, batch, outputs)."""
        stack, _, outputs = self.weight.shape
        if len(self.bias) != stack:
            return inputs @ self.weight + self.bias
        rows = inputs.reshape(stack, -1, inputs.shape[-1])
        return torch.baddbmm(self.bias, rows, self.weight).view(*inputs.shape[:-1], outputs)


def _mlp(
    stacks: tuple[int, int], sizes: tuple[int, ...], gain: float, generator: torch.Generator, told: int = 0
) -> nn.Sequential:
    """Hidden tanh layers, `stacks[0]` of each, and `stacks[1]` linear heads whose weights have this gain."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        linear = StackedLinear(stacks[0], inputs, outputs, math.sqrt(2.0), generator, 0 if layers else told)
        layers += [linear, nn.Tanh()]
    head = StackedLinear(stacks[1], sizes[-2], sizes[-1], gain, generator, 0 if layers else told)
    return nn.Sequential(*layers, head)


class Policies(nn.Module):
    """k stochastic policies.

    Args:
        k: How many.
        observation_size: D.
        actions: The action space.
        hidden: Sizes of the hidden layers.
        trunk: Whether hidden layers are shared.
        sigma: Initial standard deviation of Box actions, in units of half the range.
        generator: Draws the initial weights.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        k: int,
        observation_size: int,
        actions: Actions,
        *,
        hidden: tuple[int, ...],
        trunk: Sharing,
        sigma: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.discrete = isinstance(actions, DiscreteActions)
        outputs = actions.count if isinstance(actions, DiscreteActions) else actions.size
        self.net = _mlp((k if trunk == "own" else 1, k), (observation_size, *hidden, outputs), 0.01, generator)
        if not isinstance(actions, DiscreteActions):
            self.log_sigma = nn.Parameter(torch.full((k, 1, outputs), math.log(sigma)))
            self.register_buffer("low", torch.as_tensor(np.asarray(actions.low, dtype=np.float32)))
            self.register_buffer("high", torch.as_tensor(np.asarray(actions.high, dtype=np.float32)))
            self.bounded = bool((self.low.isfinite() & self.high.isfinite()).all())

    def mode(self, observation: Tensor) -> Tensor:
        """The most probable actions for observations (k, batch, D)."""
        output: Tensor = self.net(observation)
        if self.discrete:
            return output.argmax(-1)
        return torch.tanh(output) if self.bounded else output

    def to_environment(self, action: Array) -> Array:
        """Actions, a tensor or an array, in the environment's units."""
        return self.scaler(namespace(action))(action)

    def scaler(self, xp: ModuleType) -> Callable[[Array], Array]:
        """`to_environment` for many actions of the same kind, NumPy's or torch's."""
        if self.discrete:
            return lambda action: action
        low, high = (part if xp is torch else to_array(part) for part in (self.low, self.high))
        if not self.bounded:
            return lambda action: xp.minimum(xp.maximum(action, low), high)
        half = (high - low) / 2.0

        def scale(action: Array) -> Array:
            scaled = limited(action, 1.0)
            scaled += 1.0
            scaled *= half
            scaled += low
            return scaled

        return scale


class Critics(nn.Module):
    """For each of k representatives, the values of all n users.

    Args:
        k: How many representatives.
        observation_size: D.
        n: How many users.
        hidden: Sizes of the hidden layers.
        sharing: Whether each representative has its own critic, or one is told whose value to estimate.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        k: int,
        observation_size: int,
        n: int,
        *,
        hidden: tuple[int, ...],
        sharing: Sharing = "own",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        stack, told = (k, 0) if sharing == "own" else (1, k)
        self.net = _mlp((stack, stack), (observation_size, *hidden, n), 1.0, generator, told)

    def forward(self, observation: Tensor) -> Tensor:
        """Values (k, batch, n) of normalised observations (k, batch, D)."""
        values: Tensor = self.net(observation)
        return values


class ObservationMoments(nn.Module):
    """Mean and variance of all raw observations so far, merged batch by batch (Chan, Golub and LeVeque 1983).

    Args:
        observation_size: D.
    """

    count: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, observation_size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(observation_size, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(observation_size, dtype=torch.float64))

    def observe(self, observations: Floats) -> None:
        """Take raw observations (..., D) into account."""
        batch = torch.as_tensor(observations, dtype=torch.float64).reshape(-1, len(self.mean)).to(self.mean.device)
        delta, total = batch.mean(0) - self.mean, self.count + len(batch)
        self.square += (batch - batch.mean(0)).square().sum(0) + delta.square() * self.count * len(batch) / total
        self.mean += delta * len(batch) / total
        self.count.copy_(total)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each number, (D,)."""
        return (self.square / self.count.clamp_min(1) + 1e-8).sqrt()

    def normalise(self, observations: Floats) -> Tensor:
        """Raw observations (..., D) to mean 0 and variance 1, within 5 standard deviations; as they are at first."""
        return torch.as_tensor(self.normaliser()(observations))

    def normaliser(self) -> Callable[[Floats], Array]:
        """`normalise` by the present statistics, for many uses."""
        mean, deviation = (to_array(part.float()) for part in (self.mean, self.deviation))
        xp, device, known = namespace(mean), self.mean.device, bool(self.count > 0)

        def normalise(observations: Floats) -> Array:
            view: Array = observations.astype(np.float32)
            view = torch.as_tensor(view, device=device) if xp is torch else view
            if known:
                view -= mean
                view /= deviation
                limited(view, OBSERVATION_LIMIT, out=view)
            return view

        return normalise
