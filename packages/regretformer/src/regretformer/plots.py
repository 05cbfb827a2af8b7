"""Pictures of a run: what the mechanism does, how it got there, and what the budget cost."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from regretformer.auction import Mechanism
from regretformer.misreports import grid
from regretformer.oracles import Optimum
from regretformer.valuations import Valuations

__all__ = ["plot_allocation", "plot_learning_curve", "plot_multiplier", "read_metrics"]

mpl.use("Agg")

_RESOLUTION = 201


def read_metrics(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's `metrics.jsonl`."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@torch.no_grad()
def plot_allocation(
    path: Path, mechanism: Mechanism, valuations: Valuations, optimum: Optimum | None, title: str
) -> None:
    """Heat map of each item's allocation over the values of a single bidder for two items.

    The exact optimum's regions are drawn over it as lines where its allocation jumps.
    """
    values = valuations.scale(grid(_RESOLUTION, 2), 0).unsqueeze(1)
    learnt = mechanism(values).allocation[:, 0]
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for item, axis in enumerate(axes):
        image = _heat_map(axis, learnt[:, item], valuations)
        if optimum is not None:
            _regions(axis, optimum.mechanism(values).allocation[:, 0, item], valuations)
        axis.set_box_aspect(1)
        axis.set_title(f"Item {item + 1}")
        axis.set_xlabel("value of item 1")
    axes[0].set_ylabel("value of item 2")
    figure.colorbar(image, ax=axes, label="probability of receiving the item")
    figure.suptitle(title + ("; dashed: the exact optimum" if optimum is not None else ""))
    _save(figure, path)


def _heat_map(axis: Axes, allocation: torch.Tensor, valuations: Valuations) -> Any:  # noqa: ANN401 (an image)
    cells = allocation.reshape(_RESOLUTION, _RESOLUTION).T.cpu().numpy()
    return axis.imshow(cells, origin="lower", extent=_extent(valuations), vmin=0, vmax=1, cmap="viridis", aspect="auto")


def _regions(axis: Axes, allocation: torch.Tensor, valuations: Valuations) -> None:
    cells = allocation.reshape(_RESOLUTION, _RESOLUTION).T.cpu().numpy()
    levels = [0.25, 0.75]  # a lottery may give an item with probability 1/2: mark the jumps on both sides of it
    axis.contour(cells, levels=levels, extent=_extent(valuations), colors="white", linestyles="dashed", linewidths=1.8)


def _extent(valuations: Valuations) -> tuple[float, float, float, float]:
    (left, bottom), (right, top) = valuations.low[0].tolist(), valuations.high[0].tolist()
    return left, right, bottom, top


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
    _save(figure, path)


def plot_multiplier(path: Path, metrics: dict[str, NDArray[np.float64]]) -> None:
    """The multiplier's path over iterations."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(metrics["step"], metrics["dual/multiplier"], color="C2")
    axis.set_xlabel("iteration")
    axis.set_ylabel("multiplier of regret")
    axis.set_ylim(bottom=0)
    _save(figure, path)


def smooth(series: NDArray[np.float64], window: int = 100) -> NDArray[np.float64]:
    """Running mean over the last `window` entries, fewer at the start."""
    sums = np.cumsum(np.insert(series, 0, 0.0))
    ends = np.arange(1, len(series) + 1)
    starts = np.maximum(ends - window, 0)
    smoothed: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
