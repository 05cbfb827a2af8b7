"""A package's command for reproduction: from `--table 1 --scale laptop` to finished runs and a report."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from gt_core.errors import InputError
from gt_core.reproduce.costs import in_hours
from gt_core.reproduce.experiment import SCALES, Experiment, Line, Scale, cells_of, cost_of, rows
from gt_core.reproduce.reuse import reuse_finished
from gt_core.sweep.command import open_backend
from gt_core.sweep.driver import Outcome, sweep
from gt_core.sweep.grid import Cell
from gt_core.sweep.options import BackendOptions
from gt_core.sweep.processes import Processes

__all__ = ["ReproduceOptions", "chosen", "prepared_lines", "reproduce_command"]

_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class ReproduceOptions(BackendOptions):
    """What a reproduction takes."""

    table: str = ""
    """Which table, by its number or name; --list shows all."""
    figure: str = ""
    """Which figure."""
    scale: Scale = "laptop"
    """smoke: seconds, to see that everything works; laptop: an evening of two cores; full: as the paper did."""
    reuse: tuple[Path, ...] = ()
    """Folders of finished runs, such as a package's results/: those that would be repeated are copied instead."""
    only_report: bool = False
    """Run nothing: write the report of what is finished."""
    list: bool = False
    """Show all tables and figures and what each costs on this machine, and run nothing."""
    out_dir: Path = Path("reproduction")
    """Reports lie in folders of their own in it, runs in cells/, which all tables and figures share."""
    json: bool = False
    """Print JSON and nothing else."""


def reproduce_command(experiments: Sequence[Experiment], train: str, prog: str, description: str) -> None:
    """Parse the arguments, run what is missing, and write the report of a table or figure.

    Args:
        experiments: all that there are.
        train: the function that runs a cell's config, as package.module:function.
        prog: the command's name.
        description: what it does.

    Raises:
        InputError: before anything starts, if an argument cannot be used.
        SweepStopped: after SIGINT or SIGTERM, once all is saved.
        SystemExit: with status 1 if a cell has failed.
    """
    options = tyro.cli(ReproduceOptions, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    if options.list:
        _list(experiments, options)
        return
    experiment = chosen(experiments, options)
    lines = prepared_lines(experiment, options)
    try:
        outcomes = [] if options.only_report else _run(lines, train, options)
    finally:
        _report(experiment, lines, options, prog)  # of what there is, if it was stopped
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def chosen(experiments: Sequence[Experiment], options: ReproduceOptions) -> Experiment:
    """The experiment that the options name.

    Raises:
        InputError: if they name none, several or an unknown one.
    """
    wanted = [(kind, name) for kind in ("table", "figure") if (name := getattr(options, kind))]
    known = {(one.kind, one.name): one for one in experiments}
    if len(wanted) != 1 or wanted[0] not in known:
        listed = ", ".join(f"--{kind} {name}" for kind, name in known)
        asked = " and ".join(f"--{kind} {name}" for kind, name in wanted) or "nothing"
        raise InputError(f"choose one of {listed}; got {asked}")
    return known[wanted[0]]


def prepared_lines(experiment: Experiment, options: ReproduceOptions) -> Sequence[Line]:
    """The lines at the scale of the options, with the finished runs in place that are to be reused."""
    lines = experiment.lines(options.scale, options.out_dir / "cells")
    if options.reuse:
        reuse_finished([*cells_of(lines, needs=True), *cells_of(lines)], options.reuse)
    return lines


def _run(lines: Sequence[Line], train: str, options: ReproduceOptions) -> list[Outcome]:
    """First what others need, then the lines' own runs, as far as what they need is there."""
    outcomes = _sweep(cells_of(lines, needs=True), train, options)
    ready = [line for line in lines if all(cell.is_finished for cell in line.needs)]
    return outcomes + _sweep(cells_of(ready), train, options)


def _sweep(cells: Sequence[Cell], train: str, options: ReproduceOptions) -> list[Outcome]:
    if not cells:
        return []
    backend = open_backend(options, [cell.config for cell in cells], options.out_dir)
    return sweep(cells, train, backend, retries=options.retries)


def _report(experiment: Experiment, lines: Sequence[Line], options: ReproduceOptions, prog: str) -> None:
    from gt_core.reproduce.report import markdown, write_report

    folder = options.out_dir / f"{experiment.label}-{options.scale}"
    table = rows(experiment, lines)
    command = f"{prog} --{experiment.kind} {experiment.name} --scale {options.scale}"
    files = write_report(experiment, table, folder, {"scale": options.scale, "command": command})
    if experiment.draw is not None:
        files += experiment.draw(lines, folder)
    if options.json:
        sys.stdout.write(files[1].read_text())
    else:
        sys.stdout.write(markdown(experiment, table) + "\n" + "".join(f"{file}\n" for file in files))


def _list(experiments: Sequence[Experiment], options: ReproduceOptions) -> None:
    slots = Processes(options.jobs).slots
    found = [_costs(one, scale, options.out_dir, slots) for one in experiments for scale in SCALES]
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    title = f"training with {slots} runs at a time; estimates"
    table = Table("", "scale", "runs", "finished", "hours left", "never timed", title=title)
    for one in found:
        numbers = (str(one[name]) for name in ("runs", "finished"))
        hours = in_hours(one["hours"] * _HOUR) if one["hours"] or not one["unknown"] else ""
        if one["scale"] == SCALES[0]:
            table.add_section()
        table.add_row(one["option"], one["scale"], *numbers, hours, str(one["unknown"] or ""))
    console = Console()
    for experiment in experiments:
        console.print(f"--{experiment.kind} {experiment.name}: {experiment.title}", highlight=False)
    console.print(table, highlight=False)


def _costs(experiment: Experiment, scale: Scale, out_dir: Path, slots: int) -> dict[str, Any]:
    lines = experiment.lines(scale, out_dir / "cells")
    cells = [*cells_of(lines, needs=True), *cells_of(lines)]
    seconds, unknown = cost_of(experiment, cells)
    return {
        "option": f"--{experiment.kind} {experiment.name}",
        "title": experiment.title,
        "scale": scale,
        "runs": len(cells),
        "finished": sum(cell.is_finished for cell in cells),
        "hours": seconds / slots / _HOUR,
        "unknown": unknown,
    }
