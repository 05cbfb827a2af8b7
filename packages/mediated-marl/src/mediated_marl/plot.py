"""A picture of a run: how it learnt, what its multipliers did, and where that left everybody's incentives.

Lines are means over seeds; bands go from the lowest to the highest seed.  The last two panels exist where only the
coalition's size matters.  The Schelling diagram shows, against the number of *others* that commit, what an agent earns
by committing and by staying out: where the first line is above the second, committing pays.  Runs in games of several
steps have panels of their own (`mediated_marl.markov_plot`).
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gt_core.errors import InputError, RunError
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mediated_marl.closed_forms import encouragement_bounds
from mediated_marl.drawing import BLUE, GREEN, GREY, MULTIPLIERS, ORANGE, band, draw_metrics
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_plot import markov_panels
from mediated_marl.one_step import SymmetricPublicGoods
from mediated_marl.report import Policies, load_config, load_policies

__all__ = ["plot_run"]

LEARNING = {
    "train/reward": ("mean reward", GREY),
    "train/commitment": ("commitment", BLUE),
    "train/mediated_contribution": ("mediated contribution", GREEN),
}


def plot_run(directory: Path, file: Path) -> Path:
    """Draw a run into `file`; returns it.

    Raises:
        RunError: if the directory holds no run or no metrics.
        CheckpointError: if the run is not finished or its model is damaged.
        InputError: if the file's ending names no format.
    """
    if isinstance(load_config(directory), MarkovConfig):
        panels = markov_panels(directory, read_metrics(directory))
    else:
        panels = one_step_panels(load_policies(directory), read_metrics(directory))
    figure = Figure(figsize=(5 * min(2, len(panels)), 3.5 * math.ceil(len(panels) / 2)), layout="constrained")
    for place, draw_panel in enumerate(panels):
        axis = figure.add_subplot(math.ceil(len(panels) / 2), min(2, len(panels)), place + 1)
        draw_panel(axis)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if file.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{file} names no picture format; end it in .png, .pdf or .svg")
    figure.savefig(file, dpi=120)
    return file


def one_step_panels(policies: Policies, metrics: list[dict[str, float]]) -> list[Callable[[Axes], None]]:
    """What to draw of a run in a one-step game."""
    config, mediated = policies.config, policies.config.mediator != "none"
    imposed = {"dual/ic": config.imposes_ic, "dual/e": config.imposes_e}
    multipliers = {name: MULTIPLIERS[name] for name in imposed if imposed[name]}
    panels: list[Callable[[Axes], None]] = [partial(draw_metrics, metrics=metrics, names=LEARNING, title="Learning")]
    if multipliers:
        panels.append(partial(draw_metrics, metrics=metrics, names=multipliers, title="Mean multiplier"))
    if mediated and isinstance(policies.game, SymmetricPublicGoods):
        panels += [partial(draw_policy, policies=policies), partial(draw_schelling, policies=policies)]
    return panels


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`.

    Raises:
        RunError: if there are none.
    """
    file = directory / "metrics.jsonl"
    if not file.is_file():
        raise RunError(
            f"{directory} holds no metrics.jsonl; give the directory of a run as mediated-marl-train left it"
        )
    return [json.loads(line) for line in file.read_text().splitlines()]


def draw_policy(axis: Axes, policies: Policies) -> None:
    """`p_k`, the mediator's contribution probability by coalition size, and its exact bound under encouragement."""
    game = policies.game
    if not isinstance(game, SymmetricPublicGoods):
        raise TypeError("only a symmetric game has a policy by size")
    contribution, sizes = game.contribution(policies.mediator), list(range(1, game.n_agents + 1))
    bounds = encouragement_bounds(game.n_agents, game.game.multiplier)
    axis.plot(sizes, bounds, color=ORANGE, ls="--", marker="_", label="bound under encouragement")
    band(axis, sizes, contribution, BLUE, "learnt")
    axis.set(title="Mediator's contribution", xlabel="coalition size k", ylabel="$p_k$", ylim=(-0.03, 1.03))
    axis.legend(frameon=False)


def draw_schelling(axis: Axes, policies: Policies) -> None:
    """What committing and staying out pay, by how many others commit; outsiders keep."""
    values = policies.game.table(policies.outside, policies.mediator).values
    others = list(range(policies.game.n_agents))
    band(axis, others, values[:, 1:, 0], BLUE, "commit")
    band(axis, others, values[:, :-1, 1], ORANGE, "stay out")
    axis.set(title="Schelling diagram", xlabel="others that commit", ylabel="payoff")
    axis.legend(frameon=False)
