import math

import pytest
import torch
from gt_core.errors import InputError
from torch import Tensor

from regretformer.auction import Outcome
from regretformer.evaluate import EvaluationConfig, evaluate, resolve_attack
from regretformer.oracles import MenuAuction, known_optimum
from regretformer.setting import parse_setting
from regretformer.valuations import UniformValuations


def pay_what_you_bid(bids: Tensor) -> Outcome:
    """Gains v^2 / 4 per item by reporting v / 2, and earns v^2: on average 1/12 and 1/3 per item."""
    return Outcome(bids / bids.shape[1], bids.square().sum(-1) / bids.shape[1])


def valuations(setting: str) -> UniformValuations:
    return UniformValuations(parse_setting(setting))


@pytest.mark.parametrize(
    ("setting", "attack"), [("1x2", "grid"), ("1x2", "strong"), ("2x3", "strong"), ("2x1", "strong")]
)
def test_evaluate_finds_the_exact_regret(setting: str, attack: str) -> None:
    parsed = parse_setting(setting)
    config = EvaluationConfig(attack, 2000, revenue_valuations=200_000, starts=3, steps=60)
    figures = evaluate(pay_what_you_bid, valuations(setting), config)
    assert figures["revenue"] == pytest.approx(parsed.items / 3, rel=0.01)
    assert figures["regret_sum"] == pytest.approx(parsed.items / 12, rel=0.05)
    assert figures["regret_mean"] == pytest.approx(figures["regret_sum"] / parsed.bidders, rel=1e-5)
    assert figures["regret_sum_over_revenue"] == pytest.approx(0.25, rel=0.05)
    assert figures["regret_max"] == pytest.approx(parsed.items / parsed.bidders / 4, rel=0.35)
    low, high = figures["regret_sum_over_revenue_ci"]
    assert low < 0.25 < high


def test_evaluate_is_deterministic_and_its_seed_matters() -> None:
    runs = [evaluate(pay_what_you_bid, valuations("1x1"), EvaluationConfig("grid", 50, 50, seed=s)) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0]["revenue"] != runs[2]["revenue"]


def test_protocol_sees_less_than_there_is() -> None:
    """A gain that no gradient shows: reports above 0.9 pay nothing, all others 0.5, so the regret is 0.5 below 0.9."""

    def cliff(bids: Tensor) -> Outcome:
        return Outcome(torch.ones_like(bids), torch.where(bids[..., 0] > 0.9, 0.0, 0.5))

    honest, published, strong = (
        evaluate(cliff, valuations("1x1"), EvaluationConfig(attack, 1000, 1000, steps=5))
        for attack in ("grid", "protocol", "strong")
    )
    assert honest["regret_sum"] == pytest.approx(0.45, rel=0.05)
    assert published["regret_sum"] == pytest.approx(0.045, rel=0.4)
    assert published["regret_sum"] < strong["regret_sum"] <= honest["regret_sum"] + 1e-6


@pytest.mark.parametrize("setting", ["1x1", "1x2"])
def test_known_optimum_earns_its_revenue_without_regret(setting: str) -> None:
    optimum = known_optimum(setting)
    assert optimum is not None
    figures = evaluate(optimum.mechanism, valuations(setting), EvaluationConfig("grid", 2000, 1_000_000))
    low, high = figures["revenue_ci"]
    assert low - 1e-3 < optimum.revenue < high + 1e-3
    assert figures["regret_max"] <= 1e-6


def test_known_optimum_of_two_items_is_manelli_vincent() -> None:
    optimum = known_optimum("1x2")
    assert optimum is not None
    assert optimum.revenue == pytest.approx(0.54920, abs=5e-6)
    bids = torch.tensor([[[0.9, 0.1]], [[0.1, 0.7]], [[0.6, 0.6]], [[0.6, 0.2]], [[0.9, 0.3]]])
    allocation, payments = optimum.mechanism(bids)
    assert allocation[:, 0].tolist() == [[1, 0], [0, 1], [1, 1], [0, 0], [1, 1]]
    assert payments[:, 0].tolist() == pytest.approx([2 / 3, 2 / 3, (4 - math.sqrt(2)) / 3, 0, (4 - math.sqrt(2)) / 3])


def test_known_optimum_is_none_where_nobody_knows() -> None:
    assert known_optimum("2x2") is None


def test_menu_auction_breaks_ties_for_the_seller() -> None:
    outcome = MenuAuction([[1.0]], [0.5])(torch.tensor([[[0.5]]]))
    assert outcome.payments.item() == 0.5


def test_resolve_attack_takes_the_strongest_that_is_feasible() -> None:
    assert resolve_attack("auto", parse_setting("1x2")) == "grid"
    assert resolve_attack("auto", parse_setting("2x2")) == "strong"
    assert resolve_attack("protocol", parse_setting("1x2")) == "protocol"
    with pytest.raises(InputError, match="one bidder and at most 2 items, not 2x2: use the attack strong"):
        resolve_attack("grid", parse_setting("2x2"))


def test_evaluation_config_refuses_too_few() -> None:
    with pytest.raises(InputError, match="valuations must be at least 2, got 0"):
        EvaluationConfig("grid", 0)
