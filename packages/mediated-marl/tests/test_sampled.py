"""Sampled gradients against exact ones, by hand, twice, and interrupted; training against known equilibria."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from gt_core.run import Run

from mediated_marl import cli
from mediated_marl.audit import audit_one_step
from mediated_marl.batches import batches_of
from mediated_marl.by_hand import log_policy_gradient
from mediated_marl.config import PRESETS
from mediated_marl.constraints import coalition_lagrangian, violations
from mediated_marl.evaluate import draw, play
from mediated_marl.games import PublicGoodsGame, prisoners_dilemma, sacrifice
from mediated_marl.games.public_goods import public_good
from mediated_marl.one_step import EnumeratedGame, SymmetricPublicGoods, one_step_game
from mediated_marl.report import audit_run
from mediated_marl.sampled import (
    SampledTrainer,
    advantage_coefficients,
    advantage_sums,
    linear_violations,
    measured_violation,
    outsider_shares,
)
from mediated_marl.train import train


def trained(preset="sampled", **options):
    config = dataclasses.replace(PRESETS[preset], **{"seeds": 3, **options})
    trainer = SampledTrainer(config)
    for _ in range(config.iterations):
        trainer.iterate()
    with torch.no_grad():
        players = trainer.players
        policies, mediator = players.log_policies().exp(), players.log_mediator().exp()
        return trainer, mediator, audit_one_step(trainer.game, policies, players.outside(), mediator)


def test_sampled_training_without_mediator_keeps():
    _, _, audit = trained(mediator="none", iterations=400)
    assert audit.payoffs.mean(-1).max() < 0.02  # Table 3: .012
    assert audit.commitment.max() == 0


def test_sampled_training_naive_ends_with_two_of_three():
    # Own derivation: k* = 2 members in the pure equilibria, mean reward 2 / 3 (Table 3: .652).
    _, _, audit = trained(mediator="naive", iterations=1000)
    assert audit.payoffs.mean(-1).tolist() == pytest.approx([2 / 3] * 3, abs=0.03)
    assert (audit.commitment > 0.5).sum(-1).tolist() == [2, 2, 2]


def test_sampled_training_under_encouragement_reaches_the_optimum():
    _, mediator, audit = trained(iterations=1200)
    assert audit.payoffs.mean(-1).min() > 0.95
    assert mediator[:, 1, 0, 1].max() <= 0.75 + 0.01  # exact bound at size 2 of 3


GAMES = {"pgg": SymmetricPublicGoods(PublicGoodsGame(4)), "sacrifice": EnumeratedGame(sacrifice())}


def some_policies(game, seed=1):
    """Logits of policies and mediator for one seed, and what agents play outside."""
    source = torch.Generator().manual_seed(seed)
    rows, alike = (game.n_agents, 1) if isinstance(game, SymmetricPublicGoods) else (2**game.n_agents, game.n_agents)
    logits = torch.randn(1, game.n_agents, game.n_actions + 1, generator=source)
    return logits, torch.randn(1, rows, alike, game.n_actions, generator=source), logits[..., :-1].softmax(-1)


@pytest.mark.parametrize("own_games", [False, True])
@pytest.mark.parametrize("name", GAMES)
def test_sampled_gradient_of_the_mediator_equals_the_exact_one_in_expectation(name, own_games):
    game, n_games, margin = GAMES[name], 2**16, 0.1
    logits, mediator_logits, outside = some_policies(game)
    if name == "pgg":  # the exact table takes outsiders to keep
        logits[..., 1], outside = -30, torch.tensor([1.0, 0.0]).expand(1, 4, 2)
    policies, mediator = logits.softmax(-1), mediator_logits.requires_grad_().softmax(-1)
    table = game.table(outside, mediator.expand(-1, -1, game.n_agents, -1))
    source = torch.Generator().manual_seed(2)
    ic, e = (torch.rand(table.values.shape, generator=source) * 2 for _ in range(2))
    lagrangian = coalition_lagrangian(game, table, violations(table, margin), ic, e)
    uniform = torch.full_like(lagrangian, 1 / lagrangian.shape[-1])
    exact = (uniform if own_games else game.probabilities(policies[..., -1])) * lagrangian
    (exact,) = torch.autograd.grad(exact.sum(), mediator_logits)

    batches = batches_of(game, (1, n_games), np.random.default_rng(0))
    chances = mediator.detach().numpy()
    lessons = batches.teach(outside.numpy(), chances) if own_games else batches.play(policies.numpy(), chances)[1]
    values, neighbours = (part.detach().numpy() for part in table)
    by_ic, by_e = linear_violations(values, neighbours, margin)
    inside, outsiders = game.members.numpy(), game.outsiders.numpy()
    priced = [(inside * ic.numpy(), by_ic), (outsiders * e.numpy(), by_e)]
    sums = advantage_sums(advantage_coefficients(inside, values, priced), lessons)[:, -chances.shape[1] :]
    sampled = log_policy_gradient(np.log(chances), sums.reshape(chances.shape), 0.0) / n_games
    assert exact.abs().max() > 0.1
    assert np.abs(sampled - exact.numpy()).max() < 0.05  # four standard errors, advantages up to 3 per member


@pytest.mark.parametrize("name", GAMES)
def test_choices_of_agents_have_their_exact_expectation(name):
    """Agent i chooses a in a share pi_i(a) of games and earns there what deviating to a would."""
    game, n_games = GAMES[name], 2**16
    logits, mediator_logits, _ = some_policies(game)
    policies, mediator = logits.softmax(-1), mediator_logits.softmax(-1)
    choices, lessons = batches_of(game, (1, n_games), np.random.default_rng(0)).play(policies.numpy(), mediator.numpy())
    earned = policies * game.deviations(policies, mediator.expand(-1, -1, game.n_agents, -1))
    assert choices.counts / n_games == pytest.approx(policies.numpy(), abs=4 * 0.5 / n_games**0.5)
    assert choices.earnings / n_games == pytest.approx(earned.numpy(), abs=4 * 5 / n_games**0.5)
    assert lessons.seen / n_games == pytest.approx(game.probabilities(policies[..., -1]).numpy(), abs=0.01)


def test_batch_of_public_goods_by_hand():
    # Three of four commit and the mediator contributes for all; agent 3 contributes by itself: everybody earns 1.
    game = SymmetricPublicGoods(PublicGoodsGame(4))
    policies = np.array([[[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 0]]], np.float32)
    contribute = np.broadcast_to(np.array([0, 1], np.float32), (1, 4, 1, 2))
    choices, lessons = batches_of(game, (1, 5), np.random.default_rng(0)).play(policies, contribute)
    assert choices.counts[0].tolist() == (5 * policies[0]).tolist()
    assert choices.earnings[0] == pytest.approx(5 * policies[0])
    assert lessons.seen.tolist() == [[0, 0, 0, 5, 0]]
    assert lessons.rewards[0, 3] == pytest.approx([5, 5])
    assert lessons.actions[0, 3] == pytest.approx(np.array([[0, 15], [0, 15], [0, 15]]), abs=1e-5)


def test_lessons_sum_what_the_games_were():
    """The sums of a batch, against its games one by one."""
    game, n_games = SymmetricPublicGoods(PublicGoodsGame(4)), 300
    _, mediator_logits, outside = some_policies(game)
    batches = batches_of(game, (1, n_games), np.random.default_rng(0))
    lessons = batches.teach(outside.numpy(), mediator_logits.softmax(-1).numpy())
    formed, *gifts = lessons.outcome
    scale, offset = np.full((1, 5, 2), 1.5), np.full((1, 5, 2), -0.7)
    rewards, actions, slack = np.zeros((5, 2)), np.zeros((5, 3, 2)), np.zeros((5, 2))
    for size, m, o in zip(formed[0].argmax(0), *(gift[0].astype(int) for gift in gifts), strict=True):
        played = torch.tensor([1.0] * m + [0.0] * (size - m) + [1.0] * o + [0.0] * (4 - size - o))
        paid = public_good(played, game.game.multiplier).numpy()
        slots = np.array([paid[:size].mean() if size else 0, paid[size:].mean() if size < 4 else 0])
        rewards[size] += slots
        actions[size] += np.outer([1, *slots], [size - m, m])
        slack[size] += np.minimum(1.5 * slots - 0.7, 0)
    assert lessons.seen[0].sum() == n_games
    assert lessons.rewards[0] == pytest.approx(rewards, abs=1e-4)
    assert lessons.actions[0] == pytest.approx(actions, abs=1e-3)
    assert batches.slack(lessons, scale, offset)[0] == pytest.approx(slack, abs=1e-4)


def test_draw_inverts_the_distribution_function():
    probabilities = torch.tensor([0.25, 0.0, 0.75])
    assert draw(probabilities.expand(4, 3), torch.tensor([0.0, 0.24, 0.25, 0.99])).tolist() == [0, 0, 2, 2]


def test_games_played_one_by_one_by_hand():
    # Agent 0 of the prisoner's dilemma commits alone and is made to cooperate, agent 1 defects: (-5, 7).
    cooperate = torch.tensor([0.0, 1.0]).expand(1, 4, 2, 2)
    committed = torch.tensor([[[True, False]]])
    game = one_step_game(prisoners_dilemma())
    games = play(game, committed, torch.tensor([[[0, 0]]]), cooperate, torch.full((1, 1, 2), 0.5))
    assert games.rewards.tolist() == [[[-5, 7]]]


def test_advantage_of_one_game_by_hand():
    # The same game, drawn as a batch of one.
    game = one_step_game(prisoners_dilemma())
    policies = np.array([[[0, 0, 1], [1, 0, 0]]], np.float32)
    cooperate = np.broadcast_to(np.array([0, 1], np.float32), (1, 4, 2, 2))
    batches = batches_of(game, (1, 1), np.random.default_rng(0))
    choices, lessons = batches.play(policies, cooperate)
    assert choices.earnings[0].tolist() == [[0, 0, -5], [7, 0, 0]]
    values = torch.tensor([[[0.0, 0], [-1, 3], [3, -1], [2, 2]]])
    ic, e = linear_violations(values.numpy(), game.neighbours(values).numpy(), 0.0)
    found = [measured_violation(batches, lessons, one, 1.0) for one in (ic, e)]
    assert found[0][0, 1, 0] == 0 - (-5)  # out of {0} it would have 0
    assert found[1][0, 1, 1] == 7 - 2  # within {0, 1} agent 1 would have 2
    assert measured_violation(batches, lessons, ic, 0.5)[0, 1].tolist() == [5, 0.5 * (2 - 7)]  # slack counts half
    inside, outside = game.members.numpy(), game.outsiders.numpy()
    coefficients = advantage_coefficients(inside, values.numpy(), [(0.5 * inside, ic), (2 * outside, e)])
    # (-5 - -1) - 0.5 * 5 - 2 * 5, for the one member and its action
    assert advantage_sums(coefficients, lessons)[0, 1].tolist() == [0, -16.5, 0, 0]


def test_published_evidence_averages_outsiders_and_counts_members():
    shares, weights = outsider_shares(SymmetricPublicGoods(PublicGoodsGame(4)), "published")
    assert shares[:, 1].tolist() == [0, 0, 1, 1, 0]
    assert weights[:, 1].tolist() == [0, 0, 2, 3, 0]


def test_sampled_training_survives_batches_in_which_nobody_commits():
    trainer = SampledTrainer(dataclasses.replace(PRESETS["paper"], seeds=2, games=4, mediator="constrained"))
    with torch.no_grad():
        trainer.players.logits[..., -1] = -1e4
    before = [parameter.clone() for parameter in trainer.players.mediator.parameters()]
    for _ in range(3):
        trainer.iterate()
    assert all(parameter.isfinite().all() for parameter in trainer.players.parameters())
    assert (trainer.e.multiplier.value == 1).all()
    assert all(
        torch.allclose(a, b, atol=0.01) for a, b in zip(before, trainer.players.mediator.parameters(), strict=True)
    )


@pytest.mark.parametrize("preset", ["sampled", "paper", "sampled-sacrifice"])
def test_sampled_training_same_seed_same_result(preset):
    first, second = (trained(preset, iterations=5)[0].state_dict() for _ in range(2))
    assert torch.equal(first["players"]["logits"], second["players"]["logits"])
    other = trained(preset, iterations=5, seed=1)[0].state_dict()
    assert not torch.equal(first["players"]["logits"], other["players"]["logits"])


def test_seeds_share_nothing():
    """What the other seeds play does not reach a seed: its gradient is zero where only their loss is taken."""
    trainer = SampledTrainer(dataclasses.replace(PRESETS["sampled"], seeds=2, games=8))
    log_mediator = trainer.players.log_mediator()
    weights = list(trainer.players.mediator.parameters())
    for gradient in torch.autograd.grad(log_mediator[0].sum(), weights):
        assert gradient[1].abs().sum() == 0


def test_sampled_training_resumed_equals_uninterrupted(tmp_path):
    options = {"seeds": 2, "iterations": 20, "n_agents": 4, "games": 16}
    straight = dataclasses.replace(PRESETS["sampled"], out_dir=str(tmp_path / "straight"), **options)
    broken = dataclasses.replace(straight, out_dir=str(tmp_path / "broken"))
    train(Run(straight, resume=False), straight)
    half = SampledTrainer(broken)
    run = Run(broken, resume=False)
    with run:
        for step in run.steps(0, 10, half.state_dict):
            figures = half.iterate()
            if figures:
                run.log(step + 1, figures)
    train(Run(broken, resume=True), broken)
    assert (tmp_path / "straight/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()
    assert audit_run(straight.directory) == audit_run(broken.directory)


@pytest.mark.parametrize("name", GAMES)
def test_taught_coalitions_are_equally_likely(name):
    game, n_games = GAMES[name], 20_000
    _, mediator_logits, outside = some_policies(game)
    batches = batches_of(game, (1, n_games), np.random.default_rng(0))
    lessons = batches.teach(outside.numpy(), mediator_logits.softmax(-1).numpy())
    count = len(game.sizes)
    assert lessons.seen / n_games == pytest.approx(np.full((1, count), 1 / count), abs=0.02)


def test_train_command_learns_from_samples(tmp_path, monkeypatch):
    run = tmp_path / "run"
    arguments = ["--preset", "paper", "--out-dir", str(run), "--seeds", "2", "--iterations", "30", "--games", "8"]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    cli.train()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4  # iterations 1, 10, 20 and 30
    assert len(json.loads((run / "result.json").read_text())["mediated_contribution_per_seed"]) == 2


@pytest.mark.parametrize(("field", "value"), [("games", 0), ("final_rates", 0.0), ("gradient_memory", 1.0)])
def test_config_refuses_what_cannot_be_sampled(field, value):
    with pytest.raises(InputError, match=f"{field} must"):
        dataclasses.replace(PRESETS["sampled"], **{field: value})


def test_runs_of_different_learners_have_different_names():
    names = {dataclasses.replace(PRESETS[preset], mediator="e").name for preset in ("pgg", "sampled", "paper")}
    assert names == {"pgg-3-e-seed0", "sampled-pgg-3-e-seed0", "paper-pgg-3-e-seed0"}
