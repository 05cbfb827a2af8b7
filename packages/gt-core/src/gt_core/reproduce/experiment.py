"""An experiment of a paper: the lines of its table, the runs behind each, and what is read from their results.

Imports no torch, so that experiments and their costs can be listed at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gt_core.config import RunConfig
from gt_core.sweep.grid import Cell

__all__ = [
    "SCALES",
    "Cost",
    "Entry",
    "Experiment",
    "Finished",
    "Line",
    "Quantity",
    "Row",
    "Scale",
    "cells_of",
    "cost_of",
    "rows",
    "stored",
]

Scale = Literal["smoke", "laptop", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "laptop", "full")
"""Seconds, for tests; an evening of two cores; as the paper did."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        about: what tells it from the others, by column.
        cells: its runs, usually one for each seed; none where the scale leaves the line out.
        needs: runs that must be finished before these.
        left_out: the runs that a larger scale has for it, where this one has none.
        published: the paper's figures, by quantity.
    """

    about: Mapping[str, str | float]
    cells: Sequence[Cell] = ()
    needs: Sequence[Cell] = ()
    left_out: Sequence[Cell] = ()
    published: Mapping[str, float] = field(default_factory=dict)


class Finished(NamedTuple):
    """A finished run of a line."""

    line: Line
    config: RunConfig
    result: Mapping[str, Any]


def _nothing(_: Finished) -> None:
    return None


class Quantity(NamedTuple):
    """What is read from results.

    Attributes:
        name: the column's title, and the key of published figures.
        values: of one run, one for each seed in it; none where the run has no such figure.
        exact: the exact answer or the ceiling that the values stand beside, if it is known.
        drawn_over: the quantity of the same line whose multiple is drawn in its stead, where lines differ in scale.
    """

    name: str
    values: Callable[[Finished], Sequence[float]]
    exact: Callable[[Finished], float | None] = _nothing
    drawn_over: str = ""


def stored(name: str) -> Callable[[Finished], list[float]]:
    """Reads a field of the result, a number or one per seed; `{setting}` stands for that entry of the line."""

    def read(run: Finished) -> list[float]:
        value = run.result.get(name.format(**run.line.about))
        values = value if isinstance(value, list) else [value]
        return [one for one in values if one is not None]

    return read


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        kind: which of the two.
        name: its number, or what it is about.
        title: in a few words.
        about: what it shows and how to read it; where the published figures come from.
        lines: at a scale, with the folder of all runs.
        quantities: what is read from each line's results.
        seconds: what training a config takes on one thread, an estimate; None if it was never measured.
        draw: pictures beyond the usual one, into a folder; returns the files.
        source: whose the published figures are, as a column's title.
    """

    kind: Literal["table", "figure"]
    name: str
    title: str
    about: str
    lines: Callable[[Scale, Path], Sequence[Line]]
    quantities: Sequence[Quantity]
    seconds: Callable[[RunConfig], float | None]
    draw: Callable[[Sequence[Line], Path], list[Path]] | None = None
    source: str = "paper"

    @property
    def label(self) -> str:
        """Such as `table-1`."""
        return f"{self.kind}-{self.name}"


def cells_of(lines: Sequence[Line], *, needs: bool = False) -> list[Cell]:
    """The runs of all lines, or those that these need, each once."""
    found = {cell.config.directory: cell for line in lines for cell in (line.needs if needs else line.cells)}
    return list(found.values())


@dataclass(frozen=True)
class Entry:
    """One figure of a line: the paper's, ours for each seed, and the exact one."""

    published: float | None
    values: tuple[float, ...]
    exact: float | None


class Cost(NamedTuple):
    """What training takes on one thread, an estimate.

    Attributes:
        seconds: of the runs whose kind was measured.
        unknown: how many others there are.
    """

    seconds: float
    unknown: int


@dataclass(frozen=True)
class Row:
    """A line with its figures.

    Attributes:
        about: as of the line.
        entries: by quantity.
        runs: how many are finished.
        seconds: what training took in these, and in the runs that they need.
        missing: what the runs that are not there would take.
    """

    about: Mapping[str, str | float]
    entries: Mapping[str, Entry]
    runs: int
    seconds: float
    missing: Cost


def rows(experiment: Experiment, lines: Sequence[Line]) -> list[Row]:
    """All lines, filled where there are results."""
    return [_row(experiment, line) for line in lines]


def _row(experiment: Experiment, line: Line) -> Row:
    finished = [cell for cell in line.cells if cell.is_finished]
    found = [Finished(line, cell.config, _read(cell, "result.json")) for cell in finished]
    entries = {quantity.name: _entry(quantity, line, found) for quantity in experiment.quantities}
    everything = [*line.needs, *line.cells, *line.left_out]
    spent = [_read(cell, "cost.json").get("seconds", 0.0) for cell in everything if cell.is_finished]
    return Row(line.about, entries, len(finished), sum(spent), cost_of(experiment, everything))


def _entry(quantity: Quantity, line: Line, found: Sequence[Finished]) -> Entry:
    values = tuple(float(value) for run in found for value in quantity.values(run))
    exact = [value for run in found if (value := quantity.exact(run)) is not None]
    return Entry(line.published.get(quantity.name), values, sum(exact) / len(exact) if exact else None)


def cost_of(experiment: Experiment, cells: Sequence[Cell]) -> Cost:
    """What the cells would take that are not finished."""
    costs = [experiment.seconds(cell.config) for cell in cells if not cell.is_finished]
    known = [cost for cost in costs if cost is not None]
    return Cost(sum(known), len(costs) - len(known))


def _read(cell: Cell, name: str) -> dict[str, Any]:
    file = cell.config.directory / name
    content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return content
