"""A package's command for sweeps: from arguments to a table of cells. Nothing heavy is imported for `--help`."""

import collections
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gt_core.config import RunConfig
from gt_core.sweep.driver import Outcome, SweepStopped, sweep
from gt_core.sweep.options import BackendOptions, SweepOptions, parse_sweep
from gt_core.sweep.worker import Backend

__all__ = ["open_backend", "sweep_command"]


def sweep_command(
    presets: Mapping[str, RunConfig],
    default: Callable[[Mapping[str, Any]], str],
    prog: str,
    description: str,
    train: str,
    figures: Sequence[str],
) -> None:
    """Parse the arguments, run what is missing, and print what became of every cell.

    Args:
        presets: configs by name.
        default: from the settings of a cell that names no preset to the one it starts from.
        prog: the command's name.
        description: what it does.
        train: the function that runs a config, as package.module:function.
        figures: of the results, to be printed.

    Raises:
        InputError: before anything starts, if an argument cannot be used.
        SweepStopped: after SIGINT or SIGTERM, once all is saved.
        SystemExit: with status 1 if a cell has failed.
    """
    cells, options = parse_sweep(presets, default, prog, description)
    backend = open_backend(options, [cell.config for cell in cells], options.out_dir)
    try:
        outcomes = sweep(cells, train, backend, retries=options.retries)
    except SweepStopped as stop:
        _print(stop.outcomes, figures, options)
        raise
    _print(outcomes, figures, options)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)


def open_backend(options: BackendOptions, configs: Sequence[RunConfig], folder: Path) -> Backend:
    """The backend that the options name.

    Args:
        options: which.
        configs: of the cells.
        folder: of the cells; Slurm's jobs leave their logs there.

    Raises:
        InputError: if it needs an extra that is not installed, or a cluster that does not answer.
    """
    if options.backend == "here":
        from gt_core.sweep.here import ThisProcess

        return ThisProcess()
    threads = max(config.threads for config in configs)
    if options.backend == "ray":
        from gt_core.sweep.ray_cluster import RayCluster

        gpu = any(config.device.startswith("cuda") for config in configs)
        return RayCluster(options.address, options.jobs, threads, gpu)
    if options.backend == "slurm":
        from gt_core.sweep.slurm import Slurm

        return Slurm(folder, options.slurm_parameters, options.jobs)
    from gt_core.sweep.processes import Processes

    return Processes(options.jobs, threads)


def _print(outcomes: Sequence[Outcome], figures: Sequence[str], options: SweepOptions) -> None:
    rows = [_row(outcome, figures) for outcome in outcomes]
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        Console().print(_table(rows, figures), highlight=False)


def _row(outcome: Outcome, figures: Sequence[str]) -> dict[str, Any]:
    result = outcome.result
    return {
        "directory": str(outcome.cell.config.directory),
        "settings": dict(outcome.cell.settings),
        "status": outcome.status,
        "deaths": outcome.deaths,
        "error": outcome.error,
        "seconds": outcome.seconds,
        "figures": {name: result[name] for name in figures if name in result},
    }


def _table(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> Table:
    """One line per cell, with the settings that tell cells apart."""
    first = rows[0]["settings"]
    apart = [name for name in first if any(row["settings"][name] != first[name] for row in rows)]
    shown = [name for name in figures if any(name in row["figures"] for row in rows)]
    counts = collections.Counter(row["status"] for row in rows)
    title = ", ".join(f"{count} {status}" for status, count in counts.items())
    table = Table(*(apart or ["directory"]), "status", "deaths", "seconds", *shown, title=title)
    for row in rows:
        settings = [str(row["settings"][name]) for name in apart] or [row["directory"]]
        numbers = [_number(row["seconds"]), *(_number(row["figures"].get(name)) for name in shown)]
        table.add_row(*settings, row["status"], str(row["deaths"]), *numbers)
    return table


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
