"""The frontier: revenue against honest regret, of mechanisms learnt under different budgets."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from regretformer.plots import save

__all__ = ["plot_frontier"]

_NAMES = {"regretformer": "RegretFormer", "equivariantnet": "EquivariantNet", "regretnet": "RegretNet"}
_COLOURS = dict(zip(_NAMES, ("C0", "C2", "C1"), strict=True))
_MARKERS = {"imported": "s", "distilled": "^"}
_LEAST_SHARE = 1e-6  # a logarithmic axis shows no zero
_NEAR = 0.06  # of the height; lines that are closer share a label

Row = dict[str, Any]


def plot_frontier(path: Path, rows: list[Row]) -> None:
    """Draw what `regretformer.compare.compare` found.

    A learnt mechanism stands at its honest sum of regret over revenue, with 95 % intervals; a thin line leads to the
    small mark where the published protocol would put it. Lines join the means of one kind from budget to budget. Known
    auctions have no regret: they are horizontal lines.
    """
    learnt, known = ([row for row in rows if (row["net"] is None) is oracle] for oracle in (False, True))
    figure = Figure(figsize=(7.6, 5.0), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    kinds: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in learnt:
        kinds[row["net"], row["preset"] if row["preset"] in _MARKERS else "trained"].append(row)
    for (net, preset), members in sorted(kinds.items()):
        _draw_kind(axis, net, preset, members)
    if not learnt:
        axis.set_xlim(1e-4, 1e-2)
    _draw_budgets(axis, {row["regret_budget"] for row in learnt})
    _draw_known(axis, known, [row["revenue"] for row in learnt])
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("sum of regret / revenue, measured honestly (small marks: as the published protocol sees it)")
    axis.set_ylabel("revenue")
    axis.set_title(f"Revenue against honest regret, {rows[0]['setting']}, attack {rows[0]['attack']}", pad=18)
    if learnt:
        axis.legend(loc="upper left")
    save(figure, path)


def _share(row: Row) -> float:
    return max(float(row["regret_sum_over_revenue"]), _LEAST_SHARE)


def _draw_kind(axis: Axes, net: str, preset: str, members: list[Row]) -> None:
    colour, marker = _COLOURS[net], _MARKERS.get(preset, "o")
    x, y = np.array([_share(row) for row in members]), np.array([row["revenue"] for row in members])
    ends = np.clip(np.array([row["regret_sum_over_revenue_ci"] for row in members]).T, _LEAST_SHARE, None)
    sides = np.array([row["revenue_ci"] for row in members]).T
    label = _NAMES[net] + ("" if preset == "trained" else f", {preset}")
    errors = np.abs(sides - y), np.abs(ends - x)
    axis.errorbar(x, y, *errors, color=colour, marker=marker, linestyle="none", capsize=2.5, label=label)
    for row, at in zip(members, x, strict=True):
        seen = max(row["protocol_regret_sum_over_revenue"], _LEAST_SHARE)
        axis.plot([seen, at], [row["revenue"]] * 2, color=colour, linewidth=0.8, alpha=0.5, zorder=1)
        axis.plot(seen, row["revenue"], color=colour, marker=marker, markersize=4, markerfacecolor="white")
    budgets = np.array([row["regret_budget"] for row in members])
    means = [(x[budgets == budget].mean(), y[budgets == budget].mean()) for budget in np.unique(budgets)]
    axis.plot(*zip(*means, strict=True), color=colour)


def _draw_budgets(axis: Axes, budgets: set[float]) -> None:
    """Dotted lines, with the budgets above the axes."""
    for index, budget in enumerate(sorted(budgets)):
        axis.axvline(budget, color="0.6", linestyle="dotted", zorder=0, label="" if index else "budget")
        axis.annotate(
            f"{budget:g}", (budget, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", color="0.4", fontsize="small",
        )  # fmt: skip


def _draw_known(axis: Axes, known: list[Row], learnt: list[float]) -> None:
    """Known auctions as dashed lines, named at the right; those far below everything learnt are only named."""
    known = sorted(known, key=lambda row: -row["revenue"])
    top = max(learnt + [row["revenue"] for row in known])
    floor = 0.85 * min(learnt or [0.0])
    below = [f"{row['mechanism']} {row['revenue']:.4g}" for row in known if row["revenue"] < floor]
    shown = [row for row in known if row["revenue"] >= floor]
    bottom = min(learnt + [row["revenue"] for row in shown])
    span = top - bottom or 1.0
    axis.set_ylim(bottom - 0.12 * span, top + 0.28 * span)
    together: list[list[Row]] = []
    for row in shown:
        axis.axhline(row["revenue"], color="black", linewidth=0.9, linestyle="dashed", zorder=0)
        if together and together[-1][0]["revenue"] - row["revenue"] < _NEAR * span:
            together[-1].append(row)
        else:
            together.append([row])
    for near in together:
        _note(axis, ", ".join(row["mechanism"] for row in near), near[0]["revenue"], "data")
    if below:
        _note(axis, f"below: {', '.join(below)}", 0.0, "axes fraction")


def _note(axis: Axes, text: str, height: float, unit: str) -> None:
    """A text at the right end."""
    axis.annotate(
        text, (1, height), xycoords=("axes fraction", unit), xytext=(-4, 3), textcoords="offset points", ha="right",
        fontsize="small",
    )  # fmt: skip
