"""Distillation: can another network be what a mechanism is, or could it only not learn it (paper's code, distillation)?

A student network imitates a teacher, any mechanism, by the divergence of their outcomes
(`regretformer.divergence`). It is averaged over truthful profiles and over as many in which
one bidder, in turn, reports what gains it most at the student; else the student would agree with its teacher where
bidders are truthful, and nowhere else.

Judged are revenue and regret of both on the misreports found against either (`regretformer.cross_misreports`).
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from gt_core.environment import prepare
from gt_core.errors import InputError
from gt_core.run import Run, learn, require_finite
from gt_core.schedules import cosine
from gt_core.seeding import Streams, derive_seed
from torch import Tensor

from regretformer.attacks import random_reports
from regretformer.auction import Mechanism, replace_report
from regretformer.cross_misreports import cross_misreports
from regretformer.distillation_config import MARKET, DistillConfig
from regretformer.divergence import divergence
from regretformer.mechanisms import NamedMechanism, open_mechanisms
from regretformer.misreports import ascend, frozen
from regretformer.networks.network import AuctionNetwork
from regretformer.report import default_evaluation, draw_run, load_network
from regretformer.sources import load_valuations
from regretformer.train import build_network
from regretformer.valuations import Valuations

__all__ = [
    "Distiller",
    "complete_distillation",
    "distil",
    "evaluate_distillation",
    "resolve_teacher",
]

_SHOWN = {"divergence": "train/divergence", "on misreports": "train/divergence_misreports"}


def complete_distillation(config: DistillConfig, *, resume: bool = True) -> dict[str, Any]:
    """Teach, draw and judge in the config's directory; return the result.

    Args:
        config: what to run.
        resume: continue the run in the directory, or start it if there is none; a finished one is not run again.

    Raises:
        InputError: if there is no such teacher, or none for the setting.
        RunError: if the directory holds another run.
        Interrupted: after a signal, once the state is saved.
    """
    config = resolve_teacher(config)
    prepare(config.device, config.threads)
    run = Run(config, resume=resume, packages=("regretformer",), shown=_SHOWN)
    if run.result is not None:
        return run.result
    distil(run, config)
    draw_run(run.directory)
    return run.finish(evaluate_distillation(run.directory, config))


def resolve_teacher(config: DistillConfig) -> DistillConfig:
    """The config with the teacher's setting and valuations filled in.

    Raises:
        InputError: if there is no such teacher, or none for the setting.
    """
    if not config.teacher:
        raise InputError("no teacher is given; name the directory of a run, or a known auction and its --setting")
    (teacher,), valuations = open_mechanisms([config.teacher], config.setting)
    market = {name: getattr(teacher.config, name) for name in MARKET} if teacher.config else {}
    return dataclasses.replace(config, setting=valuations.setting.name, **market)


def distil(run: Run, config: DistillConfig) -> AuctionNetwork:
    """Teach to the end, from the run's newest checkpoint if it has one, and return the student."""
    (teacher,), _ = open_mechanisms([config.teacher], config.setting)
    distiller = Distiller(config, teacher.mechanism, load_valuations(config.student, device=config.device))
    learn(run, distiller, config.iterations)
    run.keep_model(distiller.student.state_dict())
    return distiller.student


class Distiller:
    """All that changes during distillation; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config, with its setting.
        teacher: what to imitate; it stays as it is.
        valuations: where truthful profiles come from.
    """

    def __init__(self, config: DistillConfig, teacher: Mechanism, valuations: Valuations) -> None:
        self.config, self.teacher, self.valuations = config, teacher, valuations
        self.step = 0
        self.streams = Streams(config.seed, config.device)
        seed = derive_seed(config.seed, "initialisation")
        self.student = build_network(config.student, valuations, seed).to(config.device)
        self.optimiser = torch.optim.Adam(self.student.parameters(), lr=config.learning_rate)

    def iterate(self) -> dict[str, float]:
        """One iteration: profiles, misreports against the student, a step towards the teacher."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(self.step / config.iterations, config.learning_rate, 0.0)
        profiles = self.valuations.profiles(config.batch, self.streams.torch("valuations"))
        bids = torch.cat([profiles, self.misreported(profiles)])
        with torch.no_grad():
            taught = self.teacher(bids)
        truthful, misreported = divergence(taught, self.student.decide(bids), bids).split(config.batch)
        loss = (truthful.mean() + misreported.mean()) / 2
        require_finite(divergence=loss.item())
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), config.clip_norm)
        self.optimiser.step()
        self.step += 1
        return {"train/divergence": truthful.mean().item(), "train/divergence_misreports": misreported.mean().item()}

    def misreported(self, profiles: Tensor) -> Tensor:
        """The profiles [B, n, m] with one bidder's misreport against the student; bidders take turns."""
        config, bidder = self.config, self.step % profiles.shape[1]
        start = random_reports(self.valuations, len(profiles), bidder, self.streams.torch("misreports"))
        low, high = self.valuations.low[bidder], self.valuations.high[bidder]
        with frozen(self.student):
            reports, _ = ascend(
                self.student, profiles, bidder, start, low, high,
                steps=config.misreport_steps, rate=config.misreport_rate,
            )  # fmt: skip
        return replace_report(profiles, bidder, reports)

    def state_dict(self) -> dict[str, Any]:
        """Student, optimiser, random generators and the count of steps."""
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.streams.load_state_dict(state["streams"])


def evaluate_distillation(directory: Path, config: DistillConfig) -> dict[str, Any]:
    """Teacher and student of a finished distillation on both ones' misreports, as one flat object.

    Returns:
        `divergence` on fresh truthful profiles; `teacher_revenue` and `student_revenue`; for either one, four entries
        such as `student_regret_sum_on_teacher_misreports`, each with its `..._ci`; how they were measured.
    """
    (teacher,), valuations = open_mechanisms([config.teacher], config.setting)
    student, evaluation = load_network(directory), default_evaluation(config.student)
    pair = [NamedMechanism("teacher", teacher.mechanism), NamedMechanism("student", student)]
    table = cross_misreports(pair, valuations, evaluation)
    fresh = valuations.profiles(evaluation.valuations, Streams(evaluation.seed).torch("evaluation/profiles"))
    with torch.no_grad():
        remaining = divergence(teacher.mechanism(fresh), student.decide(fresh), fresh).mean().item()
    figures: dict[str, Any] = {
        "setting": config.setting,
        "teacher": config.teacher,
        "net": config.net,
        "preset": config.preset,
        "divergence": remaining,
    }
    for column, target in enumerate(table["mechanisms"]):
        figures[f"{target}_revenue"] = table["revenue"][column]
        for row, source in enumerate(table["mechanisms"]):
            figures[f"{target}_regret_sum_on_{source}_misreports"] = table["regret_sum"][row][column]
            figures[f"{target}_regret_sum_on_{source}_misreports_ci"] = table["regret_sum_ci"][row][column]
    return figures | {"attack": table["attack"], "n_valuations": table["n_valuations"]}
