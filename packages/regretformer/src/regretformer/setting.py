"""An auction setting: how many bidders, how many items, and where valuations may lie.

Settings are written as in the paper: `2x3` is two bidders and three items with values in [0, 1]. `416x47` is the
paper's asymmetric setting: one bidder whose values lie in [4, 16] for the first item and in [4, 7] for the second.
`2x3..3x7` is the mixture of all settings with 2 to 3 bidders and 3 to 7 items.
`2x3-unit` is 2x3 with unit demand: a bidder has use for one item at most, so its value of a bundle is that of the best
item in it (Dütting et al. 2019). Then a mechanism gives each bidder at most one item, and utilities stay as they are.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

from gt_core.errors import InputError

__all__ = ["Demand", "Setting", "parse_setting", "parse_settings"]

Demand = Literal["additive", "unit"]
"""Whether a bidder wants all items or one."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Bidders, items and the box that holds every bidder's values.

    Raises:
        InputError: if there are no bidders or items, or the box is empty, infinite or of another number of items.
    """

    name: str
    """As the user writes it."""
    bidders: int
    """How many bidders, n."""
    items: int
    """How many items, m."""
    low: tuple[float, ...]
    """Smallest value of each item to any bidder, length m."""
    high: tuple[float, ...]
    """Largest value of each item to any bidder, length m."""
    demand: Demand = "additive"
    """Whether a bidder's value of a bundle is the sum over its items, or that of the best one."""

    def __post_init__(self) -> None:
        if min(self.bidders, self.items) < 1:
            raise InputError(f"bidders and items must be at least 1, got {self.bidders} and {self.items}")
        if not len(self.low) == len(self.high) == self.items:
            raise InputError(f"low and high need one number per item, {self.items}, got {self.low} and {self.high}")
        for item, (low, high) in enumerate(zip(self.low, self.high, strict=True), start=1):
            if not -math.inf < low < high < math.inf:
                raise InputError(f"values of item {item} must lie between finite low < high, got {low} and {high}")

    @property
    def is_symmetric(self) -> bool:
        """Whether all items have the same box."""
        return len(set(zip(self.low, self.high, strict=True))) == 1

    def within(self, low: Sequence[float], high: Sequence[float]) -> "Setting":
        """This setting with another box; a single number holds for all items.

        Raises:
            InputError: if the box is refused by the setting.
        """
        lows, highs = (tuple(map(float, side)) * (self.items if len(side) == 1 else 1) for side in (low, high))
        return dataclasses.replace(self, low=lows, high=highs)


_NAMED = {"416x47": Setting("416x47", 1, 2, (4.0, 4.0), (16.0, 7.0))}


def parse_setting(name: str) -> Setting:
    """The setting called `name`.

    Raises:
        InputError: if it is not of the form NxM with N, M at least 1.
    """
    if name in _NAMED:
        return _NAMED[name]
    match = re.fullmatch(r"(\d+)x(\d+)(-unit)?", name)
    if match is None or min(int(size) for size in match.groups()[:2]) < 1:
        raise InputError(f"setting must be BIDDERSxITEMS with both at least 1, such as 2x3 or 2x3-unit; got {name!r}")
    bidders, items = (int(size) for size in match.groups()[:2])
    demand: Demand = "unit" if match[3] else "additive"
    return Setting(name, bidders, items, (0.0,) * items, (1.0,) * items, demand)


def parse_settings(text: str) -> tuple[Setting, ...]:
    """The setting called `text`, or all those of a mixture FIRST..LAST, smallest first.

    Raises:
        InputError: if a setting does not exist, or FIRST has more bidders or items than LAST.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return (parse_setting(text),)
    if {first, last} & set(_NAMED):
        raise InputError(f"a mixture reaches from one BIDDERSxITEMS to another, such as 2x3..3x7; got {text!r}")
    start, end = parse_setting(first), parse_setting(last)
    if start.demand != end.demand:
        raise InputError(f"a mixture has one kind of demand; {text!r} has both")
    if start.bidders > end.bidders or start.items > end.items:
        raise InputError(f"a mixture begins with its smallest setting; {text!r} is the other way round")
    return tuple(
        parse_setting(f"{bidders}x{items}{'-unit' if start.demand == 'unit' else ''}")
        for bidders in range(start.bidders, end.bidders + 1)
        for items in range(start.items, end.items + 1)
    )
