"""Sampled gradients against exact ones, by hand, twice, and interrupted; training against known equilibria."""

import dataclasses
import json
import sys

import pytest
import torch
from gt_core.errors import InputError
from gt_core.run import Run

from mediated_marl import cli
from mediated_marl.audit import audit_one_step
from mediated_marl.config import PRESETS
from mediated_marl.constraints import coalition_lagrangian, violations
from mediated_marl.games import PublicGoodsGame, prisoners_dilemma, sacrifice
from mediated_marl.one_step import CoalitionTable, EnumeratedGame, SymmetricPublicGoods, one_step_game
from mediated_marl.report import audit_run
from mediated_marl.sampled import (
    SampledTrainer,
    action_sums,
    collect,
    draw,
    member_actions,
    play,
    weigh_evidence,
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


@pytest.mark.parametrize("name", GAMES)
def test_sampled_gradients_equal_exact_ones_in_expectation(name):
    """Both gradients with respect to the policies' logits, within four standard errors of the batch mean."""
    game, n_games, margin = GAMES[name], 2**16, 0.1
    source = torch.Generator().manual_seed(1)
    n_agents, n_actions = game.n_agents, game.n_actions
    rows, alike = (n_agents, 1) if name == "pgg" else (2**n_agents, n_agents)
    logits = torch.randn(1, n_agents, n_actions + 1, generator=source).requires_grad_()
    mediator_logits = torch.randn(1, rows, alike, n_actions, generator=source).requires_grad_()
    policies, mediator = logits.softmax(-1), mediator_logits.softmax(-1)
    outside = logits[..., :-1].softmax(-1).detach()
    members = mediator.expand(-1, -1, n_agents, -1)
    table = game.table(outside, members)
    shape = table.values.shape
    ic, e = (torch.rand(shape, generator=source) * 2 for _ in range(2))

    lagrangian = coalition_lagrangian(game, table, violations(table, margin), ic, e)
    exact = (game.probabilities(policies[..., -1]).detach() * lagrangian).sum()
    (exact_mediator,) = torch.autograd.grad(exact, mediator_logits, retain_graph=True)
    selfish = (policies * game.deviations(policies.detach(), members.detach())).sum()
    (exact_agents,) = torch.autograd.grad(selfish, logits)

    def luck():
        return torch.rand(1, n_games, n_agents, generator=source)

    chosen = draw(policies.detach().unsqueeze(1), luck())
    games = play(game, chosen == n_actions, chosen.clamp(max=n_actions - 1), mediator.detach(), luck())
    evidence = weigh_evidence(game, games, CoalitionTable(*(part.detach() for part in table)), ic, e, margin)
    counts = member_actions(game, games, alike=alike == 1)
    weighted = counts * evidence.advantages[..., None, None]

    sums = collect(rows, game.row(games.number), weighted)
    (sampled_mediator,) = torch.autograd.grad((sums * mediator_logits.log_softmax(-1)).sum() / n_games, mediator_logits)
    sums = action_sums(chosen, games.rewards, n_actions + 1)
    (sampled_agents,) = torch.autograd.grad((sums * logits.log_softmax(-1)).sum() / n_games, logits)

    error = 4 * (2 * weighted.square().sum(-1).amax().item() / n_games) ** 0.5
    assert (sampled_mediator - exact_mediator).abs().max() < min(error, 0.1)
    assert exact_mediator.abs().max() > 0.1
    assert (sampled_agents - exact_agents).abs().max() < 4 * games.rewards.abs().max() / n_games**0.5


def test_draw_inverts_the_distribution_function():
    probabilities = torch.tensor([0.25, 0.0, 0.75])
    assert draw(probabilities.expand(4, 3), torch.tensor([0.0, 0.24, 0.25, 0.99])).tolist() == [0, 0, 2, 2]


def test_evidence_of_one_game_by_hand():
    # Agent 0 of the prisoner's dilemma commits alone and is made to cooperate, agent 1 defects: (-5, 7).
    game = one_step_game(prisoners_dilemma())
    cooperate = torch.tensor([0.0, 1.0]).expand(1, 4, 2, 2)
    committed = torch.tensor([[[True, False]]])
    games = play(game, committed, torch.tensor([[[0, 0]]]), cooperate, torch.full((1, 1, 2), 0.5))
    assert games.rewards.tolist() == [[[-5, 7]]]
    values = torch.tensor([[[0.0, 0], [-1, 3], [3, -1], [2, 2]]])
    table = CoalitionTable(values, game.neighbours(values))
    evidence = weigh_evidence(game, games, table, torch.full((1, 4, 2), 0.5), torch.full((1, 4, 2), 2.0))
    assert evidence.ic[0, 0, 0] == 0 - (-5)  # out of {0} it would have 0
    assert evidence.e[0, 0, 1] == 7 - 2  # within {0, 1} agent 1 would have 2
    # (-5 - -1) - 0.5 * 5 - 2 * 5
    assert evidence.advantages.tolist() == [[-16.5]]


def test_published_evidence_averages_outsiders_and_counts_members():
    game = SymmetricPublicGoods(PublicGoodsGame(4))
    committed = torch.tensor([[[True, True, False, False], [True, False, False, False], [True] * 4]])
    games = play(
        game,
        committed,
        torch.zeros(1, 3, 4).long(),
        torch.tensor([0.0, 1.0]).expand(1, 4, 1, 2),
        torch.full((1, 3, 4), 0.9),
    )
    zero = torch.zeros(1, 5, 2)
    evidence = weigh_evidence(game, games, CoalitionTable(zero, zero), 0.0, torch.ones(1, 5, 2), outsiders="published")
    assert evidence.e_weights[0, :, 1].tolist() == [2, 0, 0]
    # two members that contribute earn 0 each, the outsiders 1 each: advantage 0 - mean 1
    assert evidence.advantages[0, 0].item() == pytest.approx(-1)


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


def test_drawn_coalitions_are_equally_likely():
    source = torch.Generator().manual_seed(0)
    for game in GAMES.values():
        drawn = game.draw_coalitions((1, 20_000), source)
        counts = torch.bincount(game.number(drawn)[0], minlength=len(game.sizes)) / 20_000
        assert torch.allclose(counts, torch.full_like(counts, 1 / len(game.sizes)), atol=0.02)
        assert torch.allclose(drawn.float().mean((0, 1)), torch.tensor(0.5), atol=0.02)


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
