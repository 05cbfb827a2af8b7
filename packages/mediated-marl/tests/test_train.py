"""Exact training against known equilibria, by hand, twice, and interrupted; the commands in seconds."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from gt_core.run import Run

from mediated_marl import cli
from mediated_marl.audit import audit_one_step, flat_audit
from mediated_marl.closed_forms import critical_multiplier, encouragement_bounds
from mediated_marl.config import PRESETS
from mediated_marl.constraints import ConstraintMultipliers, coalition_lagrangian, violations
from mediated_marl.games import MatrixGame, PublicGoodsGame, prisoners_dilemma, sacrifice
from mediated_marl.networks import MASKED, StackedMLP, entropy
from mediated_marl.one_step import EnumeratedGame, SymmetricPublicGoods, one_step_game
from mediated_marl.report import audit_run
from mediated_marl.train import ExactTrainer, train


def trained(preset="pgg", **options):
    config = dataclasses.replace(PRESETS[preset], **{"seeds": 3, **options})
    trainer = ExactTrainer(config)
    for _ in range(config.iterations):
        trainer.iterate()
    with torch.no_grad():
        players = trainer.players
        policies, mediator = players.log_policies().exp(), players.log_mediator().exp()
        audit = audit_one_step(trainer.game, policies, players.outside(), mediator)
    return trainer, mediator, audit


def test_exact_training_without_mediator_keeps():
    _, _, audit = trained(mediator="none", iterations=500)
    assert audit.payoffs.mean(-1).max() < 0.02  # Table 3: .012
    assert audit.commitment.max() == 0


def test_exact_training_naive_ends_with_two_of_three():
    # Own derivation: the pure equilibria of the naive mediator have k* = 2 members, mean reward 2 / 3 (Table 3: .652).
    _, _, audit = trained(mediator="naive", iterations=1000)
    assert audit.payoffs.mean(-1).tolist() == pytest.approx([2 / 3] * 3, abs=0.01)
    assert (audit.commitment > 0.5).sum(-1).tolist() == [2, 2, 2]


@pytest.mark.parametrize(("n_agents", "iterations"), [(3, 800), (10, 1500)])
def test_exact_training_under_encouragement_reaches_the_optimum(n_agents, iterations):
    trainer, mediator, audit = trained(mediator="e", n_agents=n_agents, iterations=iterations)
    assert audit.payoffs.mean(-1).min() > 0.995
    contribution = trainer.game.contribution(mediator)[:, -2]
    assert (contribution <= encouragement_bounds(n_agents, 2.0)[-2] + 0.01).all()
    assert audit.deviation_gains.max() < 0.005


def test_exact_training_sacrifice_under_incentive_compatibility():
    _, _, audit = trained("sacrifice", iterations=1500)
    assert audit.payoffs.sum(-1).min() > 4.4  # exact 4.5
    assert audit.payoffs[:, 1].min() > 0.98  # exact 1
    assert audit.deviation_gains.max() < 0.01


def test_exact_training_prisoners_dilemma_naive():
    _, _, audit = trained("pd", iterations=800)
    assert audit.payoffs.tolist() == pytest.approx(np.full((3, 2), 2.0), abs=0.02)


@pytest.mark.parametrize(("multiplier", "contributes"), [(0.3, True), (0.7, False)])
def test_frozen_multiplier_on_either_side_of_the_critical_one(multiplier, contributes):
    # Own derivation: at size 2 of 3 the Lagrangian turns at k - N / n = 0.5.
    assert critical_multiplier(2, 3, 2.0) == 0.5
    game = SymmetricPublicGoods(PublicGoodsGame(3))
    logit = torch.zeros(1, requires_grad=True)
    chance = torch.stack([torch.zeros(1), logit.sigmoid(), torch.ones(1)], -1)
    mediator = torch.stack([1 - chance, chance], -1).unsqueeze(-2)
    table = game.table(torch.zeros(1, 3, 2), mediator)
    lagrangian = coalition_lagrangian(game, table, violations(table), e=multiplier)
    (slope,) = torch.autograd.grad(lagrangian[0, 2], logit)
    assert (slope.item() > 0) == contributes


def test_violations_and_lagrangian_by_hand():
    game = EnumeratedGame(prisoners_dilemma())
    mediator = torch.tensor([[[1.0, 0], [1, 0]]] * 3 + [[[0, 1], [0, 1]]]).unsqueeze(0)
    table = game.table(torch.tensor([[[1.0, 0], [1, 0]]]), mediator)
    assert table.values[0].tolist() == [[0, 0], [0, 0], [0, 0], [2, 2]]
    found = violations(table, margin=0.5)
    assert found.ic[0, 3].tolist() == [-2, -2]  # staying out pays 0, committing 2
    assert found.e[0, 1].tolist() == [0, -2]  # agent 1 gets 0 outside {0} and 2 inside
    e = torch.full((1, 4, 2), 3.0)
    assert coalition_lagrangian(game, table, found, e=e)[0].tolist() == [0, 6, 6, 4]


def test_constraint_gradient_moves_only_the_coalition_it_is_at():
    game = one_step_game(sacrifice())
    mediator = torch.full((1, 4, 2, 3), 1 / 3).requires_grad_()
    found = violations(game.table(torch.full((1, 2, 3), 1 / 3), mediator))
    (gradient,) = torch.autograd.grad(found.ic[0, 3, 1], mediator)
    assert gradient[0, :3].abs().sum() == 0
    assert (gradient[0, 3].abs().sum(-1) > 0).all()  # both members' actions feel agent 1's constraint


@pytest.mark.parametrize(("form", "groups"), [("scalar", 1), ("agent", 2), ("size", 3), ("coalition", 8)])
def test_multiplier_forms_share_as_they_say(form, groups):
    game = EnumeratedGame(sacrifice())
    multipliers = ConstraintMultipliers(game, game.members, form, seeds=2, rate=0.1)
    assert multipliers.n_groups == groups
    violation = torch.ones(2, 4, 2)
    multipliers.ascend(violation, torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0]]))
    value = multipliers.multiplier.value
    assert (value[1] == 1).all()  # only the empty coalition formed there: no member, nothing observed
    assert value[0].max().item() == pytest.approx(np.exp(0.1))


def test_symmetric_model_agrees_with_the_enumerated_one():
    goods = PublicGoodsGame(4, 1.7, torch.float64)
    small, large = SymmetricPublicGoods(goods), EnumeratedGame(MatrixGame(goods.payoff_tensor()))
    source = torch.Generator().manual_seed(0)
    policies = torch.rand(2, 4, 3, generator=source, dtype=torch.float64).softmax(-1)
    by_size = torch.rand(2, 4, 1, 2, generator=source, dtype=torch.float64).softmax(-1)
    members = by_size[:, (large.sizes - 1).clamp(min=0)].expand(2, 16, 4, 2)
    assert torch.allclose(small.payoffs(policies, by_size), large.payoffs(policies, members))
    assert torch.allclose(small.deviations(policies, by_size), large.deviations(policies, members))
    keeping = torch.tensor([1.0, 0]).double().expand(2, 4, 2)
    compact, full = small.table(keeping, by_size), large.table(keeping, members)
    for number, size in enumerate(large.sizes.tolist()):
        for agent in range(4):
            slot = 0 if large.coalitions[number, agent] else 1
            assert torch.allclose(full.values[:, number, agent], compact.values[:, size, slot])
            assert torch.allclose(full.neighbours[:, number, agent], compact.neighbours[:, size, slot])


def test_stacked_networks_equal_separate_ones():
    stack = StackedMLP((2, 3), (4, 5, 2), torch.Generator().manual_seed(0))
    inputs = torch.rand(2, 3, 7, 4, generator=torch.Generator().manual_seed(1))
    flat = inputs.flatten(0, 1)
    for index, output in enumerate(stack(inputs).flatten(0, 1)):
        first, second = (
            (stack.weights[0][index], stack.biases[0][index]),
            (stack.weights[1][index], stack.biases[1][index]),
        )
        hidden = (flat[index] @ first[0] + first[1]).relu()
        assert torch.allclose(output, hidden @ second[0] + second[1], atol=1e-6)


def test_entropy_is_finite_with_an_illegal_action():
    logits = torch.tensor([0.0, 0.0, MASKED], requires_grad=True)
    bonus = entropy(logits.log_softmax(-1))
    (gradient,) = torch.autograd.grad(bonus, logits)
    assert bonus.item() == pytest.approx(np.log(2))
    assert gradient.tolist() == [0, 0, 0]


def test_exact_training_same_seed_same_result():
    first, second = (trained(iterations=5)[0].state_dict() for _ in range(2))
    assert torch.equal(first["players"]["logits"], second["players"]["logits"])
    other = trained(iterations=5, seed=1)[0].state_dict()
    assert not torch.equal(first["players"]["logits"], other["players"]["logits"])


def test_exact_training_resumed_equals_uninterrupted(tmp_path):
    options = {"seeds": 2, "iterations": 20, "n_agents": 4}
    straight = dataclasses.replace(PRESETS["pgg"], out_dir=str(tmp_path / "straight"), **options)
    broken = dataclasses.replace(straight, out_dir=str(tmp_path / "broken"))
    whole = train(Run(straight, resume=False), straight)
    half = ExactTrainer(broken)
    run = Run(broken, resume=False)
    with run:
        for step in run.steps(0, 10, half.state_dict):
            run.log(step + 1, half.iterate())
    rest = train(Run(broken, resume=True), broken)
    for name, tensor in whole.players.state_dict().items():
        assert torch.equal(tensor, rest.players.state_dict()[name])
    assert torch.equal(whole.e.multiplier.value, rest.e.multiplier.value)
    assert (tmp_path / "straight/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()
    assert audit_run(straight.directory) == audit_run(broken.directory)


def test_audit_by_hand():
    game = one_step_game(MatrixGame(prisoners_dilemma().payoffs.double()))
    cooperate = torch.tensor([[0.0, 1.0, 0.0]] * 2).double().unsqueeze(0)
    mediator = torch.tensor([[[1.0, 0], [1, 0]]] * 3 + [[[0, 1], [0, 1]]]).double().unsqueeze(0)
    outside = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).double()
    audit = audit_one_step(game, cooperate, outside, mediator)
    assert audit.payoffs.tolist() == [[2, 2]]
    assert audit.deviation_gains.tolist() == [[5, 5]]  # defecting, or committing alone, pays 7
    assert audit.probabilities.tolist() == [[1, 0, 0, 0]]
    assert audit.e_slack[0, 0].tolist() == [5, 5]
    assert audit.ic_slack[0, 0].isnan().all()
    figures = flat_audit(game, audit, mediator)
    assert (figures["reward"], figures["deviation_gain_max"], figures["e_slack_min"]) == (2, 5, 5)
    assert figures["ic_slack_min"] is None  # nobody ever commits


def run_command(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    command()


def test_commands_train_and_audit(tmp_path, monkeypatch, capsys):
    options = ("--out-dir", tmp_path / "run", "--seeds", 2, "--iterations", 30)
    run_command(cli.train, monkeypatch, *options)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["n_agents"] == 3
    assert len(result["contribution_by_size"]) == 3
    capsys.readouterr()
    run_command(cli.audit, monkeypatch, tmp_path / "run", "--json")
    assert json.loads(capsys.readouterr().out).items() <= result.items()
    run_command(cli.audit, monkeypatch, tmp_path / "run")
    assert "deviation_gain_max" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "poker"), "choose from pgg, sacrifice, pd"),
        (("--seeds", "0"), "seeds must be at least 1"),
        (("--margin", "-1"), "margin must be at least 0"),
        (("--dual-rate", "nan"), "dual_rate must be positive"),
        (("--multipliers", "agent"), "interchangeable"),
        (("--preset", "pd", "--n-agents", "3"), "pd has 2 agents"),
        (("--n-agents", "1"), "n_agents is 1"),
        (("--multiplier", "0.5"), "multiplier is 0.5"),
        (("--n-agents", "2"), "no dilemma"),
        (("--device", "cuda:99"), "use --device cpu"),
    ],
)
def test_train_command_refuses_bad_input(arguments, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(cli.train, monkeypatch, "--out-dir", tmp_path / "run", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_audit_command_refuses_what_is_no_run(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(cli.audit, monkeypatch, tmp_path)
    assert stop.value.code == 2
    assert "holds no config.json" in capsys.readouterr().err


def test_enumerated_game_refuses_unequal_actions():
    with pytest.raises(InputError, match=r"\(2, 3\) actions"):
        EnumeratedGame(MatrixGame(torch.zeros(2, 3, 2)))
