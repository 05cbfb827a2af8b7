"""What the pictures of all runs share: colours, logged figures over iterations, and bands over seeds."""

import torch
from matplotlib.axes import Axes

__all__ = ["BLUE", "GREEN", "GREY", "MULTIPLIERS", "ORANGE", "band", "draw_metrics"]

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#666666"
MULTIPLIERS = {"dual/ic": ("IC", ORANGE), "dual/e": ("E", BLUE)}


def draw_metrics(axis: Axes, metrics: list[dict[str, float]], names: dict[str, tuple[str, str]], title: str) -> None:
    """Logged figures over iterations."""
    for name, (label, colour) in names.items():
        lines = [line for line in metrics if name in line]
        if lines:
            axis.plot([line["step"] for line in lines], [line[name] for line in lines], color=colour, label=label, lw=1)
    axis.set(title=title, xlabel="iteration")
    axis.legend(frameon=False)


def band(axis: Axes, places: list[int], values: torch.Tensor, colour: str, label: str) -> None:
    """The mean over seeds of `values` `[S, K]`, and their range."""
    low, high = values.amin(0).tolist(), values.amax(0).tolist()
    axis.plot(places, values.mean(0).tolist(), color=colour, label=label, marker="." if len(places) < 30 else None)
    axis.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
