"""The commands. Heavy imports are inside the functions, so that `--help` answers at once."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from gt_core.cli import command, parse_training
from gt_core.reproduce.command import reproduce_command
from gt_core.sweep.command import sweep_command
from rich.console import Console
from rich.table import Table

from regretformer.config import DEFAULT_PRESET, PRESETS, Attack
from regretformer.distillation_config import DEFAULT_DISTILLATION, DISTILLATIONS

__all__ = [
    "compare",
    "cross_misreport",
    "distill",
    "evaluate",
    "export",
    "import_official",
    "plot",
    "reproduce",
    "sweep",
    "train",
]


@command
def train() -> None:
    """`regretformer-train`: learn an auction, evaluate it honestly, draw it."""
    description = "Learn an auction that earns as much as a regret budget allows."
    config, resume = parse_training(PRESETS, DEFAULT_PRESET, "regretformer-train", description)
    from regretformer.report import result_table
    from regretformer.runs import complete

    result = complete(config, resume=resume)
    if result is not None:
        Console().print(result_table(result), f"{config.directory}: result.json, plots/", sep="\n", highlight=False)


@command
def sweep() -> None:
    """`regretformer-sweep`: a grid of runs."""
    description = "Learn an auction for every combination of the values given, on this machine or a cluster."
    figures = ("revenue", "regret_sum_over_revenue", "optimal_revenue")
    train = "regretformer.runs:complete"
    sweep_command(PRESETS, lambda _: DEFAULT_PRESET, "regretformer-sweep", description, train, figures)


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
    """CPU threads; settings of a mixture are evaluated side by side."""
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
    figures = evaluate_run(options.run, evaluation, options.setting, options.device, threads=options.threads)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(result_table(figures))


@dataclasses.dataclass(frozen=True)
class ComparisonOptions:
    """What commands take that measure several mechanisms in the same way."""

    mechanisms: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Directories of runs and imports, and known auctions: vcg, itemwise-myerson, bundle-myerson, straight-jacket,
    optimum."""
    setting: str = ""
    """What all must be for, such as 2x2; needed only where no directory is named."""
    attack: Attack = "auto"
    """Search for misreports; auto is the strongest that is feasible."""
    valuations: int | None = None
    """Fresh profiles on which regret is measured; by default 10,000 by grid and 1,000 by ascent."""
    seed: int = 0
    """Of valuations and misreports."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON value and nothing else."""


@dataclasses.dataclass(frozen=True)
class CompareOptions(ComparisonOptions):
    """Revenue, honest regret and score of mechanisms under one and the same attack, and the frontier."""

    out: Path | None = None
    """Also draw revenue against honest regret into this file; its ending chooses the format."""


@command
def compare() -> None:
    """`regretformer-compare`: runs, imported networks and known auctions side by side."""
    options = tyro.cli(CompareOptions, prog="regretformer-compare", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from regretformer.compare import compare as measure
    from regretformer.compare import comparison_table, equal_evaluation
    from regretformer.frontier import plot_frontier
    from regretformer.mechanisms import open_mechanisms

    prepare("cpu", options.threads)
    mechanisms, valuations = open_mechanisms(options.mechanisms, options.setting)
    evaluation = equal_evaluation(valuations.setting, options.attack, options.valuations, options.seed)
    rows = measure(mechanisms, valuations, evaluation)
    sys.stdout.write(json.dumps(rows) + "\n" if options.json else comparison_table(rows))
    if options.out is not None:
        plot_frontier(options.out, rows)


@dataclasses.dataclass(frozen=True)
class CrossMisreportOptions(ComparisonOptions):
    """Regret of every mechanism on the misreports found against every other: does a search miss what others find?"""


@command
def cross_misreport() -> None:
    """`regretformer-cross-misreport`: the square table of misreports against mechanisms."""
    options = tyro.cli(
        CrossMisreportOptions, prog="regretformer-cross-misreport", config=(tyro.conf.FlagCreatePairsOff,)
    )
    from gt_core.environment import prepare

    from regretformer.compare import equal_evaluation
    from regretformer.cross_misreports import cross_misreports, cross_table
    from regretformer.mechanisms import open_mechanisms

    prepare("cpu", options.threads)
    mechanisms, valuations = open_mechanisms(options.mechanisms, options.setting)
    evaluation = equal_evaluation(valuations.setting, options.attack, options.valuations, options.seed)
    table = cross_misreports(mechanisms, valuations, evaluation)
    sys.stdout.write(json.dumps(table) + "\n" if options.json else cross_table(table))


@command
def distill() -> None:
    """`regretformer-distill`: teach a network to answer as another mechanism does."""
    description = "Teach a network to answer as another mechanism does, and judge both on either one's misreports."
    config, resume = parse_training(DISTILLATIONS, DEFAULT_DISTILLATION, "regretformer-distill", description)
    from regretformer.distillation import complete_distillation, resolve_teacher

    config = resolve_teacher(config)
    table = _distillation_table(complete_distillation(config, resume=resume))
    Console().print(table, f"{config.directory}: result.json, plots/", sep="\n", highlight=False)


def _distillation_table(result: dict[str, Any]) -> Table:
    title = f"{result['net']} taught by {result['teacher']} · {result['setting']}"
    table = Table("", "teacher", "student", title=title)
    figures = {"revenue": ("revenue", 4)}
    for source in ("teacher", "student"):
        figures[f"regret on misreports against the {source}"] = (f"regret_sum_on_{source}_misreports", 6)
    for label, (name, digits) in figures.items():
        table.add_row(label, *(f"{result[f'{who}_{name}']:.{digits}f}" for who in ("teacher", "student")))
    table.add_row("divergence (nats)", "", f"{result['divergence']:.4f}")
    return table


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Draw a mechanism: its allocation, where its regret hides, and how it was learnt."""

    mechanism: Annotated[str, tyro.conf.Positional]
    """Directory of a run or an import, or a known auction."""
    setting: str = ""
    """The setting of a known auction, such as 1x2."""
    out: Path | None = None
    """Folder; by default plots/ in the directory, and here for a known auction."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def plot() -> None:
    """`regretformer-plot`: pictures of a mechanism."""
    options = tyro.cli(PlotOptions, prog="regretformer-plot", config=(tyro.conf.FlagCreatePairsOff,))
    from gt_core.environment import prepare

    from regretformer.mechanisms import draw_named

    prepare("cpu", options.threads)
    files = [str(file) for file in draw_named(options.mechanism, options.setting, options.out)]
    sys.stdout.write(json.dumps({"files": files}) + "\n" if options.json else "".join(f"{file}\n" for file in files))


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Make a directory of a published state dict that every other command opens like a finished run."""

    file: Annotated[Path, tyro.conf.Positional]
    """A state dict of the official code, as torch.save wrote it."""
    setting: str
    """What the network was trained for, such as 2x2."""
    out: Path | None = None
    """New directory, by default runs/ and the file's name."""
    heads: int | None = None
    """Attention heads of a RegretFormer that has none of the published widths."""
    regret_budget: float = 1e-3
    """The budget it was trained under, with which its regret is compared."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def import_official() -> None:
    """`regretformer-import`: a published network for the other commands."""
    options = tyro.cli(ImportOptions, prog="regretformer-import", config=(tyro.conf.FlagCreatePairsOff,))
    from regretformer.mechanisms import import_official as convert

    out = options.out or Path("runs") / options.file.stem
    network = convert(options.file, out, options.setting, heads=options.heads, regret_budget=options.regret_budget)
    parameters = sum(weight.numel() for weight in network.parameters())
    done = {"directory": str(out), "net": type(network).__name__, "setting": options.setting, "parameters": parameters}
    text = f"{out}: {done['net']} for {options.setting}, {parameters:,} parameters\n"
    sys.stdout.write(json.dumps(done) + "\n" if options.json else text)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write a learnt mechanism as ONNX: bids to allocation and payments, for any batch."""

    run: Annotated[str, tyro.conf.Positional]
    """Directory of a run or an import."""
    out: Path | None = None
    """ONNX file, overwritten if it exists; by default mechanism.onnx in the directory."""
    json: bool = False
    """Print one JSON object and nothing else."""


@command
def export() -> None:
    """`regretformer-export`: a mechanism without PyTorch."""
    options = tyro.cli(ExportOptions, prog="regretformer-export", config=(tyro.conf.FlagCreatePairsOff,))
    from regretformer.export import export_onnx, takes_any_size
    from regretformer.mechanisms import open_learnt

    network, config = open_learnt(options.run)
    file = options.out or Path(options.run) / "mechanism.onnx"
    export_onnx(network, file, config.auction.bidders, config.auction.items)
    done = {"file": str(file), "setting": config.setting, "any_size": takes_any_size(network)}
    sys.stdout.write(json.dumps(done) + "\n" if options.json else f"{file}\n")


@command
def reproduce() -> None:
    """`regretformer-reproduce`: tables and figures of the paper beside our runs."""
    from regretformer.reproduction import EXPERIMENTS

    description = "Run, or go on with, what stands behind a table of the paper; write it beside ours and the optima."
    reproduce_command(EXPERIMENTS, "regretformer.reproduction_runs:complete", "regretformer-reproduce", description)
