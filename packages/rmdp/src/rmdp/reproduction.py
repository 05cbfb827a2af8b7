"""Figure 5 of the paper: social welfare over the budget k, for five environments and four ways of matching users.

Robots have 100 users who like velocities drawn uniformly, the grid has 25 who own its cells. At the scale `full` runs
have the paper's hyperparameters, 2001 iterations and ten seeds; at `laptop` our preset and up to three seeds, and of
the robots HalfCheetah alone at every k. Imports no torch until something is drawn.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from gt_core.config import RunConfig
from gt_core.reproduce.costs import Work, estimate
from gt_core.reproduce.experiment import Experiment, Line, Quantity, Scale, stored
from gt_core.sweep.grid import Cell, make_cells

from rmdp.config import PRESETS, TrainConfig, default_preset

__all__ = ["EXPERIMENTS", "PUBLISHED", "work_of"]

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
"""Figures of the published code, by environment, k and algorithm; the last of a kind ran longest."""
_GRID = "resource-gathering"
_ROBOTS = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4")
_ALGORITHMS = ("em", "end-to-end", "cluster", "random")
_BUDGETS = {**dict.fromkeys(_ROBOTS, (1, 2, 5, 10, 50)), _GRID: (1, 2, 3, 5, 10, 25)}
_SEEDS = 10
_ITERATIONS = {1: 1000, 2: 1000, 50: 200}
"""Of HalfCheetah on a laptop, where our preset's are too few for the steps of one or two policies, or take too long."""
_SMOKE = {("HalfCheetah-v4", 2, "em"), ("HalfCheetah-v4", 2, "random"), (_GRID, 1, "em")}
_ABOUT = (
    "Mean return of the users, 0 to 100 for robots and 0 to 1 on the grid, in deterministic episodes. The ceiling is "
    "the mean over the seeds that were run: exact for velocities with perfect control of the speed, the best walks "
    "known on the grid. The paper prints no numbers of this figure; beside ours stand those of its published code, "
    "seed 0, after 55 minutes (HalfCheetah) or 3 minutes (grid). With k = 1 all algorithms are one."
)


def _lines(scale: Scale, folder: Path) -> list[Line]:
    combinations = [
        (env, k, algorithm)
        for env, budgets in _BUDGETS.items()
        for k in budgets
        for algorithm in (_ALGORITHMS if k > 1 else _ALGORITHMS[:1])
    ]
    return [_line(scale, folder, *combination) for combination in combinations]


def _line(scale: Scale, folder: Path, env: str, k: int, algorithm: str) -> Line:
    seeds = _seeds(scale, env, k, algorithm)
    cells = _cells(_config(scale, env, k, algorithm), seeds, folder) if seeds else []
    full = _cells(_config("full", env, k, algorithm), _SEEDS, folder)
    known = [
        run["welfare"] for run in PUBLISHED["runs"] if (run["env"], run["k"], run["algorithm"]) == (env, k, algorithm)
    ]
    return Line(
        {"environment": env, "k": k, "algorithm": algorithm},
        cells,
        left_out=() if cells else full,
        published={"welfare": known[-1]} if known else {},
    )


def _seeds(scale: Scale, env: str, k: int, algorithm: str) -> int:
    if scale == "full":
        return _SEEDS
    if scale == "smoke":
        return 2 if (env, k, algorithm) in _SMOKE else 0
    if env == _GRID:
        return 3 if algorithm in ("em", "end-to-end") else 0
    if env == _ROBOTS[0]:
        return 3 if k == 5 else 1 if algorithm == "em" else 0
    return 1 if k == 5 else 0


def _config(scale: Scale, env: str, k: int, algorithm: str) -> TrainConfig:
    preset = {"smoke": "smoke", "laptop": default_preset(env), "full": "paper"}[scale]
    config = dataclasses.replace(PRESETS[preset], env=env, n=25 if env == _GRID else PRESETS[preset].n)
    if env == _GRID and scale != "laptop":
        config = dataclasses.replace(config, normalise=False, deadline=True, gamma=1.0)
    if env == _GRID and scale == "full":
        config = dataclasses.replace(config, learning_rate=5e-4, entropy=5e-2, final_entropy=1e-3)  # as published
    if env == _ROBOTS[0] and scale == "laptop":
        config = dataclasses.replace(config, iterations=_ITERATIONS.get(k, config.iterations))
    return dataclasses.replace(config, k=k, algorithm=algorithm)  # type: ignore[arg-type]


def _cells(config: TrainConfig, seeds: int, folder: Path) -> list[Cell]:
    return make_cells(lambda _: config, {"seed": range(seeds)}, folder)


def work_of(config: RunConfig) -> Work:
    """What there is to do in a run."""
    assert isinstance(config, TrainConfig)  # noqa: S101 (for the type checker)
    return Work(f"{config.preset} {config.env} k={config.k}", config.iterations)


def _draw(lines: Sequence[Line], folder: Path) -> list[Path]:
    from rmdp.plots import plot_learning_curves

    curves: dict[str, dict[str, list[Path]]] = {}
    for line in lines:
        logs = [cell.config.directory / "metrics.jsonl" for cell in line.cells if cell.is_finished]
        if found := [log for log in logs if log.is_file()]:
            panel = f"{line.about['environment']}, k = {line.about['k']}"
            curves.setdefault(panel, {})[str(line.about["algorithm"])] = found
    if curves:
        plot_learning_curves(folder / "learning_curves.png", curves)
    return [folder / "learning_curves.png"] if curves else []


EXPERIMENTS = (
    Experiment(
        "figure",
        "5",
        "Figure 5: social welfare over the budget",
        _ABOUT,
        _lines,
        (
            Quantity("welfare", stored("welfare"), lambda run: run.result.get("ceiling")),
            Quantity("share of the ceiling", stored("share_of_ceiling")),
            Quantity("worst user", stored("worst_user")),
        ),
        estimate(Path(__file__).with_name("costs.json"), work_of),
        _draw,
        source="published code",
    ),
)
