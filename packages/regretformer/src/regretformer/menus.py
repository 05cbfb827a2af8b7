"""Profiles in groups that share one menu of misreports.

The profiles of a group have the same opponents and differ in one bidder's values. That bidder deviates to the best
report on the group's menu (see `regretformer.misreports`): the group's true values and candidates, compared by forward
passes only, and improved by a few gradient steps if wanted.

Rearranging profiles so is right where a bidder's values say nothing about the others'. Where they do, every profile is
a group of its own. With one bidder all profiles of a batch are one group.
"""

import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Outcome, replace_report
from regretformer.config import TrainConfig
from regretformer.misreports import ascend, best_of_menu, frozen
from regretformer.networks.network import AuctionNetwork
from regretformer.valuations import Valuations

__all__ = ["draw_groups", "group_size", "improve", "screen"]


def group_size(config: TrainConfig, valuations: Valuations) -> int:
    """How many profiles a group has."""
    if valuations.setting.bidders == 1:
        return config.batch
    return config.values_per_group if valuations.independent else 1


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
def screen(network: AuctionNetwork, profiles: Tensor, bidder: int, candidates: Tensor, truthful: Outcome) -> Tensor:
    """The best of each group's true values and candidates for each profile, [G * S, m], by forward passes only.

    Args:
        network: the mechanism.
        profiles: valuation profiles, [G, S, n, m]; along S only the row of `bidder` changes.
        bidder: who deviates.
        candidates: misreports to try in each group besides the S true values, [G, K, m].
        truthful: the mechanism's outcome for the profiles, flattened to [G * S, ...].
    """
    groups, tried, items = candidates.shape
    own = profiles[:, :, bidder]
    opponents = profiles[:, :1].expand(-1, tried, -1, -1)
    deviating = network(replace_report(opponents, bidder, candidates).flatten(0, 1))
    menus = [
        torch.cat([true[:, bidder].unflatten(0, (groups, -1)), other[:, bidder].unflatten(0, (groups, -1))], 1)
        for true, other in zip(truthful, deviating, strict=True)
    ]
    _, index = best_of_menu(own, *menus)
    reports = torch.cat([own, candidates], dim=1).gather(1, index.unsqueeze(-1).expand(-1, -1, items))
    return reports.flatten(0, 1)
