"""Reports that a repository keeps, against what its finished runs say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from gt_core.reproduce.command import ReproduceOptions, chosen, prepared_lines
from gt_core.reproduce.experiment import Experiment, rows
from gt_core.reproduce.report import summary

__all__ = ["kept_and_fresh_rows"]


def kept_and_fresh_rows(report: Path, experiments: Sequence[Experiment], results: Path) -> tuple[Any, Any]:
    """The rows of a kept report, and those that its command writes today where nothing but finished runs is there.

    Both are without the last bits of their numbers, which depend on NumPy's version.

    Args:
        report: a `report.json`.
        experiments: of the package whose command made it.
        results: where the finished runs lie, at any depth; they are copied into the working directory.
    """
    kept = _read(report.read_text())
    typed = [*kept["command"].split()[1:], "--reuse", str(results)]
    options = tyro.cli(ReproduceOptions, args=typed, config=(tyro.conf.FlagCreatePairsOff,))
    experiment = chosen(experiments, options)
    fresh = summary(experiment, rows(experiment, prepared_lines(experiment, options)))
    return kept["rows"], _read(json.dumps(fresh))["rows"]


def _read(report: str) -> Any:  # noqa: ANN401 (nested JSON)
    return json.loads(report, parse_float=lambda number: f"{float(number):.9g}")
