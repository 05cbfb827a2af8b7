from pathlib import Path

import pytest
import torch
from torch import Tensor

from regretformer.auction import Outcome
from regretformer.maps import plot_allocation, plot_regret, survey
from regretformer.oracles import known_optimum, vcg
from regretformer.setting import parse_setting
from regretformer.valuations import UniformValuations


def pay_what_you_bid(bids: Tensor) -> Outcome:
    """Gains v^2 / 4 per item by reporting v / 2, shared by the bidders."""
    return Outcome(bids / bids.shape[1], bids.square().sum(-1) / bids.shape[1])


@pytest.mark.parametrize("setting", ["1x2", "2x2"])
def test_survey_finds_the_exact_regret(setting: str) -> None:
    parsed = parse_setting(setting)
    maps = survey(pay_what_you_bid, UniformValuations(parsed), torch.Generator().manual_seed(0))
    axis = torch.linspace(0, 1, len(maps.regret))
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    step = 1 / (len(axis) - 1)
    assert torch.allclose(maps.regret, (x.square() + y.square()) / 4 / parsed.bidders, atol=step**2)
    assert torch.allclose(maps.allocation, torch.stack([x, y]) / parsed.bidders, atol=1e-6)
    assert torch.allclose(maps.misreports, torch.stack([x, y]) / 2, atol=step / 2 + 1e-6)


@pytest.mark.parametrize("setting", ["2x2", "1x3"])
def test_survey_of_a_truthful_auction_is_dark(setting: str, tmp_path: Path) -> None:
    optimum = known_optimum(setting)
    mechanism = vcg if optimum is None else optimum.mechanism
    maps = survey(mechanism, UniformValuations(parse_setting(setting)), torch.Generator().manual_seed(0))
    assert maps.regret.max() <= 1e-6
    plot_regret(tmp_path / "regret.png", maps, None, setting)
    assert (tmp_path / "regret.png").stat().st_size > 10_000


def test_survey_uses_the_units_of_the_values(tmp_path: Path) -> None:
    optimum = known_optimum("416x47")
    assert optimum is not None
    maps = survey(optimum.mechanism, UniformValuations(parse_setting("416x47")), torch.Generator().manual_seed(0))
    assert (maps.low, maps.high) == ((4.0, 4.0), (16.0, 7.0))
    corner = maps.allocation[:, -1, 0]  # values 16 and 4: both for 12
    assert corner.tolist() == [1, 1]
    assert maps.allocation[:, 0, -1].tolist() == [0.5, 1]  # values 4 and 7: the lottery for 8
    plot_allocation(tmp_path / "maps" / "allocation.png", maps, optimum, "416x47")
    assert (tmp_path / "maps" / "allocation.png").stat().st_size > 10_000
