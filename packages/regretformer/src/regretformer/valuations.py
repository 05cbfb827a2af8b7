"""Distributions of valuation profiles.

A profile is a tensor [n, m]: the value of each of m items to each of n bidders; a bidder's value for a bundle is the
sum over its items (additive valuations). Reports are confined to a box per bidder and item.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
from gt_core.errors import InputError
from torch import Tensor
from torch.distributions import Distribution

from regretformer.marginals import Marginal, from_torch, uniform
from regretformer.setting import Setting

__all__ = [
    "FunctionValuations",
    "IndependentValuations",
    "UniformValuations",
    "Valuations",
    "require_finite",
    "require_profiles",
]


class Valuations(ABC):
    """Where profiles come from. Samples are float32 and depend on the generator alone.

    Args:
        setting: bidders, items and the box that holds every bidder's values.
        independent: whether a bidder's values say nothing about the others'. Only then may a profile with one row
            replaced by `types` stand for a profile of the distribution.
        device: where samples live; generators must live there too.
        low: smallest value and report per bidder and item, n lists of m; by default the setting's for every bidder.
        high: largest value and report, as `low`.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        independent: bool,
        device: torch.device | None = None,
        low: Sequence[Sequence[float]] = (),
        high: Sequence[Sequence[float]] = (),
    ) -> None:
        self.setting, self.independent = setting, independent
        self.device = device or torch.device("cpu")
        self.low = torch.tensor(low or [setting.low] * setting.bidders, device=self.device)
        self.high = torch.tensor(high or [setting.high] * setting.bidders, device=self.device)

    @abstractmethod
    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` valuation profiles, [count, n, m]."""

    def types(self, bidder: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Values of one bidder, drawn without regard to the others, [*shape, m]."""
        return self.profiles(math.prod(shape), generator)[:, bidder].reshape(*shape, self.setting.items)

    @property
    def bidders_alike(self) -> bool:
        """Whether exchanging two bidders leaves the distribution as it is; False where that is not known."""
        return False

    @property
    def items_alike(self) -> bool:
        """Whether exchanging two items does."""
        return False

    def scale(self, unit: Tensor, bidder: int) -> Tensor:
        """Points of the unit box, [..., m], moved to the bidder's box."""
        return self.low[bidder] + (self.high[bidder] - self.low[bidder]) * unit

    def to(self, device: torch.device) -> Self:
        """The same distribution with samples on another device."""
        moved = copy.copy(self)
        moved.device = device
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved


class UniformValuations(Valuations):
    """Independent values, uniform on the setting's box.

    Args:
        setting: bidders, items and the box.
        device: where samples live.
    """

    def __init__(self, setting: Setting, device: torch.device | None = None) -> None:
        super().__init__(setting, independent=True, device=device)
        row = [uniform(low, high) for low, high in zip(setting.low, setting.high, strict=True)]
        self.marginals = [row] * setting.bidders
        """The distribution of each bidder's value for each item, n lists of m."""

    @property
    def bidders_alike(self) -> bool:
        """Always."""
        return True

    @property
    def items_alike(self) -> bool:
        """Whether all items have the same box."""
        return self.setting.is_symmetric

    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` valuation profiles, [count, n, m]."""
        return self.low + (self.high - self.low) * self._unit((count, *self.low.shape), generator)

    def types(self, bidder: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Values of one bidder, [*shape, m]."""
        return self.scale(self._unit((*shape, self.setting.items), generator), bidder)

    def _unit(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device)


class IndependentValuations(Valuations):
    """Independent values, each bidder's value of each item from its own distribution.

    Args:
        marginals: n lists of m distributions; those of torch must have a bounded support, others need `from_torch` with
            bounds. Repeat one object, as in `[[value] * items] * bidders`, where distributions are the same: sampling
            is then faster, and bidders or items are known to be alike.
        name: of the setting; by default BIDDERSxITEMS.
        device: where samples live.

    Raises:
        InputError: if the lists differ in length, or `from_torch` refuses a distribution.
    """

    def __init__(
        self,
        marginals: Sequence[Sequence[Marginal | Distribution]],
        name: str = "",
        device: torch.device | None = None,
    ) -> None:
        lengths = [len(row) for row in marginals]
        if len(set(lengths)) != 1 or lengths[0] == 0:
            raise InputError(f"every bidder needs one distribution per item; the bidders have {lengths}")
        known = {
            id(entry): entry if isinstance(entry, Marginal) else from_torch(entry) for row in marginals for entry in row
        }
        self.marginals = [[known[id(entry)] for entry in row] for row in marginals]
        """The distribution of each bidder's value for each item, n lists of m."""
        low, high = ([[getattr(entry, side) for entry in row] for row in self.marginals] for side in ("low", "high"))
        hull = tuple(map(min, zip(*low, strict=True))), tuple(map(max, zip(*high, strict=True)))
        setting = Setting(name or f"{len(lengths)}x{lengths[0]}", len(lengths), lengths[0], *hull)
        super().__init__(setting, independent=True, device=device, low=low, high=high)

    @property
    def bidders_alike(self) -> bool:
        """Whether all bidders have the same distribution objects."""
        return all(_identities(row) == _identities(self.marginals[0]) for row in self.marginals)

    @property
    def items_alike(self) -> bool:
        """Whether all items have."""
        columns = [_identities(column) for column in zip(*self.marginals, strict=True)]
        return columns.count(columns[0]) == len(columns)

    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` valuation profiles, [count, n, m]."""
        numbers = self._uniform((count, *self.low.shape), generator).flatten(1)
        drawn = _draw([entry for row in self.marginals for entry in row], numbers)
        return drawn.reshape(count, *self.low.shape).to(self.low).clamp(self.low, self.high)

    def types(self, bidder: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Values of one bidder, [*shape, m]."""
        drawn = _draw(self.marginals[bidder], self._uniform((*shape, self.setting.items), generator))
        return drawn.to(self.low).clamp(self.low[bidder], self.high[bidder])

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device, dtype=torch.float64)


class FunctionValuations(Valuations):
    """Profiles from anybody's function, checked at every draw.

    Args:
        function: takes a count and a torch generator, its only source of randomness; returns profiles [count, n, m].
        setting: bidders, items and the box of values and reports.
        independent: whether the function draws every bidder's values independently of the others'.
        device: where the generator lives and samples go.

    Raises:
        InputError: if what the function returns has another shape, is not finite or lies outside the box.
    """

    def __init__(
        self,
        function: Callable[[int, torch.Generator], object],
        setting: Setting,
        *,
        independent: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(setting, independent=independent, device=device)
        self.function = function
        self.profiles(2, torch.Generator(self.device))  # refuses a bad function now rather than in training

    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` valuation profiles, [count, n, m]."""
        name = getattr(self.function, "__name__", repr(self.function))
        drawn = self.function(count, generator)
        if not isinstance(drawn, Tensor):
            raise InputError(f"{name}(count, generator) must return a tensor of profiles, not {type(drawn).__name__}")
        return require_profiles(drawn.to(self.low), (count, *self.low.shape), self.low, self.high, name)


def _identities(marginals: Sequence[Marginal]) -> list[int]:
    return [id(marginal) for marginal in marginals]


def _draw(marginals: Sequence[Marginal], numbers: Tensor) -> Tensor:
    """Values [..., K] of K distributions from uniform numbers [..., K]; each distinct object is called once."""
    columns: dict[int, list[int]] = {}
    for column, marginal in enumerate(marginals):
        columns.setdefault(id(marginal), []).append(column)
    values = torch.empty_like(numbers)
    for places in columns.values():
        values[..., places] = marginals[places[0]].draw(numbers[..., places])
    return values


def require_profiles(profiles: Tensor, shape: tuple[int, ...], low: Tensor, high: Tensor, source: str) -> Tensor:
    """`profiles`, confined to the box exactly, once they are seen to have the shape and lie in it up to rounding.

    Args:
        profiles: [N, n, m].
        shape: what the shape must be.
        low: smallest value, [n, m].
        high: largest value, [n, m].
        source: who made the profiles, for errors.

    Raises:
        InputError: if they do not, or are not finite.
    """
    if tuple(profiles.shape) != shape:
        raise InputError(f"{source} must give profiles of shape {shape}, got {tuple(profiles.shape)}")
    require_finite(profiles, source)
    slack = 1e-6 * (high - low)
    outside = (profiles < low - slack) | (profiles > high + slack)
    if outside.any():
        row, bidder, item = outside.nonzero()[0].tolist()
        value, least, most = (
            tensor.item() for tensor in (profiles[row, bidder, item], low[bidder, item], high[bidder, item])
        )
        raise InputError(
            f"{source}: profile {row} has value {value:g} for bidder {bidder}, item {item}, "
            f"outside [{least:g}, {most:g}]; widen the setting's low and high"
        )
    return profiles.clamp(low, high)


def require_finite(profiles: Tensor, source: str) -> None:
    """Refuse profiles [N, n, m] that are none or hold a value that is no finite number; `source` names their origin.

    Raises:
        InputError: if so.
    """
    if len(profiles) == 0:
        raise InputError(f"{source} holds no profiles")
    bad = ~profiles.isfinite()
    if bad.any():
        row, bidder, item = bad.nonzero()[0].tolist()
        value = profiles[row, bidder, item].item()
        raise InputError(f"{source}: profile {row} has value {value} for bidder {bidder}, item {item}; remove it")
