"""What a distillation is made of, and its presets."""

import dataclasses
from typing import Annotated, Literal

import tyro
from gt_core.config import RunConfig

from regretformer.config import TrainConfig

__all__ = ["DEFAULT_DISTILLATION", "DISTILLATIONS", "MARKET", "DistillConfig"]


MARKET = ("valuations", "low", "high", "held_out", "independent")
"""The fields of a config that say, besides the setting, where valuations come from."""


@dataclasses.dataclass(frozen=True)
class DistillConfig(RunConfig):
    """Teach a network to answer as another mechanism does; the defaults are those of the preset `fast`."""

    preset: str = "fast"
    """The named set of defaults that everything else starts from: fast or smoke."""
    teacher: Annotated[str, tyro.conf.Positional] = ""
    """The mechanism to imitate: a directory, or a known auction such as vcg or optimum."""
    setting: str = ""
    """The setting of a known auction; a directory has its own."""
    valuations: str = "uniform"
    """As in training; a directory's own are taken."""
    low: tuple[float, ...] = ()
    """Smallest value and report, as valuations."""
    high: tuple[float, ...] = ()
    """Largest value and report, as valuations."""
    held_out: float = 0.2
    """Share of a file's profiles that training never sees, as valuations."""
    independent: bool = False
    """Whether a function's bidders are independent, as valuations."""
    net: Literal["regretformer", "equivariantnet", "regretnet"] = "regretnet"
    """The student, in its published shape for the setting."""
    iterations: int = 4_000
    """Gradient steps on the student."""
    batch: int = 512
    """Truthful profiles per iteration; as many again have a misreport."""
    misreport_steps: int = 10
    """Gradient steps of each misreport against the student; 0 leaves misreports random."""
    misreport_rate: float = 0.1
    """Learning rate of those steps, as a share of the support's width; it decays to zero."""
    learning_rate: float = 3e-3
    """Adam's learning rate at the start; it decays to zero along a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    regret_budget: float = 1e-3
    """What the student's sum of regret over revenue is compared with; it takes no part in training."""
    evaluation_valuations: int = 2_000
    """Fresh profiles on which the final evaluation measures regret: all of them by grid, a tenth by ascent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("(0, inf)", "misreport_rate", "learning_rate", "clip_norm", "regret_budget")
        self.require("[0, inf)", "misreport_steps")
        self.require("[1, inf)", "iterations", "batch")
        self.require("[2, inf)", "evaluation_valuations")

    @property
    def student(self) -> TrainConfig:
        """The student as the other commands see it: a learnt mechanism for a setting."""
        return TrainConfig(
            preset="distilled",
            seed=self.seed,
            setting=self.setting,
            **{name: getattr(self, name) for name in MARKET},
            net=self.net,
            regret_budget=self.regret_budget,
            budget_start=self.regret_budget,
            evaluation_valuations=self.evaluation_valuations,
        )

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        teacher = self.teacher.strip("/").rpartition("/")[2]
        return f"{self.net}-of-{teacher}-{self.setting}-{self.preset}-seed{self.seed}"


DISTILLATIONS = {
    "fast": DistillConfig(),
    "smoke": DistillConfig(preset="smoke", iterations=30, batch=64, misreport_steps=2, evaluation_valuations=50),
}
DEFAULT_DISTILLATION = "fast"
