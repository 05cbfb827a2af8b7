"""The lines of the paper's tables, with the configs that are run for each.

Imports no torch.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gt_core.config import RunConfig
from gt_core.reproduce.experiment import Line, Scale
from gt_core.sweep.grid import Cell, make_cells

from regretformer.config import PRESETS, TrainConfig
from regretformer.distillation_config import DISTILLATIONS, DistillConfig
from regretformer.reproduction_runs import CrossConfig

__all__ = ["PUBLISHED", "cross", "distillation", "figure_2", "multi_setting", "table_1", "table_2"]

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
"""What the paper prints."""
_NETS = ("regretnet", "equivariantnet", "regretformer")
_SETTINGS = ("1x2", "2x2", "2x3", "2x5", "3x10")
_COVERED: dict[Scale, tuple[str, ...]] = {"smoke": ("1x2",), "laptop": ("1x2", "2x2"), "full": _SETTINGS}
_LARGER = {
    ("2x3", "regretformer", 1e-3),
    ("2x3", "regretnet", 1e-3),
    ("2x5", "regretformer", 1e-3),
    ("2x5", "regretnet", 1e-3),
    ("3x10", "equivariantnet", 1e-3),
}
"""Lines of Table 1 that a laptop learns too, under an honest budget, one seed each in up to an hour and a half."""
_SEEDS: dict[Scale, int] = {"smoke": 1, "laptop": 3, "full": 3}
_MIXTURE, _SMALL_MIXTURE = "2x3..3x7", "2x3..2x4"
_BUDGETS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_EXACT_MARGIN = 0.97
"""Share of the budget to aim at where honest regret should come out as the budget itself: the search in training misses
about three per cent of it."""


def _config(scale: Scale, setting: str, net: str, budget: float, **fields: Any) -> TrainConfig:  # noqa: ANN401
    """Training under an honest budget; at the scale `smoke` for seconds."""
    base = dataclasses.replace(PRESETS["smoke"], evaluation_valuations=50) if scale == "smoke" else PRESETS["fast"]
    return dataclasses.replace(base, setting=setting, net=net, regret_budget=budget, **fields)  # type: ignore[arg-type]


def _paper(setting: str, net: str, budget: float) -> TrainConfig:
    return dataclasses.replace(PRESETS["paper"], setting=setting, net=net, regret_budget=budget)  # type: ignore[arg-type]


def _cells(config: RunConfig, scale: Scale, folder: Path) -> list[Cell]:
    return make_cells(lambda _: config, {"seed": range(_SEEDS[scale])}, folder)


def _cell(config: RunConfig, folder: Path) -> list[Cell]:
    return make_cells(lambda _: config, {}, folder)


def _line(
    about: Mapping[str, str | float],
    runs: Sequence[Cell],
    *,
    covered: bool,
    needs: Sequence[Cell] = (),
    published: Mapping[str, float] | None = None,
) -> Line:
    """A line that is run, or one that the scale leaves out, with the runs that it would have."""
    if covered:
        return Line(about, runs, needs, published=published or {})
    return Line(about, left_out=[*needs, *runs], published=published or {})


def table_1(scale: Scale, folder: Path) -> list[Line]:
    """Every line of Table 1, trained in up to three ways."""
    lines = []
    for cell in PUBLISHED["tables-1-and-2"]:
        setting, net, budget = cell["setting"], cell["net"], cell["regret_budget"]
        covered = setting in _COVERED[scale] and (scale != "smoke" or (net == "regretnet" and budget == 1e-3))
        equal = int(setting.partition("x")[0]) * cell["regret"] / cell["revenue"]
        run_as = scale if covered else "full"
        larger = scale == "laptop" and (setting, net, budget) in _LARGER
        trained = {
            "honest R_max": (_config(run_as, setting, net, budget), covered or larger),
            "published regret": (_config(run_as, setting, net, equal, budget_margin=_EXACT_MARGIN), covered),
            "as published": (_paper(setting, net, budget), scale == "full"),
        }
        published = {"revenue": cell["revenue"], "regret, published search": cell["regret"]}
        for how, (config, here) in trained.items():
            about = {"R_max": budget, "setting": setting, "net": net, "trained": how}
            runs = _cells(config, scale if here else "full", folder)
            lines.append(_line(about, runs[:1] if larger and here else runs, covered=here, published=published))
    return lines


def table_2(scale: Scale, folder: Path) -> list[Line]:
    """The same lines with the ratios of Table 2, without those trained for the published regret."""
    ratios = {
        (cell["regret_budget"], cell["setting"], cell["net"]): (cell["training_ratio"], cell["validation_ratio"])
        for cell in PUBLISHED["tables-1-and-2"]
    }
    lines = []
    for line in table_1(scale, folder):
        if line.about["trained"] != "published regret":
            training, validation = ratios[line.about["R_max"], line.about["setting"], line.about["net"]]
            published = {
                "in training": training,
                "published search": validation,
                "validation / training": validation / training,
            }
            lines.append(dataclasses.replace(line, published=published))
    return lines


def figure_2(scale: Scale, folder: Path) -> list[Line]:
    """RegretFormer under every budget, and by the augmented Lagrangian."""
    lines = []
    for setting in ("1x2", "2x2"):
        for budget in _BUDGETS:
            covered = scale != "smoke" or (setting == "1x2" and budget in (1e-3, 1e-2))
            run_as = scale if covered else "full"
            choose = _paper if run_as == "full" else partial(_config, scale)
            runs = _cells(choose(setting, "regretformer", budget), run_as, folder)
            lines.append(_line({"setting": setting, "budget": f"{budget:g}"}, runs, covered=covered))
        augmented = _config("full", setting, "regretformer", 1e-3, constraint="augmented")
        about = {"setting": setting, "budget": "augmented Lagrangian"}
        lines.append(_line(about, _cells(augmented, "full", folder), covered=scale != "smoke"))
    return lines


def _nets(scale: Scale, setting: str, folder: Path) -> dict[str, list[Cell]]:
    """The runs of every network under R_max = 0.001: at the scale `full` as published, else honest."""
    configs = {
        net: _paper(setting, net, 1e-3) if scale == "full" else _config(scale, setting, net, 1e-3) for net in _NETS
    }
    return {net: _cells(config, scale, folder) for net, config in configs.items()}


def cross(scale: Scale, folder: Path) -> list[Line]:
    """Every network scored on the misreports against every other, setting by setting."""
    lines = []
    for setting in _SETTINGS:
        covered = setting in _COVERED[scale]
        run_as = scale if covered else "full"
        trained = _nets(run_as, setting, folder)
        needs = [cell for cells in trained.values() for cell in cells]
        judged: list[Cell] = []
        for seed, together in enumerate(zip(*trained.values(), strict=True)):
            names = tuple(str(cell.config.directory) for cell in together)
            config = CrossConfig(seed=seed, setting=setting, mechanisms=names)
            if scale == "smoke":
                config = dataclasses.replace(config, evaluation_valuations=50)
            judged += _cell(config, folder)
        pairs = [{"misreports against": source, "scored on": target} for source in _NETS for target in _NETS]
        lines += [_line({"setting": setting, **pair}, judged, covered=covered, needs=needs) for pair in pairs]
    return lines


def distillation(scale: Scale, folder: Path) -> list[Line]:
    """The ten pairs of a setting and a student that the published code has configs of."""
    lines = []
    for setting in _SETTINGS:
        for net in ("regretnet", "equivariantnet"):
            covered = setting in _COVERED[scale] and (scale != "smoke" or net == "regretnet")
            run_as = scale if covered else "full"
            teachers = _nets(run_as, setting, folder)["regretformer"]
            students = [cell for teacher in teachers for cell in _cell(_student(run_as, teacher, setting, net), folder)]
            about = {"setting": setting, "teacher": "regretformer", "student": net}
            lines.append(_line(about, students, covered=covered, needs=teachers))
    return lines


def _student(scale: Scale, teacher: Cell, setting: str, net: str) -> DistillConfig:
    base = DISTILLATIONS["smoke" if scale == "smoke" else "fast"]
    return dataclasses.replace(
        base,
        teacher=str(teacher.config.directory),
        setting=setting,
        net=net,  # type: ignore[arg-type]
        seed=teacher.config.seed,
        iterations=200_000 if scale == "full" else base.iterations,
    )


def multi_setting(scale: Scale, folder: Path) -> list[Line]:
    """One network for all settings of the mixture: their mean, and each of them."""
    lines = []
    for net in ("equivariantnet", "regretformer"):
        runs = {
            "smoke": _cell(_config("smoke", _SMALL_MIXTURE, net, 1e-3), folder),
            "laptop": _cell(_config("laptop", _MIXTURE, net, 1e-3), folder),
            "full": _cells(_paper(_MIXTURE, net, 1e-3), "full", folder),
        }
        for name in ("mean", *(f"{bidders}x{items}" for bidders in (2, 3) for items in range(3, 8))):
            covered = scale != "smoke" or (net == "equivariantnet" and name in ("2x3", "2x4"))
            published = {"revenue": PUBLISHED["multi-setting"]["revenue"]} if (name, net) == ("mean", _NETS[2]) else {}
            about = {"setting": name, "net": net}
            lines.append(_line(about, runs[scale if covered else "full"], covered=covered, published=published))
    return lines
