"""Pictures of a run: how it learnt, who is served by whom, and what each user gets. Colours are representatives."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from rmdp.assignment import Assignment
from rmdp.envs.batch import Floats
from rmdp.envs.resource_gathering import HOME, SIDE, ResourceGatheringBatch
from rmdp.evaluate import most_probable_actions
from rmdp.policies import ObservationMoments, Policies

__all__ = [
    "draw_paths",
    "plot_learning_curve",
    "plot_learning_curves",
    "plot_paths",
    "plot_returns",
    "plot_targets",
    "walks_of",
]

mpl.use("Agg")

_BINS = 40


def plot_learning_curve(path: Path, metrics: Path, ceiling: float | None, title: str) -> None:
    """Welfare while training, with exploration noise, over environment steps; the ceiling as a line."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    steps = np.array([row["train/env_steps"] for row in rows]) / 1e6
    axes.plot(steps, [row["train/welfare"] for row in rows], label="welfare with exploration")
    if ceiling is not None:
        axes.axhline(ceiling, color="black", linestyle="--", label=f"ceiling {ceiling:.4g}")
    axes.set(title=title, xlabel="million environment steps", ylabel="mean return per user", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def plot_learning_curves(path: Path, curves: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Welfare while training of several runs of each kind: the mean over seeds, and from the lowest to the highest.

    Args:
        path: Where to.
        curves: The metrics of all seeds, by panel and by label.
    """
    columns = min(len(curves), 3)
    height = -(-len(curves) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.2 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, (title, kinds) in zip(panels, curves.items(), strict=False):
        for label, files in kinds.items():
            seeds = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
            steps = np.array([row["train/env_steps"] for row in seeds[0]]) / 1e6
            welfare = np.array([[row["train/welfare"] for row in rows] for rows in seeds])
            axes.plot(steps, welfare.mean(axis=0), label=f"{label} ({len(files)})")
            axes.fill_between(steps, welfare.min(axis=0), welfare.max(axis=0), alpha=0.2, linewidth=0)
        ceilings = [row["train/ceiling"] for row in seeds[0][-1:] if "train/ceiling" in row]
        for ceiling in ceilings:
            axes.axhline(ceiling, color="black", linestyle="--")
        axes.set(title=title, xlabel="million environment steps", ylabel="welfare with exploration", ylim=(0, None))
        axes.legend(loc="lower right", fontsize=8)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


def plot_targets(path: Path, targets: Floats, assignment: Assignment, k: int, title: str) -> None:
    """Histogram of the users' target velocities, coloured by their representative."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    groups = [targets[assignment == j] for j in range(k)]
    bins = np.linspace(targets.min(), targets.max(), _BINS + 1)
    axes.hist(groups, bins=list(bins), stacked=True, color=_colours(k), label=_names(assignment, k))
    axes.set(title=title, xlabel="target velocity (m/s)", ylabel="users")
    _legend(figure, k)
    figure.savefig(path, dpi=120)


def plot_returns(path: Path, returns: Floats, assignment: Assignment, k: int, title: str) -> None:
    """Return of each user from their representative, users in rising order."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(returns, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    for j, (colour, name) in enumerate(zip(_colours(k), _names(assignment, k), strict=True)):
        mine = assignment == j
        axes.bar(rank[mine], returns[mine], width=0.9, color=colour, label=name)
    axes.axhline(returns.mean(), color="black", linestyle="--", linewidth=1)
    axes.annotate(f"mean {returns.mean():.4g}", (1, returns.mean()), xytext=(0, 4), textcoords="offset points")
    axes.set(title=title, xlabel="users, worst served first", ylabel="return")
    _legend(figure, k)
    figure.savefig(path, dpi=120)


def plot_paths(path: Path, walks: Sequence[Floats], cells: Assignment, assignment: Assignment, title: str) -> None:
    """Write the picture of `draw_paths`."""
    draw_paths(walks, cells, assignment, title).savefig(path, dpi=120)


def draw_paths(
    walks: Sequence[Floats], cells: Assignment, assignment: Assignment, title: str, shown: int | None = None
) -> Figure:
    """Walk of each representative on the grid, the cells of its users shaded, home as a square.

    Args:
        walks: Row and column at each step of each walk, (steps + 1, 2).
        cells: Cell of each user, (n,).
        assignment: Representative of each user, (n,).
        title: Above the picture.
        shown: How many places of each walk are drawn, a dot at the last; all by default.
    """
    columns = min(len(walks), SIDE)
    rows = -(-len(walks) // columns)
    figure = Figure(figsize=(2.3 * columns + 0.4, 2.5 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for j, (axes, walk, colour) in enumerate(zip(panels, walks, _colours(len(walks)), strict=False)):
        shade = np.zeros(SIDE * SIDE)
        shade[cells[assignment == j]] = 1
        axes.imshow(shade.reshape(SIDE, SIDE), cmap="Greys", vmin=0, vmax=4)
        # a step back along the same edge is drawn beside it
        beside = (walk + np.linspace(-0.18, 0.18, len(walk))[:, None])[:shown]
        axes.plot(beside[:, 1], beside[:, 0], color=colour, linewidth=2)
        axes.plot(HOME[1], HOME[0], marker="s", color="black", markersize=9)
        if shown is not None:
            axes.plot(beside[-1, 1], beside[-1, 0], marker="o", color=colour, markersize=9)
        axes.set(xticks=np.arange(SIDE + 1) - 0.5, yticks=np.arange(SIDE + 1) - 0.5)
        axes.set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5))
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        axes.grid(color="lightgrey")
        served = int((assignment == j).sum())
        axes.set_title(f"{j}: {len(walk) - 1} steps, {served} user{'s' if served != 1 else ''}", fontsize=9)
    for axes in panels[len(walks) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    return figure


def walks_of(policies: Policies, moments: ObservationMoments, k: int) -> list[Floats]:
    """Deterministic walk of each representative: row and column at each step, (steps + 1, 2)."""
    env = ResourceGatheringBatch(k)
    observation: Floats = env.reset()
    walks: list[list[Floats]] = [[observation[j, :2]] for j in range(k)]
    walking = np.ones(k, dtype=bool)
    while walking.any():
        step = env.step(most_probable_actions(policies, moments, observation, k))
        for j in np.flatnonzero(walking):
            walks[j].append(step.final_observation[j, :2])
        walking &= ~(step.terminated | step.truncated)
        observation = step.observation
    return [np.array(walk) for walk in walks]


def _colours(k: int) -> list[Any]:
    if k <= 10:
        return [mpl.colormaps["tab10"](j) for j in range(k)]
    return [mpl.colormaps["turbo"](j / (k - 1)) for j in range(k)]


def _names(assignment: Assignment, k: int) -> list[str]:
    return [f"representative {j} ({size})" for j, size in enumerate(np.bincount(assignment, minlength=k))]


def _legend(figure: Figure, k: int) -> None:
    """A legend beside the axes, as long as it is readable."""
    if k <= 25:
        figure.legend(loc="outside right upper", fontsize=8)
