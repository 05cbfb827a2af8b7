"""A picture of a run in a game of several steps: learning, multipliers, and an episode's steps.

Learning lines are means over seeds.  Over the steps of an episode, what is drawn was played with the learnt policies:
who committed, and how often members were given the last action (contribute, or cooperate); bands go from the lowest
seed to the highest.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from mediated_marl.drawing import BLUE, GREEN, GREY, MULTIPLIERS, ORANGE, band, draw_metrics
from mediated_marl.markov_report import MarkovPolicies, by_step, load_markov, play_run

__all__ = ["markov_panels"]

EPISODES = 200
RETURN = {"train/return": ("return per agent", GREY)}
LEARNING = {
    "train/commitment": ("commitment", BLUE),
    "train/last_commitment": ("at the last step", ORANGE),
    "train/mediated_last_action": ("mediated contribution", GREEN),
}
STEPS = {
    "commitment_by_step": ("commitment", BLUE),
    "mediated_last_action_by_step": ("mediated contribution", GREEN),
}


def markov_panels(directory: Path, metrics: list[dict[str, float]]) -> list[Callable[[Axes], None]]:
    """What to draw of a run.

    Raises:
        CheckpointError: if the run is not finished or its model is damaged.
        InputError: an environment that cannot be imported any more.
    """
    policies = load_markov(directory)
    panels: list[Callable[[Axes], None]] = [
        partial(draw_metrics, metrics=metrics, names=RETURN, title="Return"),
        partial(draw_metrics, metrics=metrics, names=LEARNING, title="Learning"),
    ]
    imposed = {name: MULTIPLIERS[name] for name in MULTIPLIERS if any(name in line for line in metrics)}
    if imposed:
        panels.append(partial(draw_metrics, metrics=metrics, names=imposed, title="Mean multiplier"))
    return [*panels, partial(draw_steps, policies=policies)]


def draw_steps(axis: Axes, policies: MarkovPolicies) -> None:
    """Commitment and mediated contribution over the steps of an episode."""
    shares = by_step(play_run(policies, EPISODES, seed=0))
    steps = list(range(policies.arena.horizon))
    for name, (label, colour) in STEPS.items():
        if policies.config.mediated:
            band(axis, steps, shares[name], colour, label)
    axis.set(title="Steps of an episode", xlabel="step", ylim=(-0.03, 1.03))
    if policies.config.mediated:
        axis.legend(frameon=False)
