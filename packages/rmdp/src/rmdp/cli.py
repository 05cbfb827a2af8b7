"""The commands. Heavy imports are inside the functions, so that `--help` answers at once."""

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from gt_core.cli import command, parse_training
from rich.console import Console
from rich.table import Table

from rmdp.config import PRESETS, default_preset

__all__ = ["evaluate", "train"]

_SHOWN = {"welfare": "train/welfare", "flips": "train/flips"}
_ROWS = {
    "welfare": "social welfare (mean return per user)",
    "ceiling": "ceiling for this budget",
    "share_of_ceiling": "share of the ceiling",
    "worst_user": "worst user",
    "quantile_0.1": "10 % quantile of users",
    "quantile_0.5": "median user",
    "quantile_0.9": "90 % quantile of users",
    "gini": "Gini coefficient",
    "nash": "Nash welfare",
    "regret_mean": "mean regret against the best representative",
    "cluster_sizes": "users per representative",
}


@command
def train() -> None:
    """`rmdp-train`: learn k policies for n users, and who is served by which."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--env", default="HalfCheetah-v4")
    preset = default_preset(early.parse_known_args()[0].env)
    description = "Learn k policies that serve n users, and who is served by which."
    config, resume = parse_training(PRESETS, preset, "rmdp-train", description)
    from gt_core.environment import prepare
    from gt_core.run import Run, read_result

    from rmdp.train import ceiling_of, evaluate_model
    from rmdp.train import train as learn

    prepare(config.device, config.threads)
    ceiling = ceiling_of(config)
    shown = _SHOWN if ceiling is None else _SHOWN | {"ceiling": "train/ceiling"}
    run = Run(config, resume=resume, packages=("rmdp", "gymnasium", "mujoco"), shown=shown)
    if run.result is None:
        with _evaluated_when_stopped(run.directory):
            model = learn(run, config, ceiling)
        run.finish(evaluate_model(model))
    Console().print(
        _table(read_result(run.directory)), f"{run.directory}: result.json, model/", sep="\n", highlight=False
    )


@contextlib.contextmanager
def _evaluated_when_stopped(directory: Path) -> Iterator[None]:
    """After Ctrl-C, once the state is saved, show what there is; the run stays unfinished and can be resumed."""
    from gt_core.run import Interrupted

    from rmdp.train import evaluate_model, load_model

    try:
        yield
    except Interrupted as stop:
        if stop.signum == signal.SIGINT:
            sys.stderr.write("stopped and saved; evaluating what there is (Ctrl-C again skips it)\n")
            figures = evaluate_model(load_model(directory))
            Console().print(_table(figures, "so far"), highlight=False)
        raise


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Judge a run, finished or stopped, by fresh deterministic episodes."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run, finished or stopped."""
    episodes: int = 10
    """Episodes per representative."""
    seed: int = 1
    """Of the episodes."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def evaluate() -> None:
    """`rmdp-eval`: welfare, its spread over users and its ceiling, of a run."""
    options = tyro.cli(EvaluateOptions, prog="rmdp-eval", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from rmdp.train import evaluate_model, load_model

    prepare("cpu", options.threads)
    figures = evaluate_model(load_model(options.run), options.seed, options.episodes)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(_table(figures), highlight=False)


def _table(figures: Mapping[str, Any], remark: str = "") -> Table:
    title = f"{figures['env']}: {figures['n']} users, {figures['k']} policies, {figures['algorithm']}"
    table = Table("figure", "value", title=f"{title}, {remark}" if remark else title)
    for name, label in _ROWS.items():
        value = figures.get(name)
        if value is not None:
            table.add_row(label, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table
