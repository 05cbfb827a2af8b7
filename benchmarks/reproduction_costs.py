"""Seconds per iteration of every kind of run behind the papers' tables: what `*-reproduce --list` reckons with.

    python benchmarks/reproduction_costs.py                     # print what is in the packages' costs.json
    python benchmarks/reproduction_costs.py --write             # time what is not, minutes to hours, and add it
    python benchmarks/reproduction_costs.py --write --only 1x2  # of that, what has 1x2 in its name
    python benchmarks/reproduction_costs.py --write --anew      # time everything again

Processor time of one thread, the least of some iterations after a first one, so that other work on the machine does not
count. Runs at the scale smoke are not timed.
"""

import argparse
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gt_core.config import RunConfig
from gt_core.environment import hardware, prepare
from gt_core.files import write_json
from gt_core.reproduce.experiment import cells_of

PACKAGES = ("regretformer", "mediated_marl", "rmdp")
MEASURED_ON = f"{hardware('cpu')['hardware_cpu']}, processor time of one thread, by benchmarks/reproduction_costs.py"
ITERATIONS = 3
ENOUGH_SECONDS = 20.0


def kinds(package: str) -> Iterator[tuple[str, RunConfig]]:
    """Every kind of run of a package's experiments, and a config of it."""
    module = importlib.import_module(f"{package}.reproduction")
    seen: set[str] = set()
    for experiment in module.EXPERIMENTS:
        for scale in ("laptop", "full"):
            lines = experiment.lines(scale, Path("cells"))
            for cell in [*cells_of(lines, needs=True), *cells_of(lines)]:
                kind, iterations = module.work_of(cell.config)
                if iterations and kind not in seen:
                    seen.add(kind)
                    yield kind, cell.config


def learner(package: str, config: Any) -> Any:  # noqa: ANN401 (each package has its own)
    """What has `iterate` for a config."""
    if package == "rmdp":
        from rmdp.algorithms import ALGORITHMS
        from rmdp.setup import build_population

        return ALGORITHMS[config.algorithm](config, build_population(config))
    if package == "mediated_marl":
        from mediated_marl.train import build_trainer

        return build_trainer(config)
    if hasattr(config, "teacher"):
        from regretformer.distillation import Distiller
        from regretformer.oracles import baselines
        from regretformer.sources import load_valuations

        valuations = load_valuations(config.student)
        return Distiller(config, baselines(valuations)["vcg"], valuations)  # a teacher's answers cost next to nothing
    from regretformer.train import Trainer

    return Trainer(dataclasses.replace(config, imitation=0.0))  # which takes less than training proper


def seconds_per_iteration(package: str, config: RunConfig) -> float:
    """The least processor time of some iterations."""
    prepare("cpu", 1)
    trained, best, began = learner(package, config), float("inf"), time.process_time()
    for step in range(ITERATIONS + 1):
        start = time.process_time()
        trained.iterate()
        now = time.process_time()
        if step or now - began > ENOUGH_SECONDS:
            best = min(best, now - start)
        if now - began > ENOUGH_SECONDS:
            break
    return best


def main() -> None:
    """Time what is asked for, and print what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="time the kinds that are not known, and add them")
    parser.add_argument("--anew", action="store_true", help="time those that are known as well")
    parser.add_argument("--only", default="", help="part of the names of the kinds to time")
    parser.add_argument("--quick", action="store_true", help="as without: nothing is timed unless --write is given")
    options = parser.parse_args()
    for package in PACKAGES:
        file = Path(str(importlib.import_module(package).__file__)).with_name("costs.json")
        measured = json.loads(file.read_text())["seconds_per_iteration"]
        for kind, config in kinds(package):
            if options.write and options.only in kind and (options.anew or kind not in measured):
                measured[kind] = float(f"{seconds_per_iteration(package, config):.3g}")
                write_json(file, {"measured on": MEASURED_ON, "seconds_per_iteration": measured})
            sys.stdout.write(f"{package:14s}{kind:44s}{measured.get(kind, float('nan')):12.4g} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
