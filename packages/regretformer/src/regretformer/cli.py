"""The commands. Heavy imports are inside the functions, so that `--help` answers at once."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro
from gt_core.cli import command, parse_training
from rich.console import Console

from regretformer.config import DEFAULT_PRESET, PRESETS, Attack

__all__ = ["evaluate", "train"]


@command
def train() -> None:
    """`regretformer-train`: learn an auction, evaluate it honestly, draw it."""
    description = "Learn an auction that earns as much as a regret budget allows."
    config, resume = parse_training(PRESETS, DEFAULT_PRESET, "regretformer-train", description)
    from gt_core.environment import prepare
    from gt_core.run import Run, read_result

    from regretformer.report import default_evaluation, draw_run, evaluate_run, result_table
    from regretformer.train import Trainer
    from regretformer.train import train as learn

    prepare(config.device, config.threads)
    shown = {"revenue": "train/revenue", "regret/revenue": "train/regret_over_revenue", "multiplier": "dual/multiplier"}
    trainer = Trainer(config)  # refuses what cannot work before there is a directory
    run = Run(config, resume=resume, packages=("regretformer",), shown=shown)
    if run.result is None:
        learn(run, trainer)
        draw_run(run.directory)
        run.finish(evaluate_run(run.directory, default_evaluation(config), device=config.device))
    result = read_result(run.directory)
    Console().print(result_table(result), f"{run.directory}: result.json, plots/", sep="\n", highlight=False)


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained auction on fresh valuations."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    setting: str | None = None
    """Another setting than the run's, or a mixture FIRST..LAST, for a network that takes any size."""
    attack: Attack = "auto"
    """Search for misreports; auto is the strongest that is feasible."""
    valuations: int | None = None
    """Fresh profiles on which regret is measured; by default 10,000 by grid and 1,000 by ascent."""
    seed: int = 0
    """Of valuations and misreports."""
    device: str = "cpu"
    """Where to evaluate: cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def evaluate() -> None:
    """`regretformer-eval`: revenue and honest regret of a finished run."""
    options = tyro.cli(EvaluateOptions, prog="regretformer-eval", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from regretformer.report import default_evaluation, evaluate_run, load_config, result_table

    prepare(options.device, options.threads)
    evaluation = default_evaluation(load_config(options.run), options.attack, options.seed, options.setting)
    if options.valuations is not None:
        evaluation = dataclasses.replace(evaluation, valuations=options.valuations)
    figures = evaluate_run(options.run, evaluation, options.setting, options.device)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(result_table(figures))
