import pytest
import torch
from gt_core.errors import InputError

from regretformer.auction import Outcome, replace_report, utilities
from regretformer.setting import parse_setting
from regretformer.valuations import UniformValuations


def test_utilities_by_hand() -> None:
    values = torch.tensor([[[0.5, 1.0], [0.25, 0.0]]])
    outcome = Outcome(torch.tensor([[[1.0, 0.5], [0.0, 0.5]]]), torch.tensor([[0.75, 0.1]]))
    assert torch.allclose(utilities(values, outcome), torch.tensor([[0.25, -0.1]]))


def test_replace_report_changes_one_row_only() -> None:
    profiles = torch.arange(12.0).reshape(1, 3, 4)
    replaced = replace_report(profiles, 1, torch.full((1, 4), -1.0))
    assert replaced[0, 1].tolist() == [-1.0] * 4
    assert torch.equal(replaced[:, [0, 2]], profiles[:, [0, 2]])


def test_setting_is_read_as_bidders_by_items() -> None:
    setting = parse_setting("3x10")
    assert (setting.bidders, setting.items, setting.low, setting.high) == (3, 10, (0.0,) * 10, (1.0,) * 10)


@pytest.mark.parametrize("name", ["", "2", "x2", "0x2", "2x0", "-1x2", "2x2x2", "2.0x2", "axb", " 1x2"])
def test_setting_malformed_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="BIDDERSxITEMS with both at least 1"):
        parse_setting(name)


def test_valuations_fill_the_support_and_follow_their_generator() -> None:
    valuations = UniformValuations(parse_setting("2x3"))
    first, second = (valuations.profiles(4000, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (4000, 2, 3)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.allclose(first.mean(0), torch.full((2, 3), 0.5), atol=0.03)
