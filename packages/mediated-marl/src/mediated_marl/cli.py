"""The commands.  Heavy imports are inside the functions, so that `--help` answers at once."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from gt_core.cli import command, parse_training
from gt_core.errors import InputError
from gt_core.reproduce.command import reproduce_command
from gt_core.sweep.command import sweep_command
from rich.console import Console
from rich.table import Table

from mediated_marl.config import DEFAULT_PRESET, PRESETS, TrainConfig
from mediated_marl.markov_config import MARKOV_PRESETS, MarkovConfig

__all__ = ["audit", "evaluate", "plot", "reproduce", "sweep", "table", "train"]

ALL_PRESETS: dict[str, TrainConfig | MarkovConfig] = {**PRESETS, **MARKOV_PRESETS}


@command
def train() -> None:
    """`mediated-marl-train`: learn agents and their mediator, and audit them."""
    description = "Learn agents that may commit, and the mediator they commit to."
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--game")
    early.add_argument("--env")
    preset = default_preset(vars(early.parse_known_args()[0]))
    config, resume = parse_training(ALL_PRESETS, preset, "mediated-marl-train", description)
    from mediated_marl.runs import complete

    result = complete(config, resume=resume)
    Console().print(result_table(result), str(config.directory), sep="\n", highlight=False)


@command
def sweep() -> None:
    """`mediated-marl-sweep`: a grid of runs, each of several seeds side by side."""
    description = "Learn agents and their mediator for every combination of the values given, here or on a cluster."
    figures = ("reward", "return", "commitment", "deviation_gain_max")
    sweep_command(
        ALL_PRESETS, default_preset, "mediated-marl-sweep", description, "mediated_marl.runs:complete", figures
    )


def default_preset(settings: Mapping[str, Any]) -> str:
    """The preset where none is named: `env` with an env, the game's own with a game."""
    if settings.get("env"):
        return "env"
    return settings["game"] if settings.get("game") in ALL_PRESETS else DEFAULT_PRESET


@dataclasses.dataclass(frozen=True)
class AuditOptions:
    """Audit a finished run: which constraints hold, and what the best deviation would gain."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def audit() -> None:
    """`mediated-marl-audit`: the audit of a finished run."""
    options = tyro.cli(AuditOptions, prog="mediated-marl-audit", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from mediated_marl.report import audit_run

    prepare("cpu", 1)
    figures = audit_run(options.run)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(result_table(figures))


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Play games with the policies of a finished run, and hold what they earn against the exact expectation."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    games: int = 10_000
    """Games or episodes per seed."""
    seed: int = 0
    """Of the games' chance."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def evaluate() -> None:
    """`mediated-marl-eval`: what the policies of a finished run earn in played games."""
    options = tyro.cli(EvalOptions, prog="mediated-marl-eval", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from mediated_marl.evaluate import evaluate_run

    prepare("cpu", 1)
    figures = evaluate_run(options.run, options.games, options.seed)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(result_table(figures))


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Draw a finished run: learning, multipliers, the mediator's policy with its exact bound, the Schelling diagram."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    out: Path | None = None
    """The picture's file, by default run.png in the run's directory; its ending chooses the format."""


@command
def plot() -> None:
    """`mediated-marl-plot`: a picture of a finished run."""
    options = tyro.cli(PlotOptions, prog="mediated-marl-plot")
    from mediated_marl.plot import plot_run

    Console().print(str(plot_run(options.run, options.out or options.run / "run.png")), highlight=False)


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """Table 3 of the paper beside finished runs, and a table of runs in games of several steps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of finished runs."""
    json: bool = False
    """Print a JSON array of one object per run and nothing else."""


@command
def table() -> None:
    """`mediated-marl-table`: finished runs as a Markdown table."""
    options = tyro.cli(TableOptions, prog="mediated-marl-table", config=(tyro.conf.FlagCreatePairsOff,))
    if not options.runs:
        raise InputError("no run is given; name the directories of finished runs, say runs/*")
    from mediated_marl.markov_table import markov_markdown, markov_rows
    from mediated_marl.table import markdown, rows

    one_step, markov = rows(options.runs), markov_rows(options.runs)
    if options.json:
        sys.stdout.write(json.dumps([*one_step, *markov]) + "\n")
    else:
        tables = [*[markdown(one_step)][: len(one_step)], *[markov_markdown(markov)][: len(markov)]]
        sys.stdout.write("\n".join(tables))


@command
def reproduce() -> None:
    """`mediated-marl-reproduce`: tables of the paper beside our runs."""
    from mediated_marl.reproduction import EXPERIMENTS

    description = "Run, or go on with, what stands behind a table of the paper; write it beside ours and what is exact."
    reproduce_command(EXPERIMENTS, "mediated_marl.runs:complete", "mediated-marl-reproduce", description)


def result_table(result: Mapping[str, Any]) -> Table:
    """The figures of a result, one per line."""
    table = Table("figure", "value")
    for name, value in result.items():
        table.add_row(name, readable(value))
    return table


def readable(value: object) -> str:
    """A figure, or a list of them, in four digits."""
    if isinstance(value, list):
        return " ".join(readable(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
