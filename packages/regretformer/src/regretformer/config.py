"""What a training run of regretformer is made of, and the presets."""

import dataclasses
import math
from typing import Literal

from gt_core.config import RunConfig
from gt_core.errors import InputError

from regretformer.setting import Setting, parse_setting

__all__ = ["DEFAULT_PRESET", "PRESETS", "Attack", "TrainConfig"]

Attack = Literal["auto", "grid", "item-grid", "strong", "protocol"]
"""How misreports are searched for; see `regretformer.evaluate`."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Maximise revenue under a regret budget; the defaults are those of the preset `fast`."""

    preset: str = "fast"
    """The named set of defaults that everything else starts from: fast or smoke."""
    setting: str = "1x2"
    """BIDDERSxITEMS, with values uniform on [0, 1]."""
    net: Literal["regretformer", "equivariantnet", "regretnet"] = "regretformer"
    """The network, in its published shape for the setting."""
    regret_budget: float = 1e-3
    """R_max: the largest allowed sum of regret over bidders, as a share of revenue."""
    budget_start: float = 1e-2
    """Where the budget starts; it falls geometrically to the regret budget."""
    budget_until: float = 0.6
    """Share of training after which the budget is the final one."""
    budget_margin: float = 0.77
    """Share of the budget that training aims at: its search sees a little less than all regret, and the rest keeps
    the budget when regret is measured on a thousand valuations only."""
    iterations: int = 9_000
    """Gradient steps on the network."""
    batch: int = 512
    """Valuation profiles per iteration."""
    values_per_group: int = 32
    """Profiles of a batch that share their opponents, and so one menu of misreports; with one bidder, all do."""
    candidates: int = 1024
    """Random misreports per iteration, shared out among the groups of a batch."""
    ascent_steps: int = 0
    """Gradient steps that improve each profile's best candidate."""
    ascent_rate: float = 0.05
    """Learning rate of those steps, as a share of the support's width; it decays to zero."""
    learning_rate: float = 2e-3
    """Adam's learning rate at the start; it decays to zero along a cosine."""
    dual_rate: float = 0.5
    """Step size of the multiplier on the log of regret over budget."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    evaluation_valuations: int = 10_000
    """Fresh profiles on which the final evaluation measures regret: all of them by grid, a tenth by ascent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_setting(self.setting)
        for name in ("regret_budget", "budget_start", "budget_margin", "learning_rate", "dual_rate", "clip_norm"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be positive and finite, got {value}")
        for name in ("iterations", "batch", "values_per_group", "candidates", "evaluation_valuations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.ascent_steps < 0:
            raise InputError(f"ascent_steps must be at least 0, got {self.ascent_steps}")
        if not 0 < self.budget_until <= 1:
            raise InputError(f"budget_until must lie in (0, 1], got {self.budget_until}")
        if self.budget_start < self.regret_budget:
            raise InputError(f"budget_start {self.budget_start} is below regret_budget {self.regret_budget}; raise it")
        if self.auction.bidders > 1 and self.batch % self.values_per_group:
            raise InputError(f"batch {self.batch} must be a multiple of values_per_group {self.values_per_group}")

    @property
    def auction(self) -> Setting:
        """Bidders, items and supports."""
        return parse_setting(self.setting)

    @property
    def groups(self) -> int:
        """How many different opponents a batch holds."""
        return 1 if self.auction.bidders == 1 else self.batch // self.values_per_group

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        return f"{self.net}-{self.setting}-{self.preset}-seed{self.seed}"


PRESETS = {
    "fast": TrainConfig(),
    "smoke": TrainConfig(
        preset="smoke", iterations=30, batch=64, values_per_group=16, candidates=64, evaluation_valuations=200
    ),
}
DEFAULT_PRESET = "fast"
