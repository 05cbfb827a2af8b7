"""What a training run of regretformer is made of, and the presets."""

import dataclasses
import math
from pathlib import Path
from typing import Literal, NamedTuple, Self

from gt_core.config import RunConfig
from gt_core.errors import InputError

from regretformer.setting import Setting, parse_settings

__all__ = ["DEFAULT_PRESET", "PRESETS", "RECORDS", "Attack", "TrainConfig"]

Attack = Literal["auto", "grid", "item-grid", "strong", "protocol"]
"""How misreports are searched for; see `regretformer.evaluate`."""

RECORDS = (".npy", ".csv", ".parquet")
"""The kinds of file that hold recorded valuations."""


class Recipe(NamedTuple):
    """What depends on how large a setting is; see the fields of `TrainConfig` by the same names."""

    iterations: int
    batch: int = 512
    candidates: int = 1024
    learning_rate: float = 2e-3
    ascent_steps: int = 0
    pool_batches: int = 16
    budget_start: float = 1e-2
    budget_until: float = 0.6
    budget_margin: float = 0.77
    dual_rate: float = 0.3
    imitation: float = 0.0


_RECIPES = {
    2: Recipe(9_000, candidates=512, budget_margin=0.9),
    4: Recipe(24_000),
    6: Recipe(20_000, candidates=2048, ascent_steps=1, budget_margin=0.95),
    10: Recipe(
        14_000, batch=128, candidates=512, learning_rate=1.5e-3, ascent_steps=4, budget_start=0.03, budget_until=0.7,
        budget_margin=0.55, dual_rate=0.15, imitation=0.03,
    ),
    math.inf: Recipe(
        40_000, candidates=128, learning_rate=1e-3, ascent_steps=4, pool_batches=6, budget_start=0.1, budget_until=0.8,
        budget_margin=0.75, dual_rate=0.1, imitation=0.05,
    ),
}  # fmt: skip
"""By the largest number of bidders times items."""
_RECIPES_OF: dict[tuple[str, float], Recipe] = {
    ("equivariantnet", 4): Recipe(
        80_000, learning_rate=1e-3, budget_until=0.75, budget_margin=0.7, dual_rate=0.1,
    ),
    ("regretnet", 6): _RECIPES[6]._replace(budget_margin=0.7),
    ("regretnet", 10): _RECIPES[10]._replace(iterations=40_000, budget_margin=0.72),
}  # fmt: skip
"""Of nets that need another one. Their iterations take a fifth of RegretFormer's time or less, and most need more of
them; RegretNet's search sees less of its regret."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Maximise revenue under a regret budget; the defaults are those of the preset `fast`."""

    preset: str = "fast"
    """The named set of defaults that everything else starts from: fast, gpu, paper or smoke."""
    setting: str = "1x2"
    """BIDDERSxITEMS; BIDDERSxITEMS-unit for bidders who want one item each; 416x47; or a mixture
    FIRST..LAST of all settings between two, one of them per batch."""
    valuations: str = "uniform"
    """Uniform on the support; a distribution such as exponential(1), beta(2,2) or .75*uniform(0,3)+.25*uniform(3,8);
    a .npy, .csv or .parquet file of profiles, of which a part is held out; or package.module:function."""
    low: tuple[float, ...] = ()
    """Smallest value and report, one number or one per item; by default the setting's, or a file's smallest."""
    high: tuple[float, ...] = ()
    """Largest value and report, as low."""
    held_out: float = 0.2
    """Share of a file's profiles that training never sees and evaluation uses alone."""
    independent: bool = False
    """A function's bidders are independent: profiles may then be rearranged between bidders."""
    net: Literal["regretformer", "equivariantnet", "regretnet"] = "regretformer"
    """The network, in its published shape for the setting."""
    told_apart: Literal["auto", "none", "bidders", "items", "both", "sizes", "rivals"] = "auto"
    """Whom the network encodes by position, or sizes: it is told how many bidders and items there are, with rivals also
    the highest rival of each bid. auto: those that the valuations do not make alike; in a mixture rivals."""
    constraint: Literal["budget", "augmented"] = "budget"
    """How regret is held down: a budget on its share of revenue, or RegretNet's augmented Lagrangian, without one."""
    loss: Literal["relative", "published"] = "relative"
    """What a budget is imposed on: the logarithm of revenue, or revenue itself as in the paper."""
    regret_budget: float = 1e-3
    """R_max: the largest allowed sum of regret over bidders, as a share of revenue."""
    budget_start: float = 0
    """Where the budget starts; it falls geometrically to the regret budget. 0: as the setting's size needs."""
    budget_until: float = 0
    """Share of training after which the budget is the final one; 0: as the setting's size needs."""
    budget_margin: float = 0
    """Share of the budget that training aims at: its search sees a little less than all regret, and the rest keeps
    the budget when regret is measured on a thousand valuations only; 0: as the setting's size needs."""
    dual_rate: float = 0
    """Step size of the multiplier on the log of regret over budget; 0: as the setting's size needs."""
    dual_floor: float = 0.01
    """Smallest ratio of regret to budget that the multiplier is shown; at 0, as published, one batch without regret
    sets it to 0."""
    multiplier_start: float = 5.0
    """First multiplier, of each bidder in the augmented Lagrangian. Below about 3, training starts by making everybody
    pay what they bid, and cannot always find back."""
    penalty: float = 1.0
    """First penalty of the augmented Lagrangian, for regret in units of the largest value."""
    penalty_step: float = 0.0
    """What that penalty grows by, 40 times in a run; 0 takes the published 50 (1x2), 5 (2x2), 10 (2x3), 1 (others)."""
    iterations: int = 0
    """Gradient steps on the network; 0: as the setting's size needs."""
    batch: int = 0
    """Valuation profiles per iteration; 0: as the setting's size needs."""
    search: Literal["pool", "published"] = "pool"
    """How training finds misreports: a slowly renewed pool that remembers them, or the published ascent from cached
    misreports on a fixed set of valuations."""
    values_per_group: int = 32
    """Profiles of a batch that share their opponents, and so one menu of misreports; with one bidder all do, with
    dependent bidders none."""
    candidates: int = 0
    """Random misreports per iteration, shared out among the groups of a batch; 0: as the setting's size needs."""
    pool_batches: int = 0
    """Batches in the pool, for each bidder; 0: as the setting's size needs."""
    pool_visits: int = 40
    """After how many visits a group of the pool is replaced by a new one."""
    dataset_batches: int = 1250
    """Batches in the fixed set of the published search."""
    ascent_steps: int = -1
    """Gradient steps that improve each profile's best candidate, or its cached misreport; -1: as the setting's size
    needs."""
    ascent_rate: float = 0.015
    """Learning rate of those steps, as a share of the support's width; it decays to zero, but not as published."""
    imitation: float = -1
    """Share of training in which the network first learns to answer as a known truthful auction does, Myerson's for
    each item; -1: as the setting's size needs."""
    learning_rate: float = 0
    """Adam's learning rate at the start; 0: as the setting's size needs."""
    learning_rate_end: float = 0.0
    """Adam's learning rate at the end, reached along a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient, for values in units of the largest one."""
    evaluation_valuations: int = 10_000
    """Fresh profiles on which the final evaluation measures regret: all of them by grid, a tenth by ascent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("(0, inf)", "regret_budget", "multiplier_start", "penalty", "ascent_rate", "clip_norm")
        self.require("[1, inf)", "values_per_group", "pool_visits", "dataset_batches", "evaluation_valuations")
        self.require("[0, inf)", "iterations", "batch", "candidates", "pool_batches", "learning_rate")
        self.require("[0, inf)", "learning_rate_end", "penalty_step", "budget_start", "budget_margin", "dual_rate")
        self.require("[0, 1)", "dual_floor")
        self.require("[0, 1]", "budget_until")
        if self.ascent_steps < -1:
            raise InputError(f"ascent_steps must be at least 0, or -1 for the default, got {self.ascent_steps}")
        if not (0 <= self.imitation < 1 or self.imitation == -1):
            raise InputError(f"imitation must lie in [0, 1), or be -1 for the default, got {self.imitation}")
        if 0 < self.budget_start < self.regret_budget:
            raise InputError(f"budget_start {self.budget_start} is below regret_budget {self.regret_budget}; raise it")
        if self.search != "published" and self.auction.bidders > 1 and self.batch % self.values_per_group:
            raise InputError(f"batch {self.batch} must be a multiple of values_per_group {self.values_per_group}")
        if len(self.auctions) > 1:
            self._require_any_size()

    def _require_any_size(self) -> None:
        """Refuse what does not fit every setting of a mixture."""
        if self.net == "regretnet":
            raise InputError(f"regretnet fits one setting, not {self.setting}; use regretformer or equivariantnet")
        if self.is_recorded or ":" in self.valuations:
            raise InputError(
                f"{self.valuations} has profiles of one size, but the setting is the mixture {self.setting}; "
                "use uniform or another distribution"
            )
        if self.told_apart not in ("auto", "none", "sizes", "rivals"):
            raise InputError(
                f"told_apart must be auto, none, sizes or rivals for the mixture {self.setting}, "
                f"got {self.told_apart!r}"
            )

    @property
    def auctions(self) -> tuple[Setting, ...]:
        """The settings trained for, smallest first, with their supports as far as they are declared."""
        return tuple(self.declared(setting) for setting in parse_settings(self.setting))

    @property
    def auction(self) -> Setting:
        """The setting trained for, or the largest of a mixture."""
        return self.auctions[-1]

    def declared(self, setting: Setting) -> Setting:
        """A setting with the support that the config declares, if it does."""
        return setting.within(self.low or setting.low, self.high or setting.high)

    def settled(self) -> Self:
        """The config with all filled in that is left to the net and the setting's size, of a mixture its largest's."""
        cells = self.auction.bidders * self.auction.items
        size = next(most for most in _RECIPES if cells <= most)
        recipe = _RECIPES_OF.get((self.net, size), _RECIPES[size])
        unset = {"ascent_steps": -1, "imitation": -1}
        chosen = {name: value for name, value in recipe._asdict().items() if getattr(self, name) == unset.get(name, 0)}
        if "budget_start" in chosen:
            chosen["budget_start"] = max(chosen["budget_start"], self.regret_budget)
        return dataclasses.replace(self, **chosen)

    @property
    def is_recorded(self) -> bool:
        """Whether valuations come from a file."""
        return Path(self.valuations).suffix in RECORDS

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        source = "" if self.valuations == "uniform" else f"-{_file_name(self.valuations)}"
        augmented = "-augmented" if self.constraint == "augmented" else ""
        return f"{self.net}-{self.setting}{source}-{self.preset}{augmented}-seed{self.seed}"


def _file_name(source: str) -> str:
    """A source of valuations as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in Path(source).name)


PRESETS = {
    "fast": TrainConfig(),
    "gpu": TrainConfig(preset="gpu", device="cuda", batch=4096, candidates=8192),
    "paper": TrainConfig(
        preset="paper", search="published", loss="published", multiplier_start=1.0, dual_rate=0.5, iterations=200_000,
        batch=512, ascent_steps=50, ascent_rate=0.1, learning_rate=1e-3, learning_rate_end=1e-3, budget_start=1e-2,
        budget_until=2 / 3, budget_margin=1.0, dual_floor=0.0, imitation=0.0,
    ),
    "smoke": TrainConfig(
        preset="smoke", iterations=30, batch=64, values_per_group=16, candidates=64, dataset_batches=4,
        evaluation_valuations=200,
    ),
}  # fmt: skip
DEFAULT_PRESET = "fast"
