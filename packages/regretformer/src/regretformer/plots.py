"""Pictures of training: how revenue, regret and the multiplier got where they ended."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from regretformer.oracles import Optimum

__all__ = [
    "plot_budgets",
    "plot_divergence",
    "plot_learning_curve",
    "plot_multiplier",
    "read_metrics",
    "save",
    "smooth",
]

mpl.use("Agg")


def read_metrics(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's `metrics.jsonl`."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def plot_learning_curve(path: Path, metrics: dict[str, NDArray[np.float64]], optimum: Optimum | None) -> None:
    """Revenue above, regret as a share of revenue with its budget below, over iterations."""
    figure = Figure(figsize=(7.6, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = metrics["step"]
    above.plot(steps, smooth(metrics["train/revenue"]), color="C0", label="revenue of the batch, smoothed")
    if optimum is not None:
        above.axhline(optimum.revenue, color="black", linestyle="dashed", label="exact optimum at zero regret")
    above.set_ylabel("revenue")
    above.legend(loc="lower right")
    below.plot(steps, smooth(metrics["train/regret_over_revenue"]), color="C3", label="regret / revenue, smoothed")
    below.plot(steps, metrics["dual/budget"], color="black", linestyle="dotted", label="budget")
    below.set_yscale("log")
    below.set_ylabel("sum of regret / revenue")
    below.set_xlabel("iteration")
    below.legend(loc="upper right")
    save(figure, path)


def plot_multiplier(path: Path, metrics: dict[str, NDArray[np.float64]]) -> None:
    """The multiplier's path over iterations."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(metrics["step"], metrics["dual/multiplier"], color="C2")
    axis.set_xlabel("iteration")
    axis.set_ylabel("multiplier of regret")
    axis.set_ylim(bottom=0)
    save(figure, path)


def plot_divergence(path: Path, metrics: dict[str, NDArray[np.float64]]) -> None:
    """How far a student is from its teacher over iterations, on truthful profiles and on its misreports."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(metrics["step"], smooth(metrics["train/divergence"]), color="C0", label="truthful profiles, smoothed")
    label = "profiles with a misreport, smoothed"
    axis.plot(metrics["step"], smooth(metrics["train/divergence_misreports"]), color="C3", label=label)
    axis.set_yscale("log")
    axis.set_xlabel("iteration")
    axis.set_ylabel("divergence from the teacher (nats)")
    axis.legend(loc="upper right")
    save(figure, path)


def plot_budgets(path: Path, runs: Mapping[str, Mapping[str, Path]]) -> None:
    """Revenue, regret over revenue and multiplier over iterations, of runs under different budgets.

    Args:
        path: where to.
        runs: directories by setting, a column each, and by budget, a colour each.
    """
    figure = Figure(figsize=(5.2 * len(runs), 7.8), layout="constrained")
    panels = figure.subplots(3, len(runs), sharex="col", squeeze=False)
    names = ("train/revenue", "train/regret_over_revenue", "dual/multiplier")
    for column, (setting, of_budget) in zip(panels.T, runs.items(), strict=True):
        for index, (budget, run) in enumerate(of_budget.items()):
            metrics = read_metrics(run)
            for axis, name in zip(column, names, strict=True):
                axis.plot(metrics["step"], smooth(metrics[name]), color=f"C{index}", label=budget)
            if "augmented" not in budget:
                column[1].plot(metrics["step"], metrics["dual/budget"], color=f"C{index}", linestyle="dotted")
        column[0].set_title(setting)
        column[1].set_yscale("log")
        column[2].set_xlabel("iteration")
    for axis, label in zip(panels[:, 0], ("revenue", "sum of regret / revenue", "multiplier"), strict=True):
        axis.set_ylabel(f"{label}, smoothed")
    panels[0, 0].legend(title="budget", loc="lower right", fontsize=8)
    save(figure, path)


def smooth(series: NDArray[np.float64], window: int = 100) -> NDArray[np.float64]:
    """Running mean over the last `window` entries, fewer at the start."""
    sums = np.cumsum(np.insert(series, 0, 0.0))
    ends = np.arange(1, len(series) + 1)
    starts = np.maximum(ends - window, 0)
    smoothed: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


def save(figure: Figure, path: Path) -> None:
    """Write a figure, and its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
