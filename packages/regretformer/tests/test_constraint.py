"""What regret costs in the loss, and how the price moves."""

import dataclasses

import pytest
import torch

from regretformer.config import PRESETS, TrainConfig
from regretformer.constraint import AugmentedRegret, RegretBudget, published_penalty_step, sum_of_regrets
from regretformer.setting import parse_setting


def config_for(setting: str, **changes: object) -> TrainConfig:
    return dataclasses.replace(PRESETS["smoke"], setting=setting, **changes).settled()  # type: ignore[arg-type]


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_sum_of_regrets_counts_bidders_that_were_not_seen() -> None:
    regrets = {0: scalar(0.1), 2: scalar(0.3)}
    assert sum_of_regrets(regrets, 2).item() == pytest.approx(0.4)
    assert sum_of_regrets(regrets, 4).item() == pytest.approx(0.8)


def test_budget_moves_the_multiplier_of_the_visited_setting_only() -> None:
    """Regret twice the budget in 1x2 and half of it in 1x3: gamma + eta ln 2 and gamma - eta ln 2."""
    config = config_for("1x2..1x4", dual_rate=0.5, budget_margin=1.0, multiplier_start=1.0, net="equivariantnet")
    rule = RegretBudget(config)
    rule.loss(scalar(0.5), {0: scalar(0.5 * 0.02)}, 0, 0.0)
    assert rule.multiplier.value.tolist() == pytest.approx([1 + 0.5 * 0.693147, 1, 1], abs=1e-6)
    rule.loss(scalar(0.5), {0: scalar(0.5 * 0.005)}, 1, 0.0)
    assert rule.multiplier.value.tolist() == pytest.approx([1 + 0.5 * 0.693147, 1 - 0.5 * 0.693147, 1], abs=1e-6)
    assert rule.figures(1) == {"dual/budget": 0.01, "dual/multiplier": pytest.approx(1 - 0.5 * 0.693147, abs=1e-6)}


def test_losses_of_a_budget_by_hand() -> None:
    """P = 1/2, R = 1/100 and gamma = 5 + eta ln 2: -P + gamma R, or -ln P + gamma R / P, with their gradients."""
    gamma = 5 + 0.5 * 0.69314718
    cases = {
        "published": (gamma * 0.01 - 0.5, -1.0, gamma),
        "relative": (gamma * 0.02 + 0.69314718, -(1 + gamma * 0.02) / 0.5, gamma / 0.5),
    }
    for name, (value, at_revenue, at_regret) in cases.items():
        rule = RegretBudget(config_for("1x2", dual_rate=0.5, budget_margin=1.0, loss=name))
        revenue, regret = scalar(0.5), scalar(0.01)
        loss = rule.loss(revenue, {0: regret}, 0, 0.0)
        loss.backward()
        assert revenue.grad is not None
        assert regret.grad is not None
        figures = (loss.item(), revenue.grad.item(), regret.grad.item())
        assert figures == pytest.approx((value, at_revenue, at_regret), rel=1e-6)


def test_augmented_lagrangian_by_hand() -> None:
    """-P + sum_i (5 R_i + R_i^2 / 2); then lambda_i = 5 + R_i, and rho = 1 + 50 once the penalty is due."""
    config = config_for("2x2", constraint="augmented", penalty_step=50.0, iterations=40)
    rule = AugmentedRegret(config)
    regrets = {0: scalar(0.2), 1: scalar(0.4)}
    loss = rule.loss(scalar(0.7), regrets, 0, 0.0)
    loss.backward()
    assert loss.item() == pytest.approx(-0.7 + 5 * 0.6 + 0.5 * (0.04 + 0.16))
    assert regrets[0].grad is not None
    assert regrets[0].grad.item() == pytest.approx(5.2)
    assert rule.parts[0].value.tolist() == pytest.approx([5.2, 5.4])
    assert rule.figures(0) == {
        "dual/budget": 1e-3, "dual/multiplier": pytest.approx(5.3), "dual/penalty": 51.0
    }  # fmt: skip
    rule.loss(scalar(0.7), regrets, 0, 0.0)
    assert rule.parts[0].value.tolist() == pytest.approx([5.2 + 51 * 0.2, 5.4 + 51 * 0.4])


def test_augmented_lagrangian_of_one_bidder_at_a_time_is_unbiased() -> None:
    """Over the n equally likely bidders the loss averages to that of all of them."""
    config = config_for("3x2", constraint="augmented", iterations=400_000)
    regrets = {bidder: scalar(0.1 * (bidder + 1)) for bidder in range(3)}
    everybody = AugmentedRegret(config).loss(scalar(0.7), regrets, 0, 0.0).item()
    alone = [AugmentedRegret(config).loss(scalar(0.7), {b: regret}, 0, 0.0).item() for b, regret in regrets.items()]
    assert sum(alone) / 3 == pytest.approx(everybody)


def test_augmented_lagrangian_remembers_the_bidders_whose_turn_it_is_not() -> None:
    rule = AugmentedRegret(config_for("2x2", constraint="augmented", iterations=8000, penalty_step=1.0))
    rule.loss(scalar(0.7), {0: scalar(0.2)}, 0, 0.0)
    assert rule.parts[0].value.tolist() == [5, 5]  # with 8,000 iterations multipliers move at every second
    rule.loss(scalar(0.7), {1: scalar(0.4)}, 0, 0.0)
    assert rule.parts[0].value.tolist() == pytest.approx([5.2, 5.4])


@pytest.mark.parametrize(
    ("setting", "iterations", "every", "grows"),
    [("2x2", 400_000, 100, 10_000), ("2x2", 8_000, 2, 200), ("2x2", 30, 1, 1), ("1x1..2x2", 32_000, 2, 200)],
)
def test_augmented_periods_are_shares_of_the_run(setting: str, iterations: int, every: int, grows: int) -> None:
    for part in AugmentedRegret(config_for(setting, constraint="augmented", iterations=iterations)).parts:
        assert (part.multiplier_every, part.penalty_every) == (every, grows)


def test_published_penalty_steps() -> None:
    steps = {name: published_penalty_step(parse_setting(name)) for name in ("1x2", "2x2", "2x3", "3x10", "1x5")}
    assert steps == {"1x2": 50, "2x2": 5, "2x3": 10, "3x10": 1, "1x5": 1}
    rules = [AugmentedRegret(config_for("1x2", constraint="augmented", penalty_step=step)) for step in (0.0, 7.0)]
    assert [rule.parts[0].penalty_increment for rule in rules] == [50, 7]
