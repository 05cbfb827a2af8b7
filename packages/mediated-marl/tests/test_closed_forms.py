"""Closed forms of the public goods games; figures derived by hand unless a source is named."""

import itertools

import pytest
import torch

from mediated_marl.closed_forms import (
    best_free_riding,
    contributing_growth,
    critical_multiplier,
    encouragement_bounds,
    free_riding,
    last_step_bound,
    naive_contributions,
    naive_pure_reward,
    naive_symmetric_equilibrium,
    naive_threshold,
)
from mediated_marl.exact import public_goods_values
from mediated_marl.games import IteratedPublicGoodsGame

SETTINGS = [(3, 2.0), (10, 2.0), (25, 5.0)]  # the paper's Table 3


def test_naive_thresholds_and_pure_equilibria():
    assert [naive_threshold(*setting) for setting in SETTINGS] == [2, 6, 6]
    # Table 3 reads .652 for N = 3, the pure equilibrium 2 / 3
    assert [naive_pure_reward(*setting) for setting in SETTINGS] == pytest.approx([2 / 3, 0.6, 0.24])


@pytest.mark.parametrize(
    ("setting", "commit", "reward"),
    [((3, 2.0), 0.6667, 0.5926), ((10, 2.0), 0.2457, 0.0112), ((25, 5.0), 0.0619, 0.00089)],
)
def test_naive_symmetric_equilibrium(setting, commit, reward):
    found = naive_symmetric_equilibrium(*setting)
    assert found == (pytest.approx(commit, abs=1e-4), pytest.approx(reward, abs=6e-5))


def test_naive_symmetric_equilibrium_when_all_are_needed():
    assert naive_symmetric_equilibrium(3, 1.1) == (1.0, pytest.approx(1.0))


def test_encouragement_bounds_next_to_the_grand_coalition():
    # p_{N-1} <= (n - 1) N / (n (N - 1))
    assert [encouragement_bounds(*setting)[-2] for setting in SETTINGS] == pytest.approx([0.75, 5 / 9, 5 / 6])


def test_encouragement_bounds_all_sizes():
    assert encouragement_bounds(3, 2.0) == pytest.approx([0, 0.75, 1])
    ten = [0, 0, 0, 0, 0, 0.0397, 0.1190, 0.2778, 0.5556, 1]
    assert encouragement_bounds(10, 2.0) == pytest.approx(ten, abs=5e-5)
    many = encouragement_bounds(25, 5.0)
    assert many[19:24] == pytest.approx([0.3648, 0.4560, 0.5632, 0.6884, 0.8333], abs=5e-5)
    assert many[5] == pytest.approx(0.00047, abs=5e-6)


@pytest.mark.parametrize("setting", [*SETTINGS, (7, 3.5)])
def test_encouragement_bounds_bind_in_the_values(setting):
    members, outsiders = public_goods_values(
        torch.tensor(encouragement_bounds(*setting), dtype=torch.float64), setting[1]
    )
    slack = members[1:] - outsiders[:-1]
    assert (slack >= -1e-12).all()
    assert slack[naive_threshold(*setting) :].abs().max() < 1e-12


def test_critical_multipliers():
    assert [critical_multiplier(n - 1, n, m) for n, m in SETTINGS] == [0.5, 4, 19]


def test_critical_multiplier_is_where_the_lagrangian_turns():
    for n_agents, multiplier in SETTINGS:
        size = n_agents - 1
        one = torch.zeros(n_agents, dtype=torch.float64)
        one[size - 1] = 1
        members, outsiders = public_goods_values(one, multiplier)
        price = critical_multiplier(size, n_agents, multiplier)
        assert float(size * members[size] - price * outsiders[size]) == pytest.approx(0, abs=1e-12)


def test_naive_contributions_are_indifferent_to_keeping_at_the_tie():
    assert naive_contributions(10, 2.0) == [0] * 5 + [1] * 5


def final_balances(plans, p_outsider=1.0):
    """Play agent 0's plans (1 = contribute) against others that contribute, in the game itself."""
    game = IteratedPublicGoodsGame(3, horizon=len(plans[0]), dtype=torch.float64)
    state = game.reset(torch.Generator(), (len(plans),))
    for step in range(game.horizon):
        own = torch.tensor([plan[step] for plan in plans]).unsqueeze(-1)
        state = game.step(state, torch.cat([own, torch.ones(len(plans), 2, dtype=torch.int64)], -1)).state
    return state.balances


def test_iterated_outcomes_of_fixed_plans():
    together, apart = final_balances([[1] * 10, [0] * 10])
    assert together.tolist() == pytest.approx([57.665] * 3, abs=1e-3)
    assert apart.tolist() == pytest.approx([15.686, 4.672, 4.672], abs=1e-3)
    assert float(apart.mean()) == pytest.approx(8.343, abs=1e-3)


def test_iterated_rotating_outsider():
    game = IteratedPublicGoodsGame(3, dtype=torch.float64)
    state = game.reset(torch.Generator())
    for step in range(10):
        state = game.step(state, (torch.arange(3) != step % 3).long()).state
    assert float(state.balances.mean()) == pytest.approx(20.45, abs=5e-3)


def test_iterated_one_step_deviations_pay_only_at_the_end():
    plans = [[int(step != deviation) for step in range(10)] for deviation in range(10)]
    own = final_balances(plans)[:, 0]
    assert own[9].item() == pytest.approx(64.07, abs=5e-3)
    assert own[8].item() == pytest.approx(55.53, abs=5e-3)
    assert own[:8].min().item() == pytest.approx(51.3, abs=0.05)
    assert own[:8].max().item() == pytest.approx(52.7, abs=0.05)


def test_iterated_encouragement_makes_the_last_step_indifferent():
    # p_2 = .75: the outsider's last step multiplies its balance by 1 + .5 * 4 / 3 * .75 = 1.5, as staying does
    assert 1 + 0.5 * 2 * 2 / 3 * encouragement_bounds(3, 2.0)[1] == pytest.approx(contributing_growth(3, 3, 2.0, 0.5))
    assert last_step_bound([1.0, 1.0, 1.0], 0, 2.0) == pytest.approx(0.75)


def test_last_step_bound_makes_unequal_balances_indifferent():
    balances, outsider = [3.0, 1.0, 2.0], 1
    bound = last_step_bound(balances, outsider, 2.0)
    staying = 0.5 * (2 / 3 * sum(balances) - balances[outsider])
    leaving = 0.5 * 2 / 3 * bound * (sum(balances) - balances[outsider])
    assert (bound, leaving) == (pytest.approx(0.9), pytest.approx(staying))


@pytest.mark.parametrize(("steps", "keeping"), [(1, 1.667), (2, 2.444), (3, 3.352)])
def test_free_riding_by_keeping(steps, keeping):
    assert free_riding(steps, 3, 2.0, 0.5) == pytest.approx(keeping, abs=5e-4)
    game = final_balances([[1] * (10 - steps) + [0] * steps])[0, 0]
    assert float(game) == pytest.approx(1.5 ** (10 - steps) * free_riding(steps, 3, 2.0, 0.5))


def test_free_riding_with_constant_others():
    assert free_riding(4, 4, 4 / 3, 0.5) == pytest.approx(1 + 0.5 * 4)  # the others' balances stand still


def test_best_free_riding_equals_brute_force():
    horizon = 8
    plans = list(itertools.product([0, 1], repeat=horizon))
    own = final_balances(plans)[:, 0]
    balance, plan = best_free_riding(3, 2.0, 0.5, horizon)
    assert balance == pytest.approx(own.max().item())
    assert list(plans[int(own.argmax())]) == [int(step) for step in plan]


def test_best_free_riding_keeps_only_at_the_end():
    # An outsider that contributes by itself and keeps at the last step gets 64.07 > 57.665 with any window.
    balance, plan = best_free_riding(3, 2.0, 0.5, 10)
    assert balance == pytest.approx(64.07, abs=5e-3)
    assert plan == [True] * 9 + [False]


@pytest.mark.parametrize(("n_agents", "multiplier"), [(1, 2.0), (3, 1.0), (3, 3.0)])
def test_closed_forms_refuse_what_is_no_dilemma(n_agents, multiplier):
    with pytest.raises(ValueError, match="dilemma"):
        encouragement_bounds(n_agents, multiplier)
