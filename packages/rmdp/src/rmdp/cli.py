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
from gt_core.reproduce.command import reproduce_command
from gt_core.sweep.command import sweep_command
from rich.console import Console
from rich.table import Table

from rmdp.config import PRESETS, TrainConfig, default_preset

__all__ = ["assign", "evaluate", "export", "plot", "reproduce", "sweep", "train", "video"]

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
    early.add_argument("--env", default=TrainConfig.env)
    preset = default_preset(early.parse_known_args()[0].env)
    description = "Learn k policies that serve n users, and who is served by which."
    config, resume = parse_training(PRESETS, preset, "rmdp-train", description)
    from rmdp.runs import complete

    with _evaluated_when_stopped(config.directory):
        result = complete(config, resume=resume)
    Console().print(_table(result), f"{config.directory}: result.json, model/", sep="\n", highlight=False)


@command
def sweep() -> None:
    """`rmdp-sweep`: a grid of runs."""
    description = "Learn policies for every combination of the values given, on this machine or a cluster."
    figures = ("welfare", "share_of_ceiling")
    sweep_command(PRESETS, preset_of, "rmdp-sweep", description, "rmdp.runs:complete", figures)


def preset_of(settings: Mapping[str, Any]) -> str:
    """The preset where none is named."""
    return default_preset(settings.get("env", TrainConfig.env))


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


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Draw a run's learning curve, users and their returns, and walks on the grid, into its folder plots/."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run, finished or stopped."""
    seed: int = 1
    """Of the episodes that users are judged on."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def plot() -> None:
    """`rmdp-plot`: pictures of a run."""
    options = tyro.cli(PlotOptions, prog="rmdp-plot", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from rmdp.report import plot_run

    prepare("cpu", options.threads)
    files = [str(file) for file in plot_run(options.run, options.seed)]
    sys.stdout.write(json.dumps({"files": files}) + "\n" if options.json else "".join(f"{file}\n" for file in files))


@dataclasses.dataclass(frozen=True)
class AssignOptions:
    """Give new users the representative that is best for them, and the loss against a policy of their own."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run, finished or stopped."""
    users: str = "auto"
    """package.module:factory, as in training; auto draws fresh users of the run's kind."""
    n: int = 0
    """How many; 0 takes as many as in training."""
    seed: int = 1
    """Of the users and the episodes."""
    episodes: int = 10
    """Episodes per representative."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def assign() -> None:
    """`rmdp-assign`: representatives for users who took no part in training."""
    options = tyro.cli(AssignOptions, prog="rmdp-assign", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from rmdp.report import assign_new_users

    prepare("cpu", options.threads)
    found = assign_new_users(options.run, options.users, options.n, options.seed, options.episodes)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    table = Table("user", "representative", "estimated return", "loss against a policy of their own")
    losses = found["loss"] or [None] * found["n"]
    for user, (chosen, value, loss) in enumerate(zip(found["assignment"], found["return"], losses, strict=True)):
        table.add_row(str(user), str(chosen), f"{value:.4g}", "unknown" if loss is None else f"{loss:.4g}")
    Console().print(table, f"mean return {found['welfare']:.4g}", sep="\n", highlight=False)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Freeze representatives as ONNX and Stable-Baselines3 models, with the assignment and hashes of all files."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run, finished or stopped."""
    out: Path | None = None
    """New directory; RUN/export if not given."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print the manifest as one JSON object and nothing else."""


@command
def export() -> None:
    """`rmdp-export`: what a regulator is handed."""
    options = tyro.cli(ExportOptions, prog="rmdp-export", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from rmdp.export import export_run

    prepare("cpu", options.threads)
    out = options.out or options.run / "export"
    manifest = export_run(options.run, out)
    if options.json:
        sys.stdout.write(json.dumps(manifest) + "\n")
        return
    sys.stdout.write("".join(f"{out / name}\n" for name in [*manifest["files"], "manifest.json"]))
    for name in manifest["left_out"]:
        sys.stderr.write(f"left out: {name}; pip install 'rmdp[export]' brings it, where actions are bounded\n")


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """Film the representatives of a run side by side; walks on the grid are drawn step by step."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run, finished or stopped."""
    out: Path | None = None
    """File to write, .mp4 or .gif; RUN/video.mp4 if not given."""
    steps: int = 300
    """Environment steps to film; walks are filmed to their end."""
    seed: int = 1
    """Of the episodes."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def video() -> None:
    """`rmdp-video`: the representatives at work."""
    options = tyro.cli(VideoOptions, prog="rmdp-video", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from rmdp.video import film_run

    prepare("cpu", options.threads)
    file = str(film_run(options.run, options.out or options.run / "video.mp4", options.steps, options.seed))
    sys.stdout.write((json.dumps({"file": file}) if options.json else file) + "\n")


@command
def reproduce() -> None:
    """`rmdp-reproduce`: Figure 5 of the paper beside our runs."""
    from rmdp.reproduction import EXPERIMENTS

    description = "Run, or go on with, what stands behind a figure of the paper; write it beside ours and the ceilings."
    reproduce_command(EXPERIMENTS, "rmdp.runs:complete", "rmdp-reproduce", description)


def _table(figures: Mapping[str, Any], remark: str = "") -> Table:
    title = f"{figures['env']}: {figures['n']} users, {figures['k']} policies, {figures['algorithm']}"
    table = Table("figure", "value", title=f"{title}, {remark}" if remark else title)
    for name, label in _ROWS.items():
        value = figures.get(name)
        if value is not None:
            table.add_row(label, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table
