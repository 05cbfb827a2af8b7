"""The games: every payoff of their tables, steps by hand, shapes, determinism, bad input."""

import math

import pytest
import torch

from mediated_marl.games import (
    CoinGame,
    IteratedPublicGoodsGame,
    MatrixGame,
    PublicGoodsGame,
    RandomisedPrisonersDilemma,
    RepeatedMatrixGame,
    prisoners_dilemma,
    sacrifice,
    two_step_prisoners_dilemma,
)
from mediated_marl.games.coin import CoinState, coin_rewards, falling_cell, moved

GAMES = {
    "pd": prisoners_dilemma,
    "two-step-pd": two_step_prisoners_dilemma,
    "randomised-pd": RandomisedPrisonersDilemma,
    "sacrifice": sacrifice,
    "pgg": lambda: PublicGoodsGame(5),
    "iterated-pgg": IteratedPublicGoodsGame,
    "iterated-pgg-random": lambda: IteratedPublicGoodsGame(4, horizon=3, random_endowments=True),
    "unequal-actions": lambda: MatrixGame(torch.arange(12.0).reshape(2, 3, 2)),
    "repeated-with-memory": lambda: RepeatedMatrixGame(sacrifice().payoffs, rounds=4, memory=True),
    "coin": CoinGame,
    "coin-three": lambda: CoinGame(3, size=4, horizon=5),
    "coin-egocentric": lambda: CoinGame(3, horizon=5, egocentric=True),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_actions(game, batch_shape, source):
    uniform = torch.rand(*batch_shape, game.n_agents, generator=source)
    return (uniform * torch.tensor(game.action_counts)).long()


def play(game, batch_shape, seed):
    source = generator(seed)
    state, rewards, ends = game.reset(source, batch_shape), [], []
    for _ in range(game.horizon):
        step = game.step(state, random_actions(game, batch_shape, source))
        state = step.state
        rewards.append(step.rewards)
        ends.append((step.terminated, step.truncated))
    return state, torch.stack(rewards), ends


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("batch_shape", [(), (3,), (2, 3)])
def test_game_shapes_follow_the_batch(name, batch_shape):
    game = GAMES[name]()
    state = game.reset(generator(), batch_shape)
    assert game.observe(state).shape == (*batch_shape, game.n_agents, game.observation_size)
    assert game.features(state).shape == (*batch_shape, game.state_size)
    last, rewards, ends = play(game, batch_shape, 1)
    assert rewards.shape == (game.horizon, *batch_shape, game.n_agents)
    assert game.observe(last).shape == (*batch_shape, game.n_agents, game.observation_size)
    assert all(flag.shape == batch_shape for end in ends for flag in end)


@pytest.mark.parametrize("name", GAMES)
def test_game_ends_once_at_its_horizon(name):
    game = GAMES[name]()
    _, _, ends = play(game, (2,), 0)
    over = torch.stack([terminated | truncated for terminated, truncated in ends])
    assert over[-1].all()
    assert not over[:-1].any()
    terminated, truncated = ends[-1]
    assert truncated.all() == (game.name == "coin")  # only the Coin Game is cut, the others end by their own rules
    assert terminated.all() != truncated.all()


@pytest.mark.parametrize("name", GAMES)
def test_game_same_seed_same_episode(name):
    game = GAMES[name]()
    assert torch.equal(play(game, (16,), 3)[1], play(game, (16,), 3)[1])


@pytest.mark.parametrize("name", ["randomised-pd", "iterated-pgg-random", "coin"])
def test_game_other_seed_other_luck(name):
    game = GAMES[name]()
    first, second = game.reset(generator(0), (64,)), game.reset(generator(1), (64,))
    assert not torch.equal(game.features(first), game.features(second))


@pytest.mark.parametrize("name", GAMES)
def test_game_ignores_global_seed(name):
    game = GAMES[name]()
    torch.manual_seed(1)
    first = play(game, (8,), 5)[1]
    torch.manual_seed(2)
    assert torch.equal(first, play(game, (8,), 5)[1])


# Payoff tables of the paper's examples (arXiv 2306.08419, section 5 and appendix).
@pytest.mark.parametrize(
    ("actions", "payoffs"), [((0, 0), (0, 0)), ((0, 1), (7, -5)), ((1, 0), (-5, 7)), ((1, 1), (2, 2))]
)
def test_prisoners_dilemma_payoffs(actions, payoffs):
    assert one_step(prisoners_dilemma(), actions) == payoffs


@pytest.mark.parametrize(
    ("actions", "payoffs"),
    [
        ((0, 0), (1, 1)),
        ((0, 1), (3, 0)),
        ((0, 2), (5, 0)),
        ((1, 0), (0, 3)),
        ((1, 1), (2, 2)),
        ((1, 2), (5, 0)),
        ((2, 0), (0, 0)),
        ((2, 1), (0, 0)),
        ((2, 2), (0, 0)),
    ],
)
def test_sacrifice_payoffs(actions, payoffs):
    assert one_step(sacrifice(), actions) == payoffs


def one_step(game, actions):
    return tuple(game.step(game.reset(generator()), torch.tensor(actions)).rewards.tolist())


def test_two_step_prisoners_dilemma_payoffs_by_round():
    game = two_step_prisoners_dilemma()
    joint = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    first = game.step(game.reset(generator(), (4,)), joint)
    second = game.step(first.state, joint)
    assert first.rewards.tolist() == [[0, 0], [7, -5], [-5, 7], [-1, 4]]
    assert second.rewards.tolist() == [[0, 0], [7, -5], [-5, 7], [2, 2]]
    assert game.observe(first.state)[0, 1].tolist() == [0, 1]


def test_randomised_prisoners_dilemma_pays_by_the_drawn_game():
    game = RandomisedPrisonersDilemma()
    state = game.reset(generator(), (400,))
    rewards = game.step(state, torch.tensor([0, 1]).expand(400, 2)).rewards
    expected = torch.where(state.drawn[:, None] == 0, torch.tensor([7.0, -5.0]), torch.tensor([1.0, 1.0]))
    assert torch.equal(rewards, expected)
    assert 0.4 < state.drawn.double().mean() < 0.6  # 400 fair draws: 4 standard deviations


def test_randomised_prisoners_dilemma_hidden_from_agents_only():
    game = RandomisedPrisonersDilemma(conflict=1.0, observed=False)
    state = game.reset(generator(), (2,))
    assert game.observe(state).abs().sum() == 0
    assert game.features(state).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(("n_agents", "multiplier"), [(3, 2.0), (10, 2.0), (25, 5.0), (7, 3.5)])
def test_public_goods_payoffs_of_k_contributors(n_agents, multiplier):
    game = PublicGoodsGame(n_agents, multiplier, dtype=torch.float64)
    contributors = torch.tril(torch.ones(n_agents + 1, n_agents, dtype=torch.int64), diagonal=-1)
    rewards = game.step(game.reset(generator(), (n_agents + 1,)), contributors).rewards
    for k in range(n_agents + 1):
        income = multiplier * k / n_agents
        own = [(income - 1) / (multiplier - 1)] * k + [income / (multiplier - 1)] * (n_agents - k)
        assert rewards[k].tolist() == pytest.approx(own)
    assert rewards[0].tolist() == [0] * n_agents
    assert rewards[-1].tolist() == pytest.approx([1] * n_agents)


def test_public_goods_default_multipliers():
    assert [PublicGoodsGame(n).multiplier for n in (3, 10, 25)] == [2, 2, 5]  # the paper's three settings


def test_public_goods_payoff_tensor_equals_its_steps():
    game = PublicGoodsGame(4)
    table = MatrixGame(game.payoff_tensor())
    actions = random_actions(game, (50,), generator())
    state = game.reset(generator(), (50,))
    assert torch.equal(game.step(state, actions).rewards, table.step(state, actions).rewards)


def test_iterated_public_goods_step_by_hand():
    game = IteratedPublicGoodsGame(3)
    state = game.reset(generator())._replace(balances=torch.tensor([1.0, 2.0, 4.0]))
    step = game.step(state, torch.tensor([1, 0, 1]))
    # contributions .5, 0, 2; income 2/3 * 2.5 = 5/3
    assert step.rewards.tolist() == pytest.approx([5 / 3 - 0.5, 5 / 3, 5 / 3 - 2])
    assert step.state.balances.tolist() == pytest.approx([1 + 5 / 3 - 0.5, 2 + 5 / 3, 4 + 5 / 3 - 2])


@pytest.mark.parametrize("relative", [False, True])
def test_iterated_public_goods_all_contribute_grows_by_half_per_step(relative):
    game = IteratedPublicGoodsGame(3, relative_balances=relative, dtype=torch.float64)
    state = game.reset(generator())
    for step in range(10):
        seen = [1, 1 / (10 - step)] if relative else [1.5 ** (step - 10), step / 10]
        assert game.observe(state)[0].tolist() == pytest.approx(seen)
        assert game.features(state).tolist() == pytest.approx([seen[0]] * 3 + seen[1:])
        state = game.step(state, torch.ones(3, dtype=torch.int64)).state
    assert state.balances.tolist() == pytest.approx([57.665] * 3, abs=1e-3)  # the official code's normaliser
    assert game.observe(state)[0].tolist() == pytest.approx([1, 1])


def test_iterated_public_goods_rewards_sum_to_the_gain():
    game = IteratedPublicGoodsGame(4, horizon=6, random_endowments=True, dtype=torch.float64)
    start = game.reset(generator(9), (7,))
    _, rewards, _ = play(game, (7,), 9)
    state, source = start, generator(9)
    game.reset(source, (7,))
    for _ in range(6):
        state = game.step(state, random_actions(game, (7,), source)).state
    assert torch.allclose(rewards.sum(0), state.balances - start.balances)
    assert ((start.balances > 0) & (start.balances <= 1)).all()


def test_repeated_matrix_memory_shows_last_joint_action():
    game = RepeatedMatrixGame(sacrifice().payoffs, rounds=2, memory=True)
    state = game.reset(generator())
    assert game.features(state).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    state = game.step(state, torch.tensor([1, 2])).state
    assert game.features(state).tolist() == [0, 1, 0, 1, 0, 0, 0, 1]


def test_coin_moves_wrap_around():
    cells = torch.tensor([[0, 0], [8, 4]])
    assert moved(cells, torch.tensor([[0, 2], [1, 3]]), 3).tolist() == [[6, 2], [2, 5]]


def test_coin_rewards_of_own_foreign_and_shared_coins():
    takers = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    owner = torch.tensor([0, 0, 0, 1])
    assert coin_rewards(takers, owner).tolist() == [[1, 0], [-2, 1], [-1, 1], [0, 0]]


def test_coin_falls_only_on_free_cells_and_on_all_of_them():
    cells = torch.tensor([3, 5]).expand(7, 2)
    uniform = (torch.arange(7) + 0.5) / 7
    assert falling_cell(cells, uniform, 9).tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert falling_cell(cells[:1], torch.tensor([1.0 - 2**-24]), 9).tolist() == [8]


def test_coin_step_by_hand():
    game = CoinGame(horizon=2)
    luck = torch.tensor([0.0, 0.5, 0.0])
    state = CoinState(0, torch.tensor([0, 8]), torch.tensor(1), torch.tensor(1), luck, torch.tensor([1, 0, 1]))
    step = game.step(state, torch.tensor([3, 3]))  # agent 0 steps right onto agent 1's coin, agent 1 wraps to cell 6
    assert step.rewards.tolist() == [1, -2]
    assert step.state.cells.tolist() == [1, 6]
    # free cells 0 2 3 4 5 7 8, the fourth of seven is 4; the next coin belongs to agent 0
    assert (int(step.state.coin), int(step.state.owner)) == (4, 0)
    planes = game.observe(step.state)[0].reshape(5, 9)
    assert planes[0].argmax() == 1
    assert planes[1].argmax() == 6
    assert planes[2].argmax() == 4
    assert planes[3].sum() == 0
    assert planes[4].tolist() == [0.5] * 9


def test_coin_seen_from_each_agent():
    # Agents on cells 1 and 6 (rows 0 and 2, columns 1 and 0), agent 0's coin on cell 4, the centre.
    game = CoinGame(horizon=2, egocentric=True)
    luck, owners = torch.zeros(3), torch.zeros(3, dtype=torch.int64)
    state = CoinState(1, torch.tensor([1, 6]), torch.tensor(4), torch.tensor(0), luck, owners)
    first, second = game.observe(state)
    assert first.nonzero().flatten().tolist() == [8, 9 + 3, 27]  # up and left: cell 8; one down: its own coin at 3
    assert second.nonzero().flatten().tolist() == [4, 18 + 7, 27]  # down and right: cell 4; up and right: coin at 7
    assert first[-1] == second[-1] == 0.5
    assert game.features(state).tolist() == [*first[:-1].tolist(), *second[:-1].tolist(), 0.5]


def test_coin_seen_from_each_agent_is_the_same_wherever_all_stand():
    here = CoinGame(3, size=4, egocentric=True)
    state = here.reset(generator(), (50,))
    shifted = (state.cells // 4 + 1) % 4 * 4 + (state.cells + 3) % 4  # a row down and a column left
    coin = (state.coin // 4 + 1) % 4 * 4 + (state.coin + 3) % 4
    assert torch.equal(here.observe(state), here.observe(state._replace(cells=shifted, coin=coin)))
    assert here.observe(state)[..., :16].sum(-1).eq(2).all()  # two others, wherever they are


def test_coin_taken_by_all_is_no_gain():
    _, rewards, _ = play(CoinGame(horizon=50), (400,), 0)
    taken = rewards.sum()
    # Random play takes own and foreign coins alike: 1 and 1 - 2 on average, so the welfare is about 0 (Lerer and
    # Peysakhovich 2017, selfish play); here -1 per foreign, +1 per own coin.
    assert abs(taken.item()) / rewards.abs().sum().item() < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MatrixGame(torch.zeros(2, 2, 3)), r"shape \(2, 2, 3\)"),
        (lambda: MatrixGame(torch.tensor(1.0)), "normal-form"),
        (lambda: MatrixGame([[[0.0, math.nan], [0, 0]], [[0, 0], [0, 0]]]), r"payoffs\[0, 0, 1\] is nan"),
        (lambda: RepeatedMatrixGame([]), "at least one table"),
        (lambda: RepeatedMatrixGame(sacrifice().payoffs, rounds=0), "rounds is 0"),
        (lambda: RepeatedMatrixGame([torch.zeros(2, 2, 2), torch.zeros(3, 2, 2)]), r"\(3, 2, 2\)"),
        (lambda: PublicGoodsGame(1), "n_agents is 1"),
        (lambda: PublicGoodsGame(3, 1.0), "multiplier is 1.0"),
        (lambda: PublicGoodsGame(3, math.inf), "multiplier is inf"),
        (lambda: PublicGoodsGame(17).payoff_tensor(), "at most 16"),
        (lambda: IteratedPublicGoodsGame(share=0.0), "share is 0.0"),
        (lambda: IteratedPublicGoodsGame(horizon=0), "horizon is 0"),
        (lambda: IteratedPublicGoodsGame(1), "n_agents is 1"),
        (lambda: RandomisedPrisonersDilemma(conflict=1.5), "conflict is 1.5"),
        (lambda: CoinGame(4, size=2), "size is 2"),
        (lambda: CoinGame(1), "n_agents is 1"),
        (lambda: CoinGame(horizon=0), "horizon is 0"),
    ],
)
def test_game_bad_arguments_name_value_and_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()
