"""The mediated optima of the paper's games; every expected number with its source."""

import itertools

import numpy as np
import pytest
import torch

from mediated_marl.closed_forms import critical_multiplier, encouragement_bounds
from mediated_marl.coalitions import TooLargeError
from mediated_marl.equilibria import (
    InfeasibleMediatorError,
    coalition_blocks,
    commitment_game,
    maximise,
    mediated_optimum,
    only_pure_equilibrium,
    pure_equilibria,
)
from mediated_marl.games import PublicGoodsGame, prisoners_dilemma, sacrifice, two_step_prisoners_dilemma

FIRST_ROUND = two_step_prisoners_dilemma().payoffs[0]


def contributions(optimum, n_agents):
    """Mean probability of contributing (action 1) over members, for each size of the first coalition of that size."""
    found = []
    for size in range(1, n_agents + 1):
        joint = optimum.policies[2**size - 1]
        marginals = [joint.sum(axis=tuple(a for a in range(size) if a != member))[1] for member in range(size)]
        found.append(float(np.mean(marginals)))
    return found


def test_pure_equilibria_by_hand():
    assert pure_equilibria(prisoners_dilemma().payoffs) == [(0, 0)]
    assert pure_equilibria(sacrifice().payoffs) == [(0, 0)]
    coordination = np.array([[[2, 2], [0, 0]], [[0, 0], [1, 1]]])
    assert pure_equilibria(coordination) == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="2 pure equilibria"):
        only_pure_equilibrium(coordination)


def test_prisoners_dilemma_naive_mediator_suffices():
    # Paper, first example: alone the mediator defects, for both it cooperates, and committing is dominant.
    optimum = mediated_optimum(prisoners_dilemma().payoffs)
    assert optimum.values == pytest.approx(np.array([[0, 0], [0, 0], [0, 0], [2, 2]]))
    assert pure_equilibria(commitment_game(optimum.values)) == [(0, 0), (1, 1)]
    constrained = mediated_optimum(prisoners_dilemma().payoffs, ic=True, e=True)
    assert constrained.values == pytest.approx(optimum.values, abs=1e-7)
    assert np.abs(constrained.ic_multipliers[3]).max() < 1e-7  # both constraints slack, 2 > 0


def test_sacrifice_naive_mediator_is_refused():
    # Own derivation: grand coalition sum 5, agent 1 gets 0 < 1 and stays out; the outcome is (1, 1).
    optimum = mediated_optimum(sacrifice().payoffs)
    assert optimum.values[3] == pytest.approx([5, 0])
    assert optimum.values[1] == pytest.approx([1, 1])
    assert optimum.values[2] == pytest.approx([1, 1])
    assert (1, 1) not in pure_equilibria(commitment_game(optimum.values))


def test_sacrifice_incentive_compatible_optimum():
    # Own derivation: agent 1 plays S and C half each against C: welfare 4.5, (3.5, 1); price 0.5, since moving from
    # (5, 0) to (2, 2) costs the sum 1 and gives agent 1 two.
    optimum = mediated_optimum(sacrifice().payoffs, ic=True)
    assert optimum.values[3] == pytest.approx([3.5, 1])
    assert optimum.ic_multipliers[3] == pytest.approx([0, 0.5])
    assert (1, 1) in pure_equilibria(commitment_game(optimum.values), 1e-7)


def test_sacrifice_independent_policies_reach_the_same_optimum():
    # The learnt mediator draws members' actions independently; a grid of such policies gets no further than 4.5.
    table = sacrifice().payoffs.numpy().astype(np.float64)
    grid = [np.array(p) / 20 for p in itertools.product(range(21), repeat=3) if sum(p) == 20]
    first, second = np.stack(grid), np.stack(grid)
    values = np.einsum("ia,jb,abn->ijn", first, second, table)
    allowed = (values[..., 0] >= 1 - 1e-9) & (values[..., 1] >= 1 - 1e-9)
    assert values.sum(-1)[allowed].max() == pytest.approx(4.5)


def test_two_step_first_round_incentive_compatible_optimum():
    # Own derivation: agent 0 cooperates with 7/8, round-1 rewards (0, 2.875); with (2, 2) after it 6.875 in all.
    optimum = mediated_optimum(FIRST_ROUND, ic=True)
    assert optimum.values[3] == pytest.approx([0, 2.875], abs=1e-7)
    assert optimum.policies[3][1].sum() == pytest.approx(7 / 8)
    second = mediated_optimum(prisoners_dilemma().payoffs, ic=True)
    assert optimum.values[3].sum() + second.values[3].sum() == pytest.approx(6.875)


def test_two_step_naive_window_and_threat():
    # Deciding anew, agent 0 refuses -1 in round 1 and the welfare is 4; if that bars it from round 2 it commits.
    first, second = mediated_optimum(FIRST_ROUND).values, mediated_optimum(prisoners_dilemma().payoffs).values
    assert (1, 1) not in pure_equilibria(commitment_game(first))
    assert first[0b10].sum() + second[3].sum() == pytest.approx(4)
    bound = first + 0.99 * second  # one choice for both rounds, discount .99
    assert bound[3, 0] == pytest.approx(0.98)  # -1 + 2 * .99, own derivation
    assert (1, 1) in pure_equilibria(commitment_game(bound))
    assert (first + second)[3].sum() == pytest.approx(7)


@pytest.mark.parametrize(("n_agents", "multiplier"), [(3, 2.0), (4, 2.0), (5, 2.0), (5, 3.0)])
def test_public_goods_encouragement_equals_the_closed_form(n_agents, multiplier):
    table = PublicGoodsGame(n_agents, multiplier, torch.float64).payoff_tensor()
    optimum = mediated_optimum(table, e=True)
    assert contributions(optimum, n_agents) == pytest.approx(encouragement_bounds(n_agents, multiplier), abs=1e-6)
    # one price per outsider; together they are the critical multiplier of the mean outsider, k - N / n
    price = optimum.e_multipliers[2 ** (n_agents - 1) - 1].sum()
    assert price == pytest.approx(critical_multiplier(n_agents - 1, n_agents, multiplier), rel=1e-5)


def test_public_goods_three_agents_constrained_optimum():
    # Paper, Table 3, reads .774 where .75 is exact; committing is then an equilibrium with reward 1.
    table = PublicGoodsGame(3).payoff_tensor()
    for optimum in (mediated_optimum(table, e=True), mediated_optimum(table, ic=True, e=True)):
        assert contributions(optimum, 3) == pytest.approx([0, 0.75, 1], abs=1e-6)
        assert optimum.values[7] == pytest.approx([1, 1, 1], abs=1e-6)
        assert (1, 1, 1) in pure_equilibria(commitment_game(optimum.values), 1e-6)
    assert optimum.e_multipliers[0b011].sum() == pytest.approx(0.5, abs=1e-6)


def test_public_goods_naive_equilibria_have_two_members_of_three():
    optimum = mediated_optimum(PublicGoodsGame(3).payoff_tensor())
    assert contributions(optimum, 3) == pytest.approx([0, 1, 1])
    found = pure_equilibria(commitment_game(optimum.values), 1e-6)
    assert found == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]


def test_incentive_compatibility_alone_can_be_impossible():
    # With p_2 = 1 an outsider gets 4/3; no mediator can give three members that much.
    with pytest.raises(InfeasibleMediatorError, match=r"coalition \[0, 1, 2\].*e=True"):
        mediated_optimum(PublicGoodsGame(3).payoff_tensor(), ic=True)


def test_mediated_optimum_values_satisfy_what_was_imposed():
    source = np.random.default_rng(0)
    table = source.normal(size=(2, 3, 2, 3))
    outside = [np.full(count, 1 / count) for count in (2, 3, 2)]
    optimum = mediated_optimum(table, ic=True, e=True, outside=outside)
    for number, agent in itertools.product(range(8), range(3)):
        if number >> agent & 1:
            assert optimum.values[number, agent] >= optimum.values[number ^ 1 << agent, agent] - 1e-6
    naive = mediated_optimum(table, outside=outside)
    assert optimum.values[7].sum() <= naive.values[7].sum() + 1e-7


def test_commitment_game_axes_are_agents():
    values = np.arange(8.0).repeat(3).reshape(8, 3)
    assert commitment_game(values)[1, 0, 0, 0] == 1
    assert commitment_game(values)[0, 0, 1, 0] == 4


def test_maximise_by_hand():
    blocks = coalition_blocks(
        np.array([[[1.0, 0], [0, 1]], [[0, 0], [0, 0]]]), [np.array([1.0, 0]), np.array([1.0, 0])]
    )
    value, weights, prices = maximise(np.array([3.0, 1.0]), np.array([[1.0, 0.0]]), np.array([0.25]), [blocks[1]])
    assert (value, weights.tolist(), prices.tolist()) == (1.5, [0.25, 0.75], [2.0])


@pytest.mark.parametrize(
    ("payoffs", "options", "message"),
    [
        (np.zeros((2, 2, 3)), {}, r"shape \(2, 2, 3\)"),
        (np.full((2, 2, 2), np.nan), {}, r"payoffs\[0, 0, 0\] is nan"),
        (np.zeros((2, 2, 2)), {}, "4 pure equilibria"),
        (np.zeros((2, 2, 2)), {"outside": [[1, 0]]}, "holds 1 strategies"),
        (np.zeros((2, 2, 2)), {"outside": [[1, 0], [0.5, 0.6]]}, r"outside\[1\] is"),
    ],
)
def test_mediated_optimum_bad_arguments(payoffs, options, message):
    with pytest.raises(ValueError, match=message):
        mediated_optimum(payoffs, **options)


def test_mediated_optimum_refuses_too_many_coalitions():
    with pytest.raises(TooLargeError, match="177147 joint actions"):
        mediated_optimum(PublicGoodsGame(11, 2.0).payoff_tensor())
