"""Exact expected payoffs against brute force, against each other, against sampling, and their gradients."""

import itertools

import pytest
import torch

from mediated_marl.closed_forms import naive_symmetric_equilibrium
from mediated_marl.coalitions import TooLargeError, coalition_members
from mediated_marl.exact import (
    check_enumerable,
    coalition_payoffs,
    deviation_payoffs,
    expected_payoffs,
    mixed_payoffs,
    public_goods_deviation_payoffs,
    public_goods_payoffs,
    public_goods_values,
)
from mediated_marl.games import PublicGoodsGame, prisoners_dilemma, sacrifice


def simplex(*shape, seed=0):
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(-1)


def brute_force(payoffs, policies, mediator):
    """The definition, summed in Python: choices, then members' actions."""
    *counts, n_agents = payoffs.shape
    total = torch.zeros(n_agents, dtype=torch.float64)
    for choice in itertools.product(*[range(count + 1) for count in counts]):
        coalition = sum(2**i for i, (c, count) in enumerate(zip(choice, counts, strict=True)) if c == count)
        options = [range(count) if c == count else [c] for c, count in zip(choice, counts, strict=True)]
        chance = torch.stack([policies[i, -1 if c == counts[i] else c] for i, c in enumerate(choice)]).prod()
        for joint in itertools.product(*options):
            members = [mediator[coalition, i, a] for i, a in enumerate(joint) if coalition >> i & 1]
            weight = chance * (torch.stack(members).prod() if members else 1.0)
            total += weight * payoffs[joint]
    return total


@pytest.mark.parametrize("counts", [(2, 2), (3, 3), (2, 2, 2), (2, 3, 2)])
def test_expected_payoffs_equal_brute_force(counts):
    n_agents, most = len(counts), max(counts)
    source = torch.Generator().manual_seed(1)
    payoffs = torch.randn(*counts, n_agents, generator=source, dtype=torch.float64)
    policies, mediator = torch.zeros(n_agents, most + 1).double(), torch.zeros(2**n_agents, n_agents, most).double()
    for agent, count in enumerate(counts):
        own = simplex(count + 1, seed=agent)
        policies[agent, :count], policies[agent, -1] = own[:-1], own[-1]
        mediator[:, agent, :count] = simplex(2**n_agents, count, seed=10 + agent)
    assert torch.allclose(expected_payoffs(payoffs, policies, mediator), brute_force(payoffs, policies, mediator))


def test_expected_payoffs_carry_leading_dimensions():
    payoffs = sacrifice().payoffs.double()
    policies, mediator = simplex(5, 4, 2, 4), simplex(5, 4, 4, 2, 3, seed=1)
    together = expected_payoffs(payoffs, policies, mediator)
    assert together.shape == (5, 4, 2)
    assert torch.allclose(together[3, 2], expected_payoffs(payoffs, policies[3, 2], mediator[3, 2]))


def test_coalition_payoffs_of_the_prisoners_dilemma_by_hand():
    defect, cooperate = [1.0, 0.0], [0.0, 1.0]
    mediator = torch.tensor([[defect] * 2, [defect] * 2, [defect] * 2, [cooperate] * 2])
    values = coalition_payoffs(prisoners_dilemma().payoffs, torch.tensor([cooperate, defect]), mediator)
    # outsiders: agent 0 cooperates, agent 1 defects
    assert values.tolist() == [[-5, 7], [0, 0], [-5, 7], [2, 2]]


@pytest.mark.parametrize("n_agents", [2, 3, 5])
def test_public_goods_payoffs_equal_enumeration(n_agents):
    game = PublicGoodsGame(n_agents, 1.7, dtype=torch.float64)
    policies, contribution = simplex(4, n_agents, 3), torch.rand(n_agents, generator=torch.Generator().manual_seed(2))
    contribution = contribution.double()
    sizes = coalition_members(n_agents).sum(-1)
    chance = torch.cat([torch.zeros(1).double(), contribution])[sizes]
    mediator = torch.stack([1 - chance, chance], -1).unsqueeze(-2).expand(2**n_agents, n_agents, 2)
    enumerated = expected_payoffs(game.payoff_tensor(), policies, mediator)
    assert torch.allclose(public_goods_payoffs(policies, contribution, 1.7), enumerated)


def test_public_goods_payoffs_for_hundreds_of_agents():
    policies = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).expand(200, 3)
    rewards = public_goods_payoffs(policies, torch.ones(200, dtype=torch.float64), 5.0)
    # mean reward = mean contribution = .25 + .5 * 1, whatever the size
    assert rewards.tolist() == pytest.approx([0.75] * 200)


def test_public_goods_mixed_equilibrium_is_indifferent():
    # Own derivation: closed_forms.naive_symmetric_equilibrium; N = 3 gives q = 2/3 and reward .5926.
    for n_agents, multiplier, contribution in [(3, 2.0, [0, 1, 1]), (10, 2.0, [0] * 5 + [1] * 5)]:
        commit, reward = naive_symmetric_equilibrium(n_agents, multiplier)
        policies = torch.tensor([1 - commit, 0, commit], dtype=torch.float64).expand(n_agents, 3)
        mediator = torch.tensor(contribution, dtype=torch.float64)
        choices = deviation_payoffs(policies, lambda p, m=mediator, n=multiplier: public_goods_payoffs(p, m, n))
        assert torch.allclose(choices[:, 0], choices[:, 2], atol=1e-10)
        assert float(public_goods_payoffs(policies, mediator, multiplier).mean()) == pytest.approx(reward)


def test_public_goods_values_by_hand():
    members, outsiders = public_goods_values(torch.tensor([0.0, 0.75, 1.0]), 2.0)
    assert members.tolist() == pytest.approx([0, 0, 0.25, 1])
    assert outsiders.tolist() == pytest.approx([0, 0, 1, 2])  # size 2: 0.75 * 4 / 3


def test_sampled_rewards_agree_with_exact_ones():
    payoffs = sacrifice().payoffs.double()
    policies, mediator = simplex(2, 4), simplex(4, 2, 3, seed=1)
    source = torch.Generator().manual_seed(0)
    n_games = 200_000
    chosen = torch.multinomial(policies, n_games, replacement=True, generator=source).T
    committed = chosen == 3
    coalition = (committed * torch.tensor([1, 2])).sum(-1)
    drawn = torch.multinomial(mediator[coalition].flatten(0, 1), 1, generator=source).reshape(n_games, 2)
    rewards = payoffs[tuple(torch.where(committed, drawn, chosen).unbind(-1))]
    error = rewards.std(0) / n_games**0.5
    assert ((rewards.mean(0) - expected_payoffs(payoffs, policies, mediator)).abs() < 4 * error).all()


def test_exact_payoffs_pass_gradcheck():
    payoffs = sacrifice().payoffs.double()
    inputs = (simplex(2, 4).requires_grad_(), simplex(4, 2, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda p, m: expected_payoffs(payoffs, p, m), inputs)
    goods = (simplex(4, 3).requires_grad_(), simplex(4, seed=3).requires_grad_())
    assert torch.autograd.gradcheck(lambda p, c: public_goods_payoffs(p, c, 2.0), goods)


def test_deviation_payoffs_are_the_selfish_gradient():
    payoffs, mediator = sacrifice().payoffs.double(), simplex(3, 4, 2, 3, seed=1)
    policies = simplex(3, 2, 4).requires_grad_()
    choices = deviation_payoffs(policies.detach(), lambda p: expected_payoffs(payoffs, p, mediator))
    for agent in range(2):
        (gradient,) = torch.autograd.grad(expected_payoffs(payoffs, policies, mediator)[:, agent].sum(), policies)
        assert torch.allclose(gradient[:, agent], choices[:, agent])
    assert torch.allclose((policies * choices).sum(-1), expected_payoffs(payoffs, policies, mediator))


@pytest.mark.parametrize("n_agents", [2, 3, 6])
def test_public_goods_deviation_payoffs_equal_the_general_ones(n_agents):
    policies, contribution = simplex(4, n_agents, 3), simplex(4, n_agents, seed=5)
    general = deviation_payoffs(policies, lambda p: public_goods_payoffs(p, contribution, 1.7))
    assert torch.allclose(public_goods_deviation_payoffs(policies, contribution, 1.7), general)


def test_mixed_payoffs_need_not_sum_to_one():
    table = prisoners_dilemma().payoffs
    assert mixed_payoffs(table, torch.tensor([[2.0, 0.0], [0.0, 3.0]])).tolist() == [42, -30]


def test_exact_refuses_games_too_large_to_enumerate():
    with pytest.raises(TooLargeError, match="13 agents"):
        check_enumerable((2,) * 13)
