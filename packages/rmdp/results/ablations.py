"""What each part of the EM-like algorithm is worth: the same run with one part as in the published code, or without.

    python packages/rmdp/results/ablations.py                       # every variant, HalfCheetah, k = 5, seed 0
    python packages/rmdp/results/ablations.py --only pinned warm-up --seeds 0 1 2
    python packages/rmdp/results/ablations.py --table               # what is in ablations.json, in Markdown

Every run is added to `ablations.json` when it ends; what is there already is not run again. Two variants are parts
that nobody should choose, so they are no settings of the package and are put together here.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_core.files import write_json

from rmdp.algorithms.em import EM
from rmdp.assignment import Assignment, flips
from rmdp.config import PRESETS, TrainConfig, default_preset
from rmdp.population import Population
from rmdp.setup import build_population
from rmdp.train import evaluate_model, model_of

FILE = Path(__file__).parent / "ablations.json"


class FixedSigma(EM):
    """Exploration noise that is never trained (defect 1 of the published code)."""

    def __init__(self, config: TrainConfig, population: Population) -> None:
        super().__init__(config, population)
        sigma = self.representatives.policies.log_sigma
        for distribution in self.representatives.learner.distributions:
            distribution.backward = without(sigma, distribution.backward)  # type: ignore[method-assign]


def without(sigma: torch.nn.Parameter, backward: Callable[..., None]) -> Callable[..., None]:
    """The chain rule, but nothing reaches sigma."""

    def pass_by(*arguments: Any) -> None:  # noqa: ANN401 (arrays)
        backward(*arguments)
        sigma.grad.zero_()  # type: ignore[union-attr]

    return pass_by


class Pinned(EM):
    """An E-step in which the last user of every cluster stays (defect 3 of the published code)."""

    def _e_step(self) -> int:
        before = self.assignment
        super()._e_step()
        self.assignment = pinned(before, self.assignment)
        return flips(before, self.assignment)


def pinned(before: Assignment, after: Assignment) -> Assignment:
    """`after`, but the last user of each cluster of `before` stays there."""
    kept = after.copy()
    for cluster in np.unique(before):
        last = np.flatnonzero(before == cluster)[-1]
        kept[last] = cluster
    return kept


Variant = tuple[str, dict[str, Any], Callable[[TrainConfig, Population], EM]]
VARIANTS: dict[str, Variant] = {
    "ours": ("as it is", {}, EM),
    "sigma": ("exploration noise not trained", {}, FixedSigma),
    "normalise": ("observations not normalised", {"normalise": False}, EM),
    "truncation": ("time limit taken for the end", {"deadline": True}, EM),
    "pinned": ("last user of each cluster pinned", {}, Pinned),
    "warm-up": ("no iterations before the first E-step", {"warm_up": 0}, EM),
    "ease": ("users never more tolerant than they are", {"ease": 1.0}, EM),
    "balance": ("clusters of any size from the start", {"balance_until": 0.0}, EM),
    "trunk": ("hidden layers shared", {"trunk": "shared"}, EM),
    "memory": ("table of returns as slow as published", {"memory": 0.95}, EM),
}
"""By name: what is different, the settings, the algorithm."""


def measure(name: str, config: TrainConfig) -> dict[str, Any]:
    """Train one variant and judge it by deterministic episodes."""
    _, settings, algorithm = VARIANTS[name]
    config = dataclasses.replace(config, **settings)
    learner = algorithm(config, build_population(config))
    for _ in range(config.iterations):
        learner.iterate()
    learner.representatives.env.close()
    figures = evaluate_model(model_of(learner, config))
    kept = ("env", "k", "n", "welfare", "ceiling", "worst_user", "quantile_0.5")
    return {"variant": name, "seed": config.seed, "iterations": config.iterations} | {key: figures[key] for key in kept}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean welfare of each variant over its seeds, in Markdown, and what is lost against `ours`."""
    rows = [
        "| environment | k | iterations | variant | seeds | welfare | against ours |\n|---|---|---|---|---|---|---|\n"
    ]
    cases = list(dict.fromkeys((run["env"], run["k"], run["iterations"]) for run in runs))
    for case in cases:
        found = {name: [run["welfare"] for run in runs if _is(run, case, name)] for name in VARIANTS}
        for name, values in found.items():
            if values:
                change = f"{np.mean(values) / np.mean(found['ours']) - 1:+.0%}" if found["ours"] else ""
                cells = (*case, VARIANTS[name][0], len(values), f"{np.mean(values):.4g}", change)
                rows.append("| " + " | ".join(map(str, cells)) + " |\n")
    return "".join(rows)


def _is(run: dict[str, Any], case: tuple[str, int, int], name: str) -> bool:
    return (run["env"], run["k"], run["iterations"]) == case and run["variant"] == name


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", default="HalfCheetah-v4")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=0, help="0 takes the preset's")
    parser.add_argument("--preset", choices=PRESETS, help="the one that suits the environment if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base = dataclasses.replace(PRESETS[options.preset or default_preset(options.env)], env=options.env, k=options.k)
    base = dataclasses.replace(base, iterations=options.iterations or base.iterations)
    runs: list[dict[str, Any]] = json.loads(options.file.read_text()) if options.file.is_file() else []
    case = (base.env, base.k, base.iterations)
    for seed in [] if options.table else options.seeds:
        for name in options.only:
            if not any(_is(run, case, name) and run["seed"] == seed for run in runs):
                runs.append(measure(name, dataclasses.replace(base, seed=seed)))
                write_json(options.file, runs)
                sys.stderr.write(f"{name}, seed {seed}: {runs[-1]['welfare']:.4g}\n")
    sys.stdout.write(table(runs))


if __name__ == "__main__":
    main()
