"""Batches in groups, and the best of a menu."""

import dataclasses
import itertools

import pytest
import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Outcome, utilities
from regretformer.config import PRESETS
from regretformer.deviations import Deviations, gains
from regretformer.menu_search import MenuSearch, screen
from regretformer.networks.build import build
from regretformer.networks.network import AuctionNetwork
from regretformer.setting import parse_setting
from regretformer.valuations import FunctionValuations, UniformValuations


def search_for(setting: str, **changes: object) -> MenuSearch:
    config = dataclasses.replace(PRESETS["smoke"], setting=setting, **changes)  # type: ignore[arg-type]
    return MenuSearch(config, UniformValuations(config.auction), Streams(0))


def network_for(setting: str) -> AuctionNetwork:
    parsed = parse_setting(setting)
    return build("regretformer", parsed.bidders, parsed.items, seed=0)


@pytest.mark.parametrize(("setting", "groups"), [("1x2", 1), ("2x3", 4), ("3x1", 4)])
def test_batch_groups_share_their_opponents(setting: str, groups: int) -> None:
    search, size = search_for(setting), parse_setting(setting)
    for bidder in range(size.bidders):
        profiles, candidates, who = search.draw(bidder)
        assert profiles.shape == (groups, 64 // groups, size.bidders, size.items)
        assert candidates.shape == (groups, 64 // groups, size.items)
        assert who == bidder
        others = [other for other in range(size.bidders) if other != bidder]
        assert torch.equal(profiles[:, :, others], profiles[:, :1, others].expand_as(profiles[:, :, others]))
        assert profiles[:, :, bidder].flatten().unique().numel() == 64 * size.items


def draw_twins(count: int, source: torch.Generator) -> Tensor:
    """Two bidders with the same values."""
    return torch.rand((count, 1, 3), generator=source).expand(count, 2, 3)


def test_profiles_of_dependent_bidders_are_never_rearranged() -> None:
    search = search_for("2x3")
    search.valuations = FunctionValuations(draw_twins, parse_setting("2x3"))
    for _ in range(2):
        found = search.find(network_for("2x3"))
        assert found.profiles.shape == (64, 2, 3)
        assert torch.equal(found.profiles[:, 0], found.profiles[:, 1])
    search.valuations = FunctionValuations(draw_twins, parse_setting("2x3"), independent=True)
    rearranged = search.find(network_for("2x3")).profiles
    assert (rearranged[:, 0] != rearranged[:, 1]).any(-1).sum() >= 60  # but for the first of each group, at most


def test_bidders_take_turns() -> None:
    search, network = search_for("3x1", batch=4, values_per_group=2, candidates=4), network_for("3x1")
    assert [list(search.find(network).reports) for _ in range(4)] == [[0], [1], [2], [0]]


@pytest.mark.parametrize("setting", ["1x2", "2x2"])
def test_screen_finds_the_best_of_values_and_candidates(setting: str) -> None:
    """Against every pair of profile and report, one at a time."""
    search, network = search_for(setting, batch=8, values_per_group=4, candidates=6), network_for(setting)
    batch = search.draw(parse_setting(setting).bidders - 1)
    truthful = network(batch.profiles.flatten(0, 1))
    found = screen(network, batch, truthful).unflatten(0, batch.profiles.shape[:2])
    for group, index in itertools.product(range(batch.profiles.shape[0]), range(batch.profiles.shape[1])):
        profile = batch.profiles[group, index]
        reports = torch.cat([batch.profiles[group, :, batch.bidder], batch.candidates[group]])
        gained = []
        for report in (*reports, found[group, index]):
            changed = profile.clone()
            changed[batch.bidder] = report
            gained.append(utilities(profile[None], network(changed[None]))[0, batch.bidder].item())
        assert gained[-1] == pytest.approx(max(gained[:-1]), abs=1e-6)


def test_ascent_never_loses_against_the_screened_report() -> None:
    screening, ascending, network = search_for("2x2"), search_for("2x2", ascent_steps=5), network_for("2x2")
    (screened,), (ascended,) = (gains(network, search.find(network)).values() for search in (screening, ascending))
    assert (ascended >= screened - 1e-6).all()
    assert ascended.mean() > screened.mean()
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
