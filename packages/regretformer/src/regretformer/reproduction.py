"""The paper's tables beside our runs: Tables 1 and 2, Figure 2, cross-misreports, distillation, mixtures of settings.

The paper's regret is what its search for misreports sees. A line of Table 1 is therefore trained in up to three ways:

- `honest R_max`: our preset `fast`, where the budget holds for the regret that the strongest search finds;
- `published regret`: the same with the budget at which that regret is what the paper prints for the line, n R / P
  for n bidders of mean regret R and revenue P: what is earned where bidders gain as much by lying as they seemed to;
- `as published`: the preset `paper`, at the scale `full` only, since it takes days to months.

Runs are shared between the tables. Imports no torch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from gt_core.config import RunConfig
from gt_core.reproduce.costs import Work, estimate
from gt_core.reproduce.experiment import Experiment, Finished, Line, Quantity, stored

from regretformer.config import TrainConfig
from regretformer.distillation_config import DistillConfig
from regretformer.reproduction_lines import (
    PUBLISHED,
    cross,
    distillation,
    figure_2,
    multi_setting,
    table_1,
    table_2,
)
from regretformer.reproduction_runs import CrossConfig

__all__ = ["EXPERIMENTS", "work_of"]


def _of_setting(name: str) -> Callable[[Finished], list[float]]:
    """Reads a figure of the line's setting, or the mean over all settings of the mixture."""

    def read(run: Finished) -> list[float]:
        settings = run.result["settings"] if run.line.about["setting"] == "mean" else [run.line.about["setting"]]
        figures = [run.result[f"{setting}/{name}"] for setting in settings]
        return [sum(figures) / len(figures)]

    return read


def _cross_entry(run: Finished) -> list[float]:
    return [run.result[f"{run.line.about['misreports against']}/{run.line.about['scored on']}"]]


def _ratio_of_protocol(run: Finished) -> list[float]:
    return [run.result["protocol_regret_sum_over_revenue"] / run.result["regret_budget"]]


def _validation_over_training(run: Finished) -> list[float]:
    return [run.result["regret_over_budget"] / run.result["training_ratio"]]


def _optimum(run: Finished) -> float | None:
    optimum: float | None = run.result["optimal_revenue"]
    return optimum


def work_of(config: RunConfig) -> Work:
    """What there is to do in a run."""
    if isinstance(config, TrainConfig):
        kind = f"{config.preset} {config.net} {config.setting}"
        return Work(kind, config.settled().iterations)
    if isinstance(config, DistillConfig):
        return Work(f"distillation {config.net} {config.setting}", config.iterations)
    assert isinstance(config, CrossConfig)  # noqa: S101 (for the type checker)
    return Work("cross-misreport", 0)


def _draw_budgets(lines: Sequence[Line], folder: Path) -> list[Path]:
    from regretformer.plots import plot_budgets

    curves: dict[str, dict[str, Path]] = {}
    for line in lines:
        runs = [cell.config.directory for cell in line.cells if cell.is_finished]
        if found := [run for run in runs if (run / "metrics.jsonl").is_file()]:
            curves.setdefault(str(line.about["setting"]), {})[str(line.about["budget"])] = found[0]
    if curves:
        plot_budgets(folder / "training.png", curves)
    return [folder / "training.png"] if curves else []


_SECONDS = estimate(Path(__file__).with_name("costs.json"), work_of)
_TRUTHFUL = Quantity("best truthful auction", stored("baseline_revenue"))
_REVENUE = Quantity("revenue", stored("revenue"), _optimum, drawn_over=_TRUTHFUL.name)
_SOURCE = f"Published figures: {PUBLISHED['source']}."

EXPERIMENTS = (
    Experiment(
        "table",
        "1",
        "Table 1: revenue and regret",
        "Each line three times: trained so that the honest regret keeps the budget R_max; so that the honest regret "
        "is what the paper prints, as its search saw it; and as published, at the scale full only. Regret is the "
        "mean per bidder. The exact revenue is the optimum at no regret, where it is known; the best truthful "
        f"auction is the best of VCG, and Myerson's per item and for the bundle. {_SOURCE}",
        table_1,
        (
            _REVENUE,
            _TRUTHFUL,
            Quantity("regret, published search", stored("protocol_regret_mean")),
            Quantity("honest regret", stored("regret_mean")),
        ),
        _SECONDS,
    ),
    Experiment(
        "table",
        "2",
        "Table 2: regret over budget, in training and on fresh valuations",
        "The sum of regret over revenue, over R_max: as training sees it in its last twentieth, as the published "
        "search and as the honest one see it on fresh valuations. Validation over training tells how much of its "
        "regret training sees; the paper's quotient is of the published search, ours of the honest one. Trained "
        f"under an honest budget our preset aims at 55 to 95 % of it, by the setting's size. {_SOURCE}",
        table_2,
        (
            Quantity("in training", stored("training_ratio")),
            Quantity("published search", _ratio_of_protocol),
            Quantity("honest", stored("regret_over_budget")),
            Quantity("validation / training", _validation_over_training),
        ),
        _SECONDS,
    ),
    Experiment(
        "figure",
        "2",
        "Figure 2: what the regret budget does",
        "One network, RegretFormer, under budgets from 0.0001 to 0.01 and by RegretNet's augmented Lagrangian, which "
        "knows no budget: how revenue, regret and the multiplier move in training (training.png, the first seed), and "
        "what remains on fresh valuations. The paper's curves are printed without numbers, so none stand here.",
        figure_2,
        (_REVENUE, Quantity("honest regret / revenue", stored("regret_sum_over_revenue")), _TRUTHFUL),
        _SECONDS,
        _draw_budgets,
    ),
    Experiment(
        "table",
        "cross-misreport",
        "Cross-misreports: every network on the misreports found against every other",
        "The sum of regret over revenue of one network on the best lies against another, both under R_max = 0.001. An "
        "entry above that of a network on its own misreports is regret that its own search misses. Every search starts "
        "afresh. The paper's numbers could not be found, so none stand here.",
        cross,
        (Quantity("regret / revenue", _cross_entry),),
        _SECONDS,
    ),
    Experiment(
        "table",
        "distillation",
        "Distillation: another network taught to be the same auction",
        "Revenue of teacher and student, and the sum of regret of each on the misreports against either. A student "
        "close to its teacher in revenue may still be far from it in regret. The paper's numbers could not be found, "
        "so none stand here.",
        distillation,
        (
            Quantity("revenue of the teacher", stored("teacher_revenue")),
            Quantity("revenue of the student", stored("student_revenue")),
            Quantity("regret of the teacher", stored("teacher_regret_sum_on_teacher_misreports")),
            Quantity("regret of the student", stored("student_regret_sum_on_student_misreports")),
            Quantity("student on the teacher's misreports", stored("student_regret_sum_on_teacher_misreports")),
            Quantity("divergence", stored("divergence")),
        ),
        _SECONDS,
    ),
    Experiment(
        "table",
        "multi-setting",
        "One network for the settings 2x3 to 3x7",
        "One network trained on all ten settings, one of them per batch, under R_max = 0.001 in each; judged in "
        "each, and on average. The best truthful auction is the best of VCG, and Myerson's per item and for the "
        f"bundle. The published figure is from {PUBLISHED['multi-setting']['source']}.",
        multi_setting,
        (
            Quantity("revenue", _of_setting("revenue"), drawn_over=_TRUTHFUL.name),
            Quantity(_TRUTHFUL.name, _of_setting("baseline_revenue")),
            Quantity("honest regret / revenue", _of_setting("regret_sum_over_revenue")),
        ),
        _SECONDS,
    ),
)
