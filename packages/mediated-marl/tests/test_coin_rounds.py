"""The Coin Game enumerated: its optimum, its equilibrium, and exact audits."""

import dataclasses
from functools import cache
from itertools import product

import pytest
import torch

from mediated_marl.backward_induction import chances, reach, unfold
from mediated_marl.coalitions import TooLargeError
from mediated_marl.coin_rounds import first_placements, unfold_coin
from mediated_marl.games import CoinGame, RepeatedMatrixGame, two_step_prisoners_dilemma
from mediated_marl.markov_audit import audit_estimated, audit_exact
from mediated_marl.markov_config import MARKOV_PRESETS
from mediated_marl.markov_players import MarkovPlayers
from mediated_marl.markov_table import exact_welfare
from mediated_marl.optimum import equilibrium_values, optimal_values
from mediated_marl.rollout import Rules, TensorArena, roll_out


class Wanderers:
    """Nobody commits, and everybody moves anywhere; a mediator likewise."""

    def choices(self, observations, locks):
        return torch.tensor([0.0, 0.0, 0.0, 0.0, -40.0]).expand(*observations.shape[:-1], 5)

    def mediation(self, features, locks, committed):
        return torch.zeros(*committed.shape, 4)


def starting_welfare(game, values):
    return (first_placements(game).double() @ values.sum(-1)).item()


def players(game, **settings):
    config = dataclasses.replace(
        MARKOV_PRESETS["coin"], egocentric=game.egocentric, seeds=2, hidden=8, horizon=game.horizon, **settings
    )
    made = MarkovPlayers(TensorArena(game), config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # policies far from uniform
    return made


@cache
def slow_optimum(size, steps, cells, coin, owner):
    """The largest welfare by plain recursion over the rules of the game's table."""
    if steps == 0:
        return 0.0
    best = -torch.inf
    for actions in product(((-1, 0), (1, 0), (0, -1), (0, 1)), repeat=2):
        moves = zip(cells, actions, strict=True)
        after = tuple((cell // size + up) % size * size + (cell % size + right) % size for cell, (up, right) in moves)
        takers = [agent for agent in range(2) if after[agent] == coin]
        earned = sum(1 if agent == owner else -1 for agent in takers)  # another's taker earns 1, its owner loses 2
        free = [cell for cell in range(size**2) if cell not in after]
        coins = product(free, range(2)) if takers else [(coin, owner)]
        ahead = [slow_optimum(size, steps - 1, after, *one) for one in coins]
        best = max(best, earned + sum(ahead) / len(ahead))
    return best


@pytest.mark.parametrize(("size", "steps"), [(2, 4), (3, 2)])
@pytest.mark.parametrize("egocentric", [False, True])
def test_optimum_equals_a_plain_recursion(size, steps, egocentric):
    game = CoinGame(size=size, horizon=steps, egocentric=egocentric)
    count, starts = size**2, []
    for cells in product(range(count), repeat=2):
        free = [cell for cell in range(count) if cell not in cells]
        starts.append(sum(slow_optimum(size, steps, cells, *one) for one in product(free, range(2))) / len(free) / 2)
    values = optimal_values(unfold_coin(game, Rules()))
    assert starting_welfare(game, values) == pytest.approx(sum(starts) / len(starts), abs=1e-6)


def test_optimum_and_equilibrium_of_one_step():
    # The coin lies beside its owner in half of all starts: 4 of 8 free cells, or 3 or 4 of 7; beside the other too.
    game = CoinGame(horizon=1, egocentric=True)
    rounds = unfold_coin(game, Rules())
    assert starting_welfare(game, optimal_values(rounds)) == pytest.approx(0.5)
    assert starting_welfare(game, equilibrium_values(rounds)) == pytest.approx(0.0, abs=1e-6)  # 1/2 - 1/2


@pytest.mark.parametrize("egocentric", [False, True])
def test_committing_for_an_episode_pays_everywhere(egocentric):
    game = CoinGame(egocentric=egocentric)
    rounds, first = unfold_coin(game, Rules()), first_placements(game)
    together, apart = optimal_values(rounds), equilibrium_values(rounds)
    assert starting_welfare(game, together) == pytest.approx(11.06, abs=1e-3)  # a separate programme found the same
    assert starting_welfare(game, apart) == pytest.approx(0.0, abs=1e-3)
    assert (together - apart)[first > 0].min() > 3.8


def test_equilibrium_and_optimum_of_a_repeated_game():
    # Specification 2.1: without mediator nobody cooperates in either step; together 3 and 4 (CC twice).
    rounds = unfold(two_step_prisoners_dilemma(), Rules())
    assert equilibrium_values(rounds).tolist() == [[0, 0]]
    assert optimal_values(rounds).sum().item() == 7


def test_pennies_have_no_equilibrium_in_pure_actions():
    pennies = RepeatedMatrixGame([[[1, -1], [-1, 1]], [[-1, 1], [1, -1]]], 1)
    with pytest.raises(ValueError, match="no equilibrium in pure actions"):
        equilibrium_values(unfold(pennies, Rules()))


def test_wanderers_earn_nothing_and_would_gain_by_taking():
    game = CoinGame(horizon=3, egocentric=True)
    audit = audit_exact(game, Wanderers(), Rules(), 1, 1.0)
    assert audit.returns[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    # At the last step the coin lies beside an agent or not; beside it, taking earns 1 instead of 1 in 4 times.
    assert audit_exact(game, Wanderers(), Rules(3, mediated=False), 1, 1.0).response_gains.min() > 0.3
    last = audit_exact(CoinGame(horizon=1, egocentric=True), Wanderers(), Rules(), 1, 1.0)
    assert last.gains[0, 0].tolist() == pytest.approx([0.5 * 0.75] * 2, abs=1e-6)
    assert last.response_gains[0].tolist() == pytest.approx([0.5 * 0.75] * 2, abs=1e-6)
    assert last.commitment.max() < 1e-6


@pytest.mark.parametrize("window", [1, 2])
def test_every_round_has_all_its_chances(window):
    game = CoinGame(horizon=4, egocentric=True)
    rules = Rules(window)
    rounds = unfold_coin(game, rules)
    assert [len(one.locks) // (9 * 9 * 2) for one in rounds] == ([1, 4, 1, 4] if window == 2 else [1] * 4)
    found = [chances(one, players(game, window=window), rules, 2) for one in rounds]
    for visits in reach(rounds, found, first_placements(game)):
        assert torch.allclose(visits.sum(1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(("egocentric", "window"), [(True, 1), (True, 3), (False, 2)])
def test_exact_audit_agrees_with_played_episodes(egocentric, window):
    game, source = CoinGame(horizon=3, egocentric=egocentric), torch.Generator().manual_seed(1)
    made, rules = players(game, window=window), Rules(window)
    exact = audit_exact(game, made, rules, 2, 0.9)
    rewards = roll_out(TensorArena(game), made, rules, (2, 4000), source).rewards.sum(1)
    error = rewards.std(1) / 4000**0.5
    assert ((rewards.mean(1) - exact.returns).abs() < 4 * error).all()
    found = audit_estimated(TensorArena(game), made, rules, 2, 0.9, source, episodes=200, continuations=8)
    assert torch.equal(found.slack.isnan(), exact.slack.isnan())
    assert ((found.slack - exact.slack).abs() <= 4 * found.slack_errors).logical_or(exact.slack.isnan()).all()
    assert (found.gains - exact.gains <= 4 * found.gain_errors).all()  # an estimate may not find the best choice
    assert (found.gains - exact.gains >= -4 * found.gain_errors - 0.1).all()
    assert torch.allclose(found.probabilities, exact.probabilities, atol=0.15)


def test_a_large_coin_game_is_not_enumerated():
    with pytest.raises(TooLargeError, match="3 agents on 3 x 3 cells have 139968 joint actions"):
        unfold_coin(CoinGame(3, horizon=2, egocentric=True), Rules())


def test_exact_welfare_is_that_of_the_equilibrium():
    coin = MARKOV_PRESETS["coin"]
    welfare = {
        (mediator, window): exact_welfare(dataclasses.replace(coin, mediator=mediator, window=window))
        for mediator, window in (("none", 16), ("naive", 16), ("constrained", 16), ("naive", 1))
    }
    assert welfare["none", 16] == pytest.approx(0.0, abs=1e-3)
    assert welfare["naive", 16] == welfare["constrained", 16] == pytest.approx(11.06, abs=1e-3)
    assert welfare["naive", 1] is None  # to stay out for a step pays wherever another's coin is near
