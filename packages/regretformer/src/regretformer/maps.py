"""Maps over valuations: what a bidder receives where, and where its regret hides.

A map shows the values of the first bidder for the first two items. Everything else, the values of other bidders and for
other items, is drawn at random, and the map is the mean over several draws; one bidder with two items needs none.

With everything else fixed all values on the map face one menu of reports (`regretformer.misreports`). The menu is made
of the map's own values, and of random reports where there are more than two items, so one evaluation of the map gives
its regret too, as a lower bound.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from regretformer.auction import Mechanism, replace_report
from regretformer.misreports import best_of_menu, grid, stratified
from regretformer.oracles import Optimum
from regretformer.plots import save
from regretformer.valuations import Valuations

__all__ = ["Survey", "plot_allocation", "plot_regret", "survey"]

_ALONE, _AMONG_OTHERS = 101, 61  # values per axis
_DRAWS = 12
_RANDOM_REPORTS = 4096
_CHUNK, _MENU_CHUNK = 8192, 256
_FINE = 401  # values per axis for the exact optimum
_ARROWS = 17  # per axis
_ROUNDING = 1e-6  # as a share of the largest value; less regret than this is none


class Survey(NamedTuple):
    """A mechanism over the values x, y of the first bidder for the first two items, on a grid of R x R values."""

    allocation: Tensor
    """Probability that the bidder receives each of the two items, [2, R, R], x before y."""
    regret: Tensor
    """What it gains by its best report, [R, R]."""
    misreports: Tensor
    """That report for the two items in the last draw, its own values where none gains, [2, R, R]."""
    low: tuple[float, float]
    """Smallest values."""
    high: tuple[float, float]
    """Largest values."""
    draws: int
    """Draws of everything else."""


@torch.no_grad()
def survey(mechanism: Mechanism, valuations: Valuations, generator: torch.Generator) -> Survey:
    """The maps of a mechanism for at least two items."""
    alone = valuations.setting.bidders == 1 and valuations.setting.items == 2
    resolution, draws = (_ALONE, 1) if alone else (_AMONG_OTHERS, _DRAWS)
    pair = valuations.low[0, :2] + (valuations.high - valuations.low)[0, :2] * grid(resolution, 2)
    allocation, regret = torch.zeros_like(pair), torch.zeros_like(pair[:, 0])
    for rest in valuations.profiles(draws, generator):
        own = torch.cat([pair, rest[0, 2:].expand(len(pair), -1)], dim=-1)
        received, gain, misreports = _one_draw(mechanism, valuations, rest, own, generator)
        allocation += received / draws
        regret += gain / draws
    shape = (resolution, resolution)
    return Survey(
        allocation=allocation.T.unflatten(1, shape),
        regret=regret.unflatten(0, shape),
        misreports=misreports.T.unflatten(1, shape),
        low=(pair[0, 0].item(), pair[0, 1].item()),
        high=(pair[-1, 0].item(), pair[-1, 1].item()),
        draws=draws,
    )


def _one_draw(
    mechanism: Mechanism, valuations: Valuations, rest: Tensor, own: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Allocation of two items [S, 2], regret [S] and best report for the two items [S, 2] of the first bidder.

    Args:
        mechanism: the mechanism.
        valuations: for the support.
        rest: a profile [n, m]; its first row does not matter.
        own: values of the first bidder, [S, m].
        generator: of random reports.
    """
    more = _RANDOM_REPORTS if own.shape[1] > 2 else 0
    random = valuations.scale(stratified((), more, own.shape[1], generator), 0) if more else own[:0]
    reports = torch.cat([own, random])
    profiles = replace_report(rest.expand(len(reports), -1, -1), 0, reports)
    outcomes = [mechanism(part) for part in profiles.split(_CHUNK)]
    allocation = torch.cat([outcome.allocation[:, 0] for outcome in outcomes])
    payments = torch.cat([outcome.payments[:, 0] for outcome in outcomes])
    truthful = (own * allocation[: len(own)]).sum(-1) - payments[: len(own)]
    found = [best_of_menu(part, allocation, payments) for part in own.split(_MENU_CHUNK)]
    best, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    regret = (best - truthful).clamp_min(0)
    misreports = torch.where((regret > 0).unsqueeze(-1), reports[index], own)
    return allocation[: len(own), :2], regret, misreports[:, :2]


def plot_allocation(path: Path, maps: Survey, optimum: Optimum | None, title: str) -> None:
    """Heat map of the allocation of two items; dashed lines where the exact optimum's jumps."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for item, axis in enumerate(axes):
        image = _heat_map(axis, maps, maps.allocation[item], cmap="viridis", vmin=0, vmax=1)
        if optimum is not None:
            _draw_optimum(axis, maps, optimum, [item], linestyles="dashed", linewidths=1.8)
        axis.set_title(f"Item {item + 1}")
        axis.set_xlabel("value of item 1")
    axes[0].set_ylabel("value of item 2")
    figure.colorbar(image, ax=axes, label="probability of receiving the item")
    figure.suptitle(title + _remark(maps) + ("; dashed: the exact optimum" if optimum is not None else ""))
    save(figure, path)


def plot_regret(path: Path, maps: Survey, optimum: Optimum | None, title: str) -> None:
    """Heat map of regret, with the exact optimum's regions as lines.

    For one bidder with two items, arrows lead from values to the report that gains most.
    """
    largest, most = maps.regret.max().item(), max(maps.high)
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axis = figure.subplots()
    top = largest if largest > _ROUNDING * most else most
    image = _heat_map(axis, maps, maps.regret, cmap="inferno", vmin=0, vmax=top)
    if optimum is not None:
        _draw_optimum(axis, maps, optimum, [0, 1], linestyles="solid", linewidths=1.0)
    lies = maps.draws == 1 and top == largest
    if lies:
        _draw_misreports(axis, maps)
    axis.set_xlabel("value of item 1")
    axis.set_ylabel("value of item 2")
    lines = "; lines: the exact optimum's regions" if optimum is not None else ""
    axis.set_title(f"{title}{_remark(maps)}\nlargest regret {largest:.2g}{lines}", fontsize="medium")
    label = "what the bidder gains by its best lie" + (" (arrows)" if lies else "")
    figure.colorbar(image, ax=axis, label=label)
    save(figure, path)


def _remark(maps: Survey) -> str:
    return "" if maps.draws == 1 else f", bidder 1, mean over {maps.draws} draws of the rest"


def _heat_map(axis: Axes, maps: Survey, cells: Tensor, **options: Any) -> Any:  # noqa: ANN401 (an image)
    axis.set_box_aspect(1)
    return axis.imshow(
        cells.T.cpu().numpy(), origin="lower", extent=_extent(maps), aspect="auto", interpolation="bilinear", **options
    )


def _values(maps: Survey, resolution: int) -> Tensor:
    """Values all over the map, [2, R, R]."""
    low, high = torch.tensor(maps.low), torch.tensor(maps.high)
    values: Tensor = (low + (high - low) * grid(resolution, 2)).T.unflatten(1, (resolution, resolution))
    return values


def _draw_optimum(axis: Axes, maps: Survey, optimum: Optimum, items: Sequence[int], **options: Any) -> None:  # noqa: ANN401 (of lines)
    """Lines where the exact optimum's allocation of the items to a single bidder jumps."""
    bids = _values(maps, _FINE).flatten(1).T.unsqueeze(1)
    allocation = optimum.mechanism(bids).allocation[:, 0].T.unflatten(1, (_FINE, _FINE)).mT
    levels = [0.25, 0.75]  # a lottery may give an item with probability 1/2: mark the jumps on both sides of it
    for item in items:
        axis.contour(allocation[item].cpu().numpy(), levels=levels, extent=_extent(maps), colors="white", **options)


def _draw_misreports(axis: Axes, maps: Survey) -> None:
    """Arrows from values to reports on a coarse grid, where there is a tenth of the largest regret to gain."""
    places = torch.linspace(0, len(maps.regret) - 1, _ARROWS + 2).round().long()[1:-1]
    (x, y), (to_x, to_y), regret = (
        cells[..., places, :][..., places].flatten(-2)
        for cells in (_values(maps, len(maps.regret)), maps.misreports, maps.regret)
    )
    lies = regret > 0.1 * maps.regret.max()
    axis.quiver(
        x[lies], y[lies], (to_x - x)[lies], (to_y - y)[lies],
        angles="xy", scale_units="xy", scale=1, color="deepskyblue", width=0.004,
    )  # fmt: skip


def _extent(maps: Survey) -> tuple[float, float, float, float]:
    return maps.low[0], maps.high[0], maps.low[1], maps.high[1]
