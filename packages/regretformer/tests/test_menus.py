"""Batches in groups, and the best of a menu."""

import dataclasses
import itertools

import pytest
import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Outcome, utilities
from regretformer.config import PRESETS, TrainConfig
from regretformer.deviations import Deviations, gains
from regretformer.menus import draw_groups, group_size, improve, screen
from regretformer.networks.build import build
from regretformer.networks.network import AuctionNetwork
from regretformer.setting import parse_setting
from regretformer.valuations import FunctionValuations, UniformValuations


def network_for(setting: str) -> AuctionNetwork:
    parsed = parse_setting(setting)
    return build("regretformer", parsed.bidders, parsed.items, seed=0)


def config_for(setting: str, **changes: object) -> TrainConfig:
    return dataclasses.replace(PRESETS["smoke"], setting=setting, **changes)  # type: ignore[arg-type]


def groups_for(setting: str, groups: int, size: int, tried: int) -> tuple[Tensor, int, Tensor]:
    """Profiles, the last bidder, who deviates in them, and candidates."""
    parsed, streams = parse_setting(setting), Streams(0)
    bidder = parsed.bidders - 1
    profiles = draw_groups(UniformValuations(parsed), bidder, groups, size, streams)
    return profiles, bidder, torch.rand((groups, tried, parsed.items), generator=streams.torch("candidates"))


@pytest.mark.parametrize(("setting", "size"), [("1x2", 64), ("2x3", 16), ("3x1", 16)])
def test_groups_share_their_opponents(setting: str, size: int) -> None:
    valuations = UniformValuations(parse_setting(setting))
    assert group_size(config_for(setting), valuations) == size
    bidders, items = valuations.setting.bidders, valuations.setting.items
    for bidder in range(bidders):
        profiles = draw_groups(valuations, bidder, 4, size, Streams(0))
        assert profiles.shape == (4, size, bidders, items)
        others = [other for other in range(bidders) if other != bidder]
        assert torch.equal(profiles[:, :, others], profiles[:, :1, others].expand_as(profiles[:, :, others]))
        assert profiles[:, :, bidder].flatten().unique().numel() == 4 * size * items


def draw_twins(count: int, source: torch.Generator) -> Tensor:
    """Two bidders with the same values."""
    return torch.rand((count, 1, 3), generator=source).expand(count, 2, 3)


def test_profiles_of_dependent_bidders_are_never_rearranged() -> None:
    config = config_for("2x3")

    def drawn(*, independent: bool) -> Tensor:
        valuations = FunctionValuations(draw_twins, config.auction, independent=independent)
        size = group_size(config, valuations)
        return draw_groups(valuations, 0, 64 // size, size, Streams(0)).flatten(0, 1)

    profiles = drawn(independent=False)
    assert profiles.shape == (64, 2, 3)
    assert torch.equal(profiles[:, 0], profiles[:, 1])
    rearranged = drawn(independent=True)
    assert (rearranged[:, 0] != rearranged[:, 1]).any(-1).sum() >= 60  # but for the first of each group, at most


@pytest.mark.parametrize("setting", ["1x2", "2x2"])
def test_screen_finds_the_best_of_values_and_candidates(setting: str) -> None:
    """Against every pair of profile and report, one at a time."""
    profiles, bidder, candidates = groups_for(setting, groups=2, size=4, tried=6)
    network = network_for(setting)
    truthful = network(profiles.flatten(0, 1))
    found = screen(network, profiles, bidder, candidates, truthful).unflatten(0, profiles.shape[:2])
    for group, index in itertools.product(range(profiles.shape[0]), range(profiles.shape[1])):
        profile = profiles[group, index]
        reports = torch.cat([profiles[group, :, bidder], candidates[group]])
        gained = []
        for report in (*reports, found[group, index]):
            changed = profile.clone()
            changed[bidder] = report
            gained.append(utilities(profile[None], network(changed[None]))[0, bidder].item())
        assert gained[-1] == pytest.approx(max(gained[:-1]), abs=1e-6)


def test_ascent_never_loses_against_the_screened_report() -> None:
    profiles, bidder, candidates = groups_for("2x2", groups=4, size=16, tried=16)
    network, valuations = network_for("2x2"), UniformValuations(parse_setting("2x2"))
    truthful = network(profiles.flatten(0, 1))
    screened = screen(network, profiles, bidder, candidates, truthful)
    ascended = improve(network, valuations, profiles, bidder, screened, config_for("2x2", ascent_steps=5))
    before, after = (
        gains(network, Deviations(profiles.flatten(0, 1), truthful, {bidder: reports}))[bidder]
        for reports in (screened, ascended)
    )
    assert (after >= before - 1e-6).all()
    assert after.mean() > before.mean()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_gains_are_what_utilities_say() -> None:
    """Bidder 0 of a first-price auction for one item gains v - b by winning at b, and nothing by losing."""

    def first_price(bids: Tensor) -> Outcome:
        wins = torch.zeros_like(bids).scatter(1, bids.argmax(1, keepdim=True), 1.0)
        return Outcome(wins, (wins * bids).sum(-1))

    profiles = torch.tensor([[[0.8], [0.3]], [[0.8], [0.7]], [[0.2], [0.7]]])
    reports = {0: torch.tensor([[0.4], [0.4], [0.9]])}
    (gained,) = gains(first_price, Deviations(profiles, first_price(profiles), reports)).values()
    assert gained.tolist() == pytest.approx([0.4, 0.0, 0.0])  # wins; loses; wins above its value, worse than the truth
