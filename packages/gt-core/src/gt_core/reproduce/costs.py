"""What runs cost: an estimate from seconds per iteration that lie, measured, beside a package's experiments.

`costs.json` says on what they were measured, and holds one number for each kind of run. It is the time of training on
one thread; judging what was learnt comes on top. Processors differ, and a machine that has other work to do is slower.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gt_core.config import RunConfig

__all__ = ["Work", "estimate", "in_hours"]


class Work(NamedTuple):
    """What there is to do in a run.

    Attributes:
        kind: iterations of runs of one kind take equally long.
        iterations: of training.
    """

    kind: str
    iterations: int


def estimate(file: Path, work_of: Callable[[RunConfig], Work]) -> Callable[[RunConfig], float | None]:
    """From a config to its seconds; None for a kind that was not measured.

    Args:
        file: the measurements.
        work_of: what there is to do for a config.
    """
    measured: dict[str, float] = json.loads(file.read_text())["seconds_per_iteration"]

    def seconds(config: RunConfig) -> float | None:
        kind, iterations = work_of(config)
        return iterations * measured[kind] if kind in measured else None

    return seconds


def in_hours(seconds: float) -> str:
    """Seconds as hours, in two digits as long as there are few of them."""
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
