import dataclasses
import math

import pytest
import torch
from gt_core.errors import InputError
from torch import Tensor

from regretformer.attacks import strong_misreports
from regretformer.auction import Outcome, replace_report, utilities
from regretformer.evaluate import EvaluationConfig, evaluate, regret_figures, resolve_attack, score
from regretformer.misreports import ascend, frozen
from regretformer.networks.build import build
from regretformer.oracles import MenuAuction, known_optimum
from regretformer.setting import parse_setting
from regretformer.valuations import UniformValuations


def pay_what_you_bid(bids: Tensor) -> Outcome:
    """Gains v^2 / 4 per item by reporting v / 2, and earns v^2: on average 1/12 and 1/3 per item."""
    return Outcome(bids / bids.shape[1], bids.square().sum(-1) / bids.shape[1])


def valuations(setting: str) -> UniformValuations:
    return UniformValuations(parse_setting(setting))


@pytest.mark.parametrize(
    ("setting", "attack"),
    [("1x2", "grid"), ("1x2", "strong"), ("2x3", "strong"), ("2x1", "strong"), ("2x1", "grid"), ("2x3", "item-grid")],
)
def test_evaluate_finds_the_exact_regret(setting: str, attack: str) -> None:
    parsed = parse_setting(setting)
    config = EvaluationConfig(
        attack, 2000, revenue_valuations=200_000, starts=3, steps=60, protocol_valuations=2, item_resolution=101
    )
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


@pytest.mark.parametrize("setting", ["1x1", "1x2", "1x2-unit"])
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


@pytest.mark.parametrize(
    ("setting", "options", "message"),
    [
        (
            "2x2",
            {"attack": "grid"},
            r"grid_resolution 201 and valuations 1000 needs 80,802,000 .* use the attack strong",
        ),
        ("1x4", {"attack": "grid"}, r"on 1x4 with grid_resolution 201 .* lower grid_resolution, or use the attack"),
        ("3x10", {"attack": "item-grid", "item_resolution": 1001}, "lower item_resolution or valuations"),
    ],
)
def test_evaluate_refuses_a_grid_too_large_to_search(setting: str, options: dict[str, object], message: str) -> None:
    def never(bids: Tensor) -> Outcome:
        raise AssertionError

    with pytest.raises(InputError, match=message):
        evaluate(never, valuations(setting), EvaluationConfig(valuations=1000, **options))


def test_item_grid_stays_where_the_grid_is_exhaustive() -> None:
    """Where items do not interact, item by item is as good as all at once; where they do, it is a lower bound."""

    def both_or_nothing(bids: Tensor) -> Outcome:
        """Half price to whoever reports more than 1/2 for both items: no single item's report changes anything."""
        half_price = (bids > 0.5).all(-1)
        return Outcome(torch.ones_like(bids), torch.where(half_price, 0.5, 1.0))

    found = {
        (name, attack): evaluate(
            mechanism,
            valuations("1x2"),
            EvaluationConfig(attack, 500, 1000, grid_resolution=21, item_resolution=21, protocol_valuations=2),
        )["regret_sum"]
        for name, mechanism in (("apart", pay_what_you_bid), ("joint", both_or_nothing))
        for attack in ("grid", "item-grid")
    }
    assert found["apart", "item-grid"] == pytest.approx(found["apart", "grid"], rel=0.01)
    assert found["joint", "grid"] == pytest.approx(0.375, rel=0.1)  # 1/2, unless both values are above 1/2
    assert found["joint", "item-grid"] == pytest.approx(0.25, rel=0.2)  # where one value already is


def test_score_is_what_is_left_of_the_revenue() -> None:
    assert score(0.64, 0.04) == pytest.approx(0.36)  # (0.8 - 0.2)^2
    assert score(0.5, 0.0) == pytest.approx(0.5)
    assert score(0.1, 0.2) == 0.0


def test_regret_figures_by_hand() -> None:
    regret = torch.tensor([[0.0, 0.4], [0.2, 0.0], [0.1, 0.1], [0.1, 0.3]])  # sums .4 .2 .2 .4
    figures = regret_figures(regret, revenue=2.0)
    assert figures["regret_sum"] == pytest.approx(0.3)
    assert figures["regret_mean"] == pytest.approx(0.15)
    assert figures["regret_per_bidder"] == pytest.approx([0.1, 0.2])
    error = 1.96 * math.sqrt(0.04 / 3) / 2  # the sums' sample variance is 4 * 0.1^2 / 3
    assert figures["regret_sum_ci"] == pytest.approx([0.3 - error, 0.3 + error])
    assert figures["regret_sum_over_revenue_ci"] == pytest.approx([(0.3 - error) / 2, (0.3 + error) / 2])
    assert figures["regret_mean_ci"] == pytest.approx([(0.3 - error) / 2, (0.3 + error) / 2])
    first, _ = figures["regret_per_bidder_ci"]
    assert first == pytest.approx([0.1 - 1.96 * math.sqrt(0.02 / 3) / 2, 0.1 + 1.96 * math.sqrt(0.02 / 3) / 2])
    assert figures["regret_max"] == pytest.approx(0.4)
    assert (1 - figures["regret_max_exceeded"]) ** 4 == pytest.approx(0.05)


def test_quantile_intervals_hold_the_quantile() -> None:
    """Of a known distribution: the 90 % quantile of a uniform number is 0.9, and 95 in 100 intervals should hold it."""
    numbers = torch.rand(400, 1000, 1, generator=torch.Generator().manual_seed(0))
    intervals = [regret_figures(sample, 1.0)["regret_quantiles_ci"][1] for sample in numbers]
    assert 0.92 < sum(low <= 0.9 <= high for low, high in intervals) / 400 < 0.98


def test_evaluate_sets_the_protocol_beside_the_honest_figure() -> None:
    config = EvaluationConfig("strong", 50, 1000, starts=2, steps=20, protocol_valuations=10)
    figures = evaluate(pay_what_you_bid, valuations("2x2"), config)
    alone = evaluate(pay_what_you_bid, valuations("2x2"), dataclasses.replace(config, attack="protocol", valuations=10))
    assert figures["protocol_n_valuations"] == 10
    assert figures["protocol_regret_mean"] == alone["regret_mean"]
    assert figures["protocol_regret_sum_over_revenue_ci"] == alone["regret_sum_over_revenue_ci"]
    assert alone["protocol_regret_mean"] == alone["regret_mean"]
    assert alone["protocol_n_valuations"] == 10
    assert figures["score"] == score(figures["revenue"], figures["regret_sum"])
    low, high = figures["score_ci"]
    assert low < figures["score"] < high


def test_strong_is_at_least_as_good_as_each_of_its_starts_alone() -> None:
    network, profiles = (
        build("regretformer", 2, 2, seed=0),
        valuations("2x2").profiles(8, torch.Generator().manual_seed(1)),
    )
    generator = torch.Generator().manual_seed(2)
    with frozen(network):
        reports, utility = strong_misreports(network, valuations("2x2"), profiles, 1, 6, 10, generator)
        generator.manual_seed(2)
        own, box = profiles[:, 1], (torch.zeros(2), torch.ones(2))
        starts = [own, 0.8 * own, torch.zeros_like(own), torch.full_like(own, 0.5)]
        starts += [torch.rand(8, 2, generator=generator) for _ in range(2)]
        alone = [ascend(network, profiles, 1, start, *box, steps=10, rate=0.05)[1] for start in starts]
        told = utilities(profiles, network(replace_report(profiles, 1, reports)))[:, 1]
    assert torch.allclose(utility, torch.stack(alone).amax(0), atol=1e-6)
    assert torch.allclose(utility, told, atol=1e-6)


def test_evaluation_config_refuses_too_few() -> None:
    with pytest.raises(InputError, match="valuations must be at least 2, got 0"):
        EvaluationConfig("grid", 0)
