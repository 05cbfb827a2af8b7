import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from gt_core.checkpoint import save_checkpoint
from gt_core.config import to_dict
from gt_core.errors import InputError
from gt_core.files import write_json
from gt_core.run import Interrupted, Run, learn
from torch import Tensor

from regretformer.auction import Outcome
from regretformer.config import PRESETS
from regretformer.distillation import Distiller, distil, evaluate_distillation, resolve_teacher
from regretformer.distillation_config import DISTILLATIONS, DistillConfig
from regretformer.divergence import divergence
from regretformer.mechanisms import open_mechanisms
from regretformer.networks.build import build
from regretformer.train import Trainer

SMOKE = dataclasses.replace(DISTILLATIONS["smoke"], teacher="optimum", setting="1x2")


def distiller(**changes: object) -> Distiller:
    config = dataclasses.replace(SMOKE, **changes)  # type: ignore[arg-type]
    (teacher,), valuations = open_mechanisms([config.teacher], config.setting)
    return Distiller(config, teacher.mechanism, valuations)


def test_divergence_by_hand() -> None:
    """One bidder, two items: allocation 1/2 and 1 at a payment of 1/2 of its worth, against 1/4, 1/2 and 1/8."""
    bids = torch.tensor([[[0.4, 0.8]]], dtype=torch.float64)
    teacher = Outcome(torch.tensor([[[0.5, 1.0]]]).double(), torch.tensor([[0.5]]).double())  # worth 1, so f = 1/2
    student = torch.tensor([[[0.25, 0.5]]]).double(), torch.tensor([[0.125]]).double()
    item_1 = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    item_2 = math.log(1 / 0.5)
    fraction = 0.5 * math.log(0.5 / 0.125) + 0.5 * math.log(0.5 / 0.875)
    assert divergence(teacher, student, bids).item() == pytest.approx(item_1 + item_2 + fraction, abs=2e-4)


def test_divergence_leaves_out_fractions_of_nothing() -> None:
    bids = torch.full((1, 1, 2), 0.5)
    nothing = Outcome(torch.zeros(1, 1, 2), torch.zeros(1, 1))
    low, high = (divergence(nothing, (torch.zeros(1, 1, 2), torch.tensor([[f]])), bids) for f in (0.1, 0.9))
    assert low.item() == high.item() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("net", ["regretformer", "equivariantnet", "regretnet"])
def test_a_network_does_not_differ_from_itself(net: str) -> None:
    network = build(net, 2, 3, seed=0)  # type: ignore[arg-type]
    bids = torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0))
    other = build(net, 2, 3, seed=1)  # type: ignore[arg-type]
    assert divergence(network(bids), network.decide(bids), bids).abs().max() < 1e-5
    assert divergence(network(bids), other.decide(bids), bids).min() > 1e-4


def test_iteration_by_hand() -> None:
    """One iteration is one step of Adam on the mean divergence over truthful profiles and misreports."""
    learner, twin = distiller(clip_norm=1e9), distiller(clip_norm=1e9)
    figures = learner.iterate()
    profiles = twin.valuations.profiles(64, twin.streams.torch("valuations"))
    bids = torch.cat([profiles, twin.misreported(profiles)])
    apart = divergence(twin.teacher(bids), twin.student.decide(bids), bids)
    apart.mean().backward()
    torch.optim.Adam(twin.student.parameters(), lr=SMOKE.learning_rate).step()
    assert figures["train/divergence"] == pytest.approx(apart[:64].mean().item())
    assert figures["train/divergence_misreports"] == pytest.approx(apart[64:].mean().item())
    for mine, theirs in zip(learner.student.parameters(), twin.student.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-7)


def test_misreports_gain_at_the_student_and_change_one_bidder() -> None:
    learner = distiller(teacher="vcg", setting="2x2", misreport_steps=20)
    profiles = learner.valuations.profiles(64, learner.streams.torch("valuations"))
    for step in (0, 1):
        learner.step = step
        bids = learner.misreported(profiles)
        assert torch.equal(bids[:, 1 - step], profiles[:, 1 - step])
        with torch.no_grad():
            lying, truthful = learner.student(bids), learner.student(profiles)

        def gain(outcome: Outcome, bidder: int = step) -> Tensor:
            return ((profiles * outcome.allocation).sum(-1) - outcome.payments)[:, bidder]

        assert (gain(lying) - gain(truthful)).mean() > 0
    assert all(weight.requires_grad for weight in learner.student.parameters())


def test_distillation_is_deterministic_and_its_seed_matters() -> None:
    paths = []
    for seed in (0, 0, 1):
        learner = distiller(seed=seed)
        paths.append([learner.iterate() for _ in range(3)])
    assert paths[0] == paths[1]
    assert paths[0] != paths[2]


def test_distillation_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    straight = dataclasses.replace(SMOKE, iterations=12, out_dir=str(tmp_path / "straight"))
    expected = distil(Run(straight, resume=False), straight).state_dict()

    stopped = dataclasses.replace(straight, out_dir=str(tmp_path / "stopped"))
    run, learner = Run(stopped, resume=False), distiller(iterations=12)
    iterate = learner.iterate

    def until_the_fifth() -> dict[str, float]:
        if learner.step == 4:
            run._signum = 2
        return iterate()

    learner.iterate = until_the_fifth  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        learn(run, learner, 12)
    found = distil(Run(stopped, resume=True), stopped).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "stopped")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 12


def test_a_student_comes_close_to_its_teacher_and_is_judged_beside_it(tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMOKE, iterations=250, batch=128, learning_rate=1e-2, evaluation_valuations=100, out_dir=str(tmp_path / "run")
    )
    run = Run(config, resume=False)
    distil(run, config)
    figures = evaluate_distillation(run.directory, config)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["divergence"] < 0.5
    assert figures["student_revenue"] == pytest.approx(figures["teacher_revenue"], abs=0.08)
    assert figures["teacher_revenue"] == pytest.approx(0.5492, abs=0.02)
    assert figures["teacher_regret_sum_on_student_misreports"] == 0
    assert figures["teacher_regret_sum_on_teacher_misreports"] == 0
    assert figures["student_regret_sum_on_teacher_misreports"] == 0  # nobody lies to a truthful auction
    low, high = figures["student_regret_sum_on_student_misreports_ci"]
    assert 0 < low < figures["student_regret_sum_on_student_misreports"] < high
    (student,), valuations = open_mechanisms([str(run.directory)])
    assert valuations.setting.name == "1x2"
    assert student.config is not None
    assert (student.config.preset, student.config.net) == ("distilled", "regretnet")


def test_a_student_keeps_the_valuations_of_its_teacher(tmp_path: Path) -> None:
    market = {"setting": "1x2", "valuations": "exponential(1)", "high": (5.0,)}
    config = dataclasses.replace(PRESETS["smoke"], net="equivariantnet", **market)
    write_json(tmp_path / "config.json", to_dict(config))
    save_checkpoint(tmp_path / "model", Trainer(config).network.state_dict())
    resolved = resolve_teacher(dataclasses.replace(SMOKE, teacher=str(tmp_path), setting=""))
    assert {name: getattr(resolved.student, name) for name in market} == market


def test_resolve_teacher_fills_the_setting_in_and_refuses() -> None:
    with pytest.raises(InputError, match="no teacher is given"):
        resolve_teacher(DistillConfig())
    with pytest.raises(InputError, match="give --setting"):
        resolve_teacher(DistillConfig(teacher="vcg"))
    assert resolve_teacher(SMOKE) == SMOKE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"misreport_steps": -1}, "misreport_steps must be at least 0, got -1"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"evaluation_valuations": 1}, "evaluation_valuations must be at least 2, got 1"),
    ],
)
def test_distill_config_refuses_and_names(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(DistillConfig(), **changes)  # type: ignore[arg-type]
