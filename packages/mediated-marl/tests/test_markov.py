"""Games of several steps: returns by hand, locks, exact values, sampled against exact gradients, twice, resumed."""

import dataclasses

import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from gt_core.run import Run

from mediated_marl.backward_induction import chances, evaluate_rounds, outcome_chances, reach, unfold
from mediated_marl.coalitions import TooLargeError, coalition_members, coalition_number, coalition_probabilities
from mediated_marl.episodes import Episodes, agents_first, agents_last
from mediated_marl.games import (
    IteratedPublicGoodsGame,
    RepeatedMatrixGame,
    prisoners_dilemma,
    two_step_prisoners_dilemma,
)
from mediated_marl.markov import MarkovTrainer, agent_returns, agents_slope, mediator_slope, weigh
from mediated_marl.markov_audit import audit_estimated, audit_exact
from mediated_marl.markov_config import MARKOV_PRESETS, MarkovConfig
from mediated_marl.markov_multipliers import MultiplierNetwork, MultiplierTable
from mediated_marl.markov_players import MarkovPlayers
from mediated_marl.returns import bootstrapped_returns
from mediated_marl.rollout import Rules, TensorArena, masked, race, roll_out
from mediated_marl.train import train

TINY = {"seeds": 2, "iterations": 4, "games": 6, "log_every": 2}


class Fixed:
    """Policies of the round alone: commit and cooperate with given chances, for tests."""

    def __init__(self, commit, own, mediated):
        self.commit, self.own, self.mediated = (torch.as_tensor(part).double() for part in (commit, own, mediated))

    def choices(self, observations, locks):
        current = observations[..., :2].argmax(-1)
        commit, own = self.commit[current], self.own[current]
        stay, defect, cooperate, join = (part.clamp(min=1e-30).log() for part in (1 - commit, 1 - own, own, commit))
        return torch.stack([stay + defect, stay + cooperate, join], -1)

    def mediation(self, features, locks, committed):
        chance = self.mediated[features[..., :2].argmax(-1), coalition_number(committed)]
        return torch.stack([1 - chance, chance], -1).clamp(min=1e-30).log()


def alone_defects(first):
    """The mediator that cooperates for both, agent 0 in round 1 with the chance `first`, and defects for one."""
    return [[[0.0, 0.0]] * 3 + [[first, 1.0]], [[0.0, 0.0]] * 3 + [[1.0, 1.0]]]


def game64():
    source = two_step_prisoners_dilemma()
    return RepeatedMatrixGame([table.double() for table in source.payoffs], name="two-step-pd")


def test_returns_by_hand():
    rewards, following = np.array([[1.0], [2.0], [4.0]]), np.array([[10.0], [20.0], [40.0]])
    shares, continues = np.array([[0.25], [0.0], [0.0]]), np.ones((3, 1))
    # G_2 = 4 + 40 / 2, G_1 = 2 + 24 / 2, G_0 = 1 + (10 / 4 + 14 * 3 / 4) / 2
    assert bootstrapped_returns(rewards, following, shares, continues, 0.5).tolist() == [[7.5], [14.0], [24.0]]
    assert bootstrapped_returns(rewards, following, shares, 0 * continues, 0.5).tolist() == [[1.0], [2.0], [4.0]]


def test_race_never_draws_what_is_impossible():
    source = torch.Generator().manual_seed(0)
    drawn = race(torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0]).expand(20_000, 5), source)
    assert set(drawn.tolist()) == {1, 3}
    assert (drawn == 3).float().mean().item() == pytest.approx(0.7, abs=0.015)


def trainer(preset="iterated-pgg", arena=None, **options):
    return MarkovTrainer(dataclasses.replace(MARKOV_PRESETS[preset], **{**TINY, **options}), arena)


def play(one, games=64, **rules):
    source = torch.Generator().manual_seed(1)
    return roll_out(one.arena, one.players, one.rules._replace(**rules), (one.config.seeds, games), source)


def test_windows_bind_in_played_episodes():
    played = play(trainer(window=3))
    for start in (0, 3, 6):  # all decide together at 0, 3, 6 and 9
        assert (played.committed[:, start : start + 3] == played.committed[:, start : start + 1]).all()
    assert played.free[:, ::3].all()
    assert not played.free[:, 1::3].any()
    assert played.committed[:, 0].any()
    assert (played.committed[:, 0] != played.committed[:, 3]).any()


def test_whole_episode_threat_bars_who_stayed_out():
    played = play(trainer(lock_out="episode"))
    assert (played.committed[:, 1:] <= played.committed[:, :-1]).all()
    out = ~played.committed[:, 0]
    assert out.any()
    assert not (played.committed & out.unsqueeze(1)).any()


def test_without_mediator_nobody_commits():
    played = play(trainer(mediator="none", exploration=0.5))
    assert not played.committed.any()
    assert (played.chosen < 2).all()


def test_exploration_draws_coalitions_of_free_agents_only():
    played = play(trainer(), exploration=1.0)
    assert played.committed.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert played.explored.float().mean().item() == pytest.approx(7 / 8, abs=0.03)  # 1 of 8 draws is the wanted one
    assert not play(trainer(), exploration=0.0).explored.any()
    bound = play(trainer(window=10), exploration=1.0)
    assert not bound.explored[:, 1:].any()


def test_macro_transition_by_hand():
    """An agent locked in for the whole episode has one decision, worth what was played; one outside takes steps."""
    one = trainer("iterated-pgg", window=10, discount=0.5, decay=0.0)
    played = play(one)
    values = torch.rand(played.alive.shape, generator=torch.Generator().manual_seed(0))
    returns = agents_last(agent_returns(Episodes.of(played), agents_first(values), 0.5, 0.0))
    powers = 0.5 ** torch.arange(10).reshape(-1, 1, 1)
    whole, inside = (powers * played.rewards).sum(1), played.committed[:, 0]
    assert torch.allclose(returns[:, 0][inside], whole[inside], atol=1e-5)
    step = played.rewards[:, 0] + 0.5 * values[:, 1]
    assert torch.allclose(returns[:, 0][~inside], step[~inside], atol=1e-5)
    assert inside.any()
    assert not inside.all()


@pytest.mark.parametrize(("window", "welfare"), [(1, 7.0), (2, 7.0)])
def test_exact_values_of_the_two_step_dilemma(window, welfare):
    # Specification 2.1: everybody commits, the mediator cooperates: 3 in round 1, 4 in round 2.
    policies = Fixed([1.0, 1.0], [0.0, 0.0], alone_defects(1.0))
    audit = audit_exact(game64(), policies, Rules(window), 1, 1.0)
    assert audit.returns.sum().item() == pytest.approx(welfare)
    assert audit.commitment.tolist() == [[1, 1]]
    # Staying out of round 1 earns agent 0 one more; with a window of 2 it then loses the 2 of round 2.
    assert audit.gains[0, 0].tolist() == pytest.approx([1.0, 0.0] if window == 1 else [0.0, 0.0], abs=1e-6)
    assert audit.slack[0, 0, 3].tolist() == pytest.approx([-1.0, 4.0] if window == 1 else [1.0, 6.0], abs=1e-6)
    assert audit.response_gains[0].tolist() == pytest.approx([1.0, 0.0] if window == 1 else [0.0, 0.0], abs=1e-6)


def test_best_response_defects_in_every_round():
    # Both always cooperate, outside: to defect once earns 7 instead of 2, twice as much in two rounds.
    game = RepeatedMatrixGame(prisoners_dilemma().payoffs.double(), 2)
    audit = audit_exact(game, Fixed([0.0, 0.0], [1.0, 1.0], alone_defects(1.0)), Rules(1), 1, 1.0)
    assert audit.gains[0].flatten().tolist() == pytest.approx([5.0] * 4)
    assert audit.response_gains[0].tolist() == pytest.approx([10.0, 10.0])


def test_incentive_compatible_optimum_of_the_two_step_dilemma():
    # Specification 2.1: agent 0 cooperates with 7/8, round 1 pays (0, 2.875), welfare 6.875; nobody gains by leaving.
    policies = Fixed([1.0, 1.0], [0.0, 0.0], alone_defects(7 / 8))
    audit = audit_exact(game64(), policies, Rules(1), 1, 1.0)
    assert audit.returns[0].tolist() == pytest.approx([2.0, 4.875])
    assert audit.gains.max().item() == pytest.approx(0.0, abs=1e-9)
    assert audit.slack[0, 0, 3, 0].item() == pytest.approx(0.0, abs=1e-9)


def test_estimated_audit_agrees_with_the_exact_one():
    game, rules = game64(), Rules(1)
    policies = Fixed([0.7, 0.6], [0.3, 0.2], alone_defects(0.5))
    exact = audit_exact(game, policies, rules, 1, 0.9)
    source = torch.Generator().manual_seed(2)
    found = audit_estimated(TensorArena(game), policies, rules, 1, 0.9, source, episodes=100, continuations=10)
    assert (found.gains - exact.gains).abs().le(2 * found.gain_errors + 0.05).all()
    assert (found.slack - exact.slack).abs().le(2 * found.slack_errors + 0.05).all()
    long = audit_estimated(TensorArena(game), policies, rules, 1, 0.9, source, episodes=3000, continuations=2)
    assert torch.allclose(long.values, exact.values, atol=0.5)  # standard errors are below 0.12
    assert torch.allclose(long.probabilities, exact.probabilities.float(), atol=0.04)


def test_estimated_gain_of_the_last_defection():
    # Specification 2.3: all commit to a naive mediator; keeping at the last step ends with 64.07 instead of 57.67.
    class Naive:
        def choices(self, observations, locks):
            return torch.tensor([0.0, -30.0, 30.0]).expand(*observations.shape[:-1], 3)

        def mediation(self, features, locks, committed):
            return torch.tensor([-30.0, 30.0]).expand(*committed.shape, 2)

    arena, source = TensorArena(IteratedPublicGoodsGame(3)), torch.Generator().manual_seed(0)
    audit = audit_estimated(arena, Naive(), Rules(1), 1, 1.0, source, episodes=2, continuations=2)
    assert audit.returns[0].tolist() == pytest.approx([56.665] * 3, abs=1e-3)
    assert audit.gains[0, 9].tolist() == pytest.approx([64.0723 - 57.6650] * 3, abs=1e-3)
    assert audit.gains[0, :9].max() <= 0
    # A window of 3 does not divide 10 steps: at the last one all are free again, and defect as before.
    odd = audit_estimated(arena, Naive(), Rules(3), 1, 1.0, source, episodes=2, continuations=2)
    assert odd.gains[0, 9].tolist() == pytest.approx([64.0723 - 57.6650] * 3, abs=1e-3)
    assert odd.gains[0, :9].max() <= 1e-4
    window = audit_estimated(arena, Naive(), Rules(5), 1, 1.0, source, episodes=2, continuations=2)
    assert window.gains.max().item() == pytest.approx(0, abs=1e-4)  # divides the horizon: nobody decides near its end


def test_sampled_gradients_equal_exact_ones_in_expectation():
    """Of agents and mediator, on the two-step dilemma, against automatic differentiation of the enumerated game."""
    game, rules, margin, episodes, discount = game64(), Rules(2), 0.1, 2**15, 0.9
    config = dataclasses.replace(MARKOV_PRESETS["two-step-pd"], seeds=1, hidden=4, layers=1, window=2)
    arena, source = TensorArena(game), torch.Generator().manual_seed(3)
    players = MarkovPlayers(arena, config, source).double()
    rounds = unfold(game, rules)
    found = [chances(current, players, rules, 1) for current in rounds]
    values = evaluate_rounds(rounds, found, discount)
    ic, e = 0.7, 0.4

    agents, mediator = list(players.agents.parameters()), list(players.mediator.parameters())
    each = [torch.autograd.grad(values[0].states[0, 0, i], agents, retain_graph=True) for i in range(2)]
    exact_agents = [torch.stack([each[0][k][0], each[1][k][1]]) for k in range(len(agents))]
    objective = torch.zeros((), dtype=torch.float64)
    for current, policy, here, visits in zip(rounds, found, values, reach(rounds, found), strict=True):
        coalitions = (outcome_chances(current, policy).unsqueeze(-1) * here.outcomes.detach()).sum(-2)
        free, members = (current.locks == 0).unsqueeze(1), coalition_members(2)
        priced = members * (1.0 + ic * free) - ~members * (e * free) * (1 + margin * here.coalitions.detach().sign())
        formed = (visits.unsqueeze(-1) * coalition_probabilities(policy.commit)).detach()
        objective = objective + (formed.unsqueeze(-1) * priced * coalitions).sum()
    exact_mediator = torch.autograd.grad(objective, mediator)

    played = roll_out(arena, players, rules, (1, episodes), source)
    learnt, zeros = Episodes.of(played), np.zeros((1, 2, 2, episodes))
    returns = agent_returns(learnt, np.zeros((1, 2, 3, episodes)), discount, 1.0)
    logits = players.choices(played.observations[:, :-1], played.locks[:, :-1])
    legal = masked(logits, played.legal[:, :-1], played.locks[:, :-1], mediated=True)
    powers = discount ** np.arange(2).reshape(2, 1)
    slope = 2 * agents_slope(by_agent(legal), learnt, powers * returns, 0.0)  # a sum over two steps, not a mean
    sampled_agents = torch.autograd.grad(legal, agents, by_sample(slope, legal))

    index = coalition_number(played.committed)
    constant = agents_first(values_at(rounds, values, played, index).detach())
    evidence = weigh(learnt, returns, constant, zeros, zeros + ic, zeros + e, margin)
    logits = players.mediation(played.features[:, :-1], played.locks[:, :-1], played.committed)
    slope = (
        mediator_slope(by_agent(logits), learnt, evidence.advantages, 0.0) * (played.committed.sum() / episodes).item()
    )
    sampled_mediator = torch.autograd.grad(logits, mediator, by_sample(slope, logits))

    for sampled, exact in ((sampled_agents, exact_agents), (sampled_mediator, exact_mediator)):
        assert max(part.abs().max() for part in exact) > 0.3
        assert all(torch.allclose(*pair, atol=0.12) for pair in zip(sampled, exact, strict=True))


def by_agent(logits):
    """`[S, T, B, N, A]` as `[S, N, A, T B]`."""
    return logits.detach().permute(0, 3, 4, 1, 2).flatten(3).numpy()


def by_sample(slope, logits):
    """`[S, N, A, T B]` as logits `[S, T, B, N, A]`."""
    seeds, steps, games, n_agents, kinds = logits.shape
    return torch.from_numpy(slope).reshape(seeds, n_agents, kinds, steps, games).permute(0, 3, 4, 1, 2)


def values_at(rounds, values, played, index):
    """`V_i(s, C)` of the enumerated game in the states of played episodes, `[1, T, B, N]`."""
    columns = []
    for step, (current, here) in enumerate(zip(rounds, values, strict=True)):
        same = (played.locks[0, step].unsqueeze(1) == current.locks).all(-1)  # the round and the locks are the state
        columns.append(here.coalitions[0, same.long().argmax(-1), index[0, step]])
    return torch.stack(columns).unsqueeze(0)


def test_evidence_of_one_episode_by_hand():
    # Agent 0 commits alone and is made to cooperate, agent 1 defects; round 1 pays (-5, 7), nothing follows.
    one = trainer("two-step-pd", seeds=1)
    played = roll_out(one.arena, one.players, one.rules, (1, 1), torch.Generator().manual_seed(0))
    committed = torch.tensor([[[[True, False]], [[False, False]]]])
    locks, alive = torch.zeros_like(played.locks), torch.ones_like(played.alive)
    played = played._replace(committed=committed, locks=locks, alive=alive)
    learnt = Episodes.of(played)
    returns, zero = np.array([[[[-5.0], [0.0]], [[7.0], [0.0]]]]), np.zeros((1, 2, 2, 1))  # agents, then steps
    values, next_door = (zero + np.reshape(by_agent, (2, 1, 1)) for by_agent in ([-1.0, 3.0], [0.0, 2.0]))
    evidence = weigh(learnt, returns, values, next_door, zero + 0.5, zero + 2.0)
    assert evidence.ic[0, 0, 0, 0] == 0 - (-5)  # out of {0} it would have 0
    assert evidence.e[0, 1, 0, 0] == 7 - 2  # within {0, 1} agent 1 would have 2
    assert evidence.advantages[0, 0, 0, 0] == 1.5 * (-5 + 1) - 2 * (7 - 3)
    assert evidence.members[0, :, 0, 0].tolist() == [True, False]
    assert evidence.outsiders[0, :, :, 0].tolist() == [[False, True], [True, True]]
    normal = weigh(learnt, returns, values, next_door, zero + 0.5, zero + 2.0, normalise=True)
    assert normal.advantages[0, 0, 0, 0] == evidence.advantages[0, 0, 0, 0] / 3
    bound = Episodes.of(played._replace(locks=locks + torch.tensor([1, -1])))
    assert weigh(bound, returns, values, next_door, zero + 0.5, zero + 2.0).advantages[0, 0, 0, 0] == -4


def test_multiplier_tables_share_as_they_say():
    committed = np.array([[[True, True, False], [False, True, False]]])[..., np.newaxis]  # two agents, three steps
    violation = np.array([[[1.0, 5.0, 0.0], [3.0, 7.0, 0.0]]])[..., np.newaxis]
    counted = np.broadcast_to(np.array([True, True, False])[:, np.newaxis], committed.shape)
    by_step = [0, 0, 1.0, 3.0, *[0] * 4, *[0] * 6, 5.0, 7.0, *[0] * 8]  # two agents in four coalitions at each step
    for form, means in (("scalar", [4.0]), ("agent", [3.0, 5.0]), ("size", [0, 2.0, 6.0]), ("step", by_step)):
        table = MultiplierTable(form, 2, 1, 0.1, horizon=3)
        table.ascend(committed, violation, counted)
        assert table.multiplier.value.log().div(0.1)[0].tolist() == pytest.approx(means)
    table = MultiplierTable("coalition", 2, 1, 0.1)
    table.ascend(committed, violation, counted)
    assert np.log(table.at(committed)) / 0.1 == pytest.approx(violation, abs=1e-5)


def test_multiplier_table_refuses_more_than_fit():
    with pytest.raises(TooLargeError, match=r"4915200 multipliers by step; use --multipliers size"):
        MultiplierTable("step", 15, 1, 0.1, horizon=10)


def test_multiplier_table_damps_by_the_recent_violation():
    """Two ascents of 0.1 by hand: ln lambda sums the violations 2 and -4, the average takes a twentieth of each."""
    committed, one = np.ones((1, 1, 1, 1), bool), np.ones((1, 1, 1, 1))
    table = MultiplierTable("step", 1, 1, 0.1, damping=3.0)
    assert table.at(committed).item() == 1
    table.ascend(committed, 2 * one, committed)
    assert np.log(table.at(committed)).item() == pytest.approx(0.1 * 2 + 3 * 0.1)
    table.ascend(committed, -4 * one, committed)
    assert np.log(table.at(committed)).item() == pytest.approx(-0.1 * 2 + 3 * (0.95 * 0.1 - 0.2))
    other = MultiplierTable("step", 1, 1, 0.1, damping=3.0)
    other.load_state_dict(table.state_dict())
    table.ascend(committed, one, committed)
    assert np.log(other.at(committed)).item() == pytest.approx(-0.1 * 2 + 3 * (0.95 * 0.1 - 0.2))
    assert other.at(~committed).item() == 1  # never visited


def test_multiplier_network_climbs_each_states_violation():
    """A network tells apart what one number cannot: violated in round 1, slack in round 2; the clip holds."""
    one = trainer("two-step-pd", seeds=1, multiplier_start=1.0)
    network = one.networks["ic"]
    features = torch.eye(2).reshape(1, 2, 2)
    state = (features, torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
    violation = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(250):
        optimiser.zero_grad()
        (-MultiplierNetwork.gain(network.log_multipliers(*state), violation, torch.ones(1, 2, 2))).backward()
        optimiser.step()
    value = MultiplierNetwork.clipped(network.log_multipliers(*state)).log()
    assert torch.allclose(value, 4 * violation, atol=0.5)
    assert network.log_multipliers(*state).abs().max() < 6
    empty = MultiplierNetwork.gain(network.log_multipliers(*state), violation, torch.zeros(1, 2, 2))
    assert empty.item() == 0


@pytest.mark.parametrize("form", ["scalar", "agent", "size", "step", "coalition", "network"])
def test_training_survives_batches_in_which_nobody_commits(form):
    one = trainer(mediator="constrained", multipliers=form, exploration=0.0, games=4)
    with torch.no_grad():
        one.players.agents.network.biases[-1][..., -1] = -1e4
    before = [weight.clone() for weight in one.players.mediator.parameters()]
    for _ in range(2):
        one.iterate()
    assert all(weight.isfinite().all() for weight in one.players.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, one.players.mediator.parameters(), strict=True))
    if form in ("size", "step", "coalition"):  # coalitions never visited keep their multipliers
        assert (one.tables["ic"].multiplier.value == one.config.multiplier_start).all()
        untouched = one.tables["e"].multiplier.value == one.config.multiplier_start
        assert untouched.any()
        assert not untouched.all()


def test_training_same_seed_same_result_on_any_number_of_threads():
    ones = [trainer(seed=seed, threads=threads) for seed, threads in ((0, 1), (0, 2), (1, 1))]
    for one in ones:
        one.iterate()
        one.iterate()
    weights = [torch.cat([part.flatten() for part in one.players.parameters()]) for one in ones]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("preset", ["iterated-pgg", "coin", "repeated-pd"])
def test_training_resumed_equals_uninterrupted(preset, tmp_path):
    options = {**TINY, "mediator": "constrained"}
    straight = dataclasses.replace(MARKOV_PRESETS[preset], out_dir=str(tmp_path / "straight"), **options)
    broken = dataclasses.replace(straight, out_dir=str(tmp_path / "broken"))
    whole = train(Run(straight, resume=False), straight)
    half, run = MarkovTrainer(broken), Run(broken, resume=False)
    with run:
        for step in run.steps(0, 2, half.state_dict):
            figures = half.iterate()
            if figures:
                run.log(step + 1, figures)
    resumed = train(Run(broken, resume=True), broken)
    assert (tmp_path / "straight/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()
    for pair in zip(whole.players.parameters(), resumed.players.parameters(), strict=True):
        assert torch.equal(*pair)


def test_training_without_mediator_defects():
    one = trainer("two-step-pd", mediator="none", iterations=150, entropy_start=0.1)
    for _ in range(one.config.iterations):
        one.iterate()
    audit = audit_exact(one.arena.game, one.players, one.rules, one.config.seeds, 0.99)
    assert audit.returns.abs().max() < 0.5  # specification 2.1: (0, 0) in both rounds
    assert audit.commitment.max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 11}, "window is 11, but an episode has 10 steps"),
        ({"window": 0}, "window is 0"),
        ({"game": "env"}, "give --env package.module:factory"),
        ({"env": "a.b:c"}, "give --env package.module:factory"),
        ({"game": "two-step-pd", "n_agents": 2}, "two-step-pd has 2 steps"),
        ({"game": "repeated-pd"}, "repeated-pd has 2 agents"),
        ({"decay": 1.5}, "decay must lie in"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_config_refuses_what_cannot_be_played(options, message):
    with pytest.raises(InputError, match=message):
        MarkovConfig("custom", **options)
