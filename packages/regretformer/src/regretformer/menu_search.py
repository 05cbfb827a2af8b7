"""Misreports from shared menus, on fresh valuations.

Each batch is drawn in groups whose profiles have the same opponents. One bidder deviates, to the best report on its
group's menu (see `regretformer.misreports`): the group's true values and random reports, compared by forward passes
only, and improved by a few gradient steps if wanted. Bidders take turns, so that the regret of one times n estimates
the sum.

Rearranging profiles so is right where a bidder's values say nothing about the others'. Where they do, every profile is
a group of its own.
"""

from typing import Any, NamedTuple

import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Outcome, replace_report
from regretformer.config import TrainConfig
from regretformer.deviations import Deviations
from regretformer.misreports import ascend, best_of_menu, frozen, stratified
from regretformer.networks.network import AuctionNetwork
from regretformer.valuations import Valuations

__all__ = ["Batch", "MenuSearch", "draw_groups", "improve", "screen"]


class Batch(NamedTuple):
    """Profiles in groups that differ in one bidder's values only."""

    profiles: Tensor
    """Valuation profiles, [G, S, n, m]; along S only the deviating bidder's row changes."""
    candidates: Tensor
    """Misreports to try in each group besides the S true values, [G, K, m]."""
    bidder: int
    """Who deviates."""


class MenuSearch:
    """The search.

    Args:
        config: sizes of batch, groups and menus, and how far to ascend.
        valuations: where profiles come from.
        streams: the run's randomness, which the run saves.
    """

    def __init__(self, config: TrainConfig, valuations: Valuations, streams: Streams) -> None:
        self.config, self.valuations, self.streams = config, valuations, streams
        self.batches = 0

    def find(self, network: AuctionNetwork) -> Deviations:
        """The next batch, and the best misreports of the bidder whose turn it is."""
        batch = self.draw(self.batches % self.valuations.setting.bidders)
        self.batches += 1
        profiles = batch.profiles.flatten(0, 1)
        truthful = network(profiles)
        reports = screen(network, batch, truthful)
        reports = improve(network, self.valuations, batch.profiles, batch.bidder, reports, self.config)
        return Deviations(profiles, truthful, {batch.bidder: reports})

    def draw(self, bidder: int) -> Batch:
        """A batch in which `bidder` deviates."""
        groups, valuations = self._groups, self.valuations
        size, tried = self.config.batch // groups, max(1, self.config.candidates // groups)
        profiles = draw_groups(valuations, bidder, groups, size, self.streams)
        unit = stratified((groups,), tried, valuations.setting.items, self.streams.torch("candidates"))
        return Batch(profiles, valuations.scale(unit, bidder), bidder)

    @property
    def _groups(self) -> int:
        """How many different opponents a batch holds."""
        if self.valuations.setting.bidders == 1:
            return 1
        return self.config.batch // (self.config.values_per_group if self.valuations.independent else 1)

    def learn(self, found: Deviations) -> None:
        """Nothing: every batch is fresh."""

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn."""
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.batches = state["batches"]


def draw_groups(valuations: Valuations, bidder: int, groups: int, size: int, streams: Streams) -> Tensor:
    """Fresh profiles [groups, size, n, m]; within a group only the row of `bidder` changes."""
    profiles = valuations.profiles(groups, streams.torch("valuations")).unsqueeze(1)
    if size == 1:
        return profiles
    own = valuations.types(bidder, (groups, size), streams.torch("valuations"))
    return replace_report(profiles.expand(-1, size, -1, -1), bidder, own)


def improve(
    network: AuctionNetwork, valuations: Valuations, profiles: Tensor, bidder: int, reports: Tensor, config: TrainConfig
) -> Tensor:
    """The reports [G * S, m] of `bidder` in profiles [G, S, n, m] after the ascent steps of the config, if any."""
    if config.ascent_steps <= 0:
        return reports
    low, high = valuations.low[bidder], valuations.high[bidder]
    with frozen(network):
        improved, _ = ascend(
            network, profiles.flatten(0, 1), bidder, reports, low, high,
            steps=config.ascent_steps, rate=config.ascent_rate,
        )  # fmt: skip
    return improved


@torch.no_grad()
def screen(network: AuctionNetwork, batch: Batch, truthful: Outcome) -> Tensor:
    """The best of each group's true values and candidates for each profile, [G * S, m], by forward passes only.

    Args:
        network: the mechanism.
        batch: profiles and candidates.
        truthful: the mechanism's outcome for the profiles, flattened to [G * S, ...].
    """
    groups, tried, items = batch.candidates.shape
    own = batch.profiles[:, :, batch.bidder]
    opponents = batch.profiles[:, :1].expand(-1, tried, -1, -1)
    deviating = network(replace_report(opponents, batch.bidder, batch.candidates).flatten(0, 1))
    menus = [
        torch.cat(
            [true[:, batch.bidder].unflatten(0, (groups, -1)), other[:, batch.bidder].unflatten(0, (groups, -1))], 1
        )
        for true, other in zip(truthful, deviating, strict=True)
    ]
    _, index = best_of_menu(own, *menus)
    reports = torch.cat([own, batch.candidates], dim=1).gather(1, index.unsqueeze(-1).expand(-1, -1, items))
    return reports.flatten(0, 1)
