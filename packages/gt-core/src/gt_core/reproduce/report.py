"""The report of an experiment: the paper's figures, ours with an interval over seeds, and the exact answers.

With two seeds or more ours is the interquartile mean over seeds with a 95 % bootstrap interval (`gt_core.stats`), of
one seed the value alone. A line that was not run has empty cells, and what it would cost.
"""

import functools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gt_core.environment import hardware, versions
from gt_core.files import write_json
from gt_core.reproduce.costs import in_hours
from gt_core.reproduce.experiment import Entry, Experiment, Row
from gt_core.stats import summarise

__all__ = ["interval", "markdown", "panels", "plot", "summary", "write_report"]

_DIGITS = 4
_LEGEND = (
    "Ours is the interquartile mean over seeds with its 95 % bootstrap interval, or the value of the only seed. "
    "What was not run is empty; the last column says what training it would cost on one thread."
)


@functools.cache
def interval(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    """Interquartile mean and the ends of its 95 % bootstrap interval; of one value that value; None of none."""
    if len(values) < 2:
        return (values[0],) * 3 if values else None
    found = summarise(values, np.random.default_rng(0))
    return found.interquartile_mean, found.low, found.high


def write_report(experiment: Experiment, table: Sequence[Row], folder: Path, about: Mapping[str, Any]) -> list[Path]:
    """Write `report.md`, `report.json` and `report.png` into a folder; the files.

    Args:
        experiment: whose.
        table: its lines with their figures.
        folder: where to; made if it does not exist.
        about: how the report was made, such as its command; it stands in the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"report.{ending}" for ending in ("md", "json", "png")]
    files[0].write_text(markdown(experiment, table))
    machine = {"versions": versions(), "hardware": hardware("cpu")}
    write_json(files[1], summary(experiment, table) | dict(about) | machine)
    return files if plot(experiment, table, files[2]) else files[:2]


def summary(experiment: Experiment, table: Sequence[Row]) -> dict[str, Any]:
    """The report as an object."""
    return {
        "experiment": experiment.label,
        "published_by": experiment.source,
        "title": experiment.title,
        "about": experiment.about,
        "interval": "interquartile mean over seeds with its 95 % bootstrap interval",
        "rows": [
            {
                **row.about,
                "runs": row.runs,
                "seconds": round(row.seconds, 1),
                "missing_estimate": {
                    "seconds": round(row.missing.seconds, 1),
                    "runs_of_unknown_cost": row.missing.unknown,
                },
                "figures": {name: _entry(entry) for name, entry in row.entries.items()},
            }
            for row in table
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    found = interval(entry.values)
    ours = dict(zip(("ours", "low", "high"), found or (None,) * 3, strict=True))
    return {
        "published": entry.published,
        **ours,
        "exact": entry.exact,
        "seeds": len(entry.values),
        "values": entry.values,
    }


def markdown(experiment: Experiment, table: Sequence[Row]) -> str:
    """The report in Markdown: one line of the table per line, three columns per quantity as far as they are filled."""
    columns = [
        (quantity.name, kind)
        for quantity in experiment.quantities
        for kind in ("published", "ours", "exact")
        if any(_text(row.entries[quantity.name], kind) for row in table)
    ]
    about = list(dict.fromkeys(name for row in table for name in row.about))
    titles = [f"{name}, {experiment.source if kind == 'published' else kind}" for name, kind in columns]
    lines = [[*about, *titles, "seeds", "hours", "hours missing (estimate)"]]
    lines += [["---"] * len(lines[0]), *(_cells(row, about, columns) for row in table)]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return f"# {experiment.title}\n\n{experiment.about}\n\n{_LEGEND}\n\n{text}"


def _cells(row: Row, about: Sequence[str], columns: Sequence[tuple[str, str]]) -> list[str]:
    """One line as text."""
    figures = [_text(row.entries[name], kind) for name, kind in columns]
    seeds = max(len(entry.values) for entry in row.entries.values())
    spent = in_hours(row.seconds) if row.runs else ""
    return [*(str(row.about.get(name, "")) for name in about), *figures, str(seeds), spent, _missing(row)]


def _text(entry: Entry, kind: str) -> str:
    if kind == "ours":
        found = interval(entry.values)
        if found is None or len(entry.values) == 1:
            return "" if found is None else _number(found[0])
        return f"{_number(found[0])} [{_number(found[1])}, {_number(found[2])}]"
    value = entry.published if kind == "published" else entry.exact
    return "" if value is None else _number(value)


def _number(value: float) -> str:
    return f"{value:.{_DIGITS}g}"


def _missing(row: Row) -> str:
    seconds, unknown = row.missing
    known = in_hours(seconds) if seconds else ""
    return f"{known} and {unknown} runs never timed".removeprefix(" and ") if unknown else known


def plot(experiment: Experiment, table: Sequence[Row], file: Path) -> bool:
    """Draw what was run beside paper and exact, a panel for each quantity; whether there was anything to draw."""
    from matplotlib.figure import Figure

    shown = [row for row in table if any(one.values for one in row.entries.values())]
    if not shown:
        return False
    drawn = panels(experiment, shown)
    width = 2.2 + 3.2 * len(drawn)
    figure = Figure(figsize=(width, 1.6 + 0.24 * len(shown)), layout="constrained")
    axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axis, (title, entries) in zip(axes, drawn.items(), strict=True):
        _draw(axis, entries, experiment.source)
        axis.set(title=title, yticks=range(len(shown)), ylim=(len(shown) - 0.5, -0.5))
        axis.grid(axis="x", color="0.9")
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticklabels([_label(row.about) for row in shown])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(textwrap.fill(experiment.title, int(9 * width)))  # nine letters an inch
    figure.savefig(file, dpi=120)
    return True


def panels(experiment: Experiment, shown: Sequence[Row]) -> dict[str, list[Entry]]:
    """The figures of each panel by its title; a quantity that another one is drawn over has none of its own."""
    wholes = {one.drawn_over for one in experiment.quantities}
    found = {}
    for quantity in experiment.quantities:
        entries = [row.entries[quantity.name] for row in shown]
        if quantity.name in wholes or not any(entry.values for entry in entries):
            continue
        if quantity.drawn_over:
            wanted = [interval(row.entries[quantity.drawn_over].values) for row in shown]
            pairs = zip(entries, wanted, strict=True)
            entries = [_multiple(entry, whole[0]) if whole else Entry(None, (), None) for entry, whole in pairs]
        title = f"{quantity.name} /\n{quantity.drawn_over}" if quantity.drawn_over else quantity.name
        found[title] = entries
    return found


def _multiple(entry: Entry, whole: float) -> Entry:
    published, exact = (None if one is None else one / whole for one in (entry.published, entry.exact))
    return Entry(published, tuple(value / whole for value in entry.values), exact)


def _label(about: Mapping[str, str | float]) -> str:
    """What tells a line from the others; numbers say of what they are."""
    parts = (value if isinstance(value, str) else f"{name} = {value}" for name, value in about.items())
    return ", ".join(part for part in parts if part)


def _draw(axis: Any, entries: Sequence[Entry], source: str) -> None:  # noqa: ANN401 (an optional dependency's type)
    """One panel; all three marks are named in every panel's legend, drawn or not."""
    paper = [(entry.published, place) for place, entry in enumerate(entries) if entry.published is not None]
    exact = [(entry.exact, place) for place, entry in enumerate(entries) if entry.exact is not None]
    ours = [(found, place) for place, entry in enumerate(entries) if (found := interval(entry.values)) is not None]
    axis.plot(*_columns(paper), "D", color="C1", markerfacecolor="none", label=source)
    axis.plot(*_columns(exact), "|", color="black", markersize=12, label="exact")
    centres = [(found[0], place) for found, place in ours]
    ends = np.array([(found[0] - found[1], found[2] - found[0]) for found, _ in ours]).reshape(-1, 2).T.clip(0)
    axis.errorbar(*_columns(centres), xerr=ends, fmt="o", color="C0", capsize=3, label="ours, 95 % interval")


def _columns(points: Sequence[tuple[Any, int]]) -> tuple[list[Any], list[int]]:
    return [value for value, _ in points], [place for _, place in points]
