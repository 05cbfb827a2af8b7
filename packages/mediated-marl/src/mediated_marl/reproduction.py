"""Table 3 of the paper, its other one-step games, and games of several steps, each beside what is exact.

A run trains its seeds side by side. At the scales `laptop` and `full` Table 3 has ten seeds and the paper's number of
iterations, which takes minutes; games of several steps have our presets, and at `full` as many iterations as the paper.
Imports no torch until results are read.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gt_core.config import RunConfig
from gt_core.reproduce.costs import Work, estimate
from gt_core.reproduce.experiment import Experiment, Finished, Line, Quantity, Scale, stored
from gt_core.sweep.grid import Cell, make_cells

from mediated_marl.config import PRESETS, TrainConfig
from mediated_marl.markov_config import MARKOV_PRESETS, MarkovConfig
from mediated_marl.published import PUBLISHED

__all__ = ["EXPERIMENTS", "work_of"]

_QUANTITIES = {
    "reward": "reward",
    "commitment": "commitment",
    "contribution": "mediated contribution",
    "next_to_grand": "p at N - 1",
}
_ONE_STEP = (
    ("pd", "none", "pd"),
    ("pd", "naive", "pd"),
    ("sacrifice", "none", "sacrifice"),
    ("sacrifice", "naive", "sacrifice"),
    ("sacrifice", "naive", "sampled-sacrifice"),
    ("sacrifice", "ic", "sacrifice"),
    ("sacrifice", "ic", "sampled-sacrifice"),
)
_SEVERAL_STEPS: tuple[dict[str, Any], ...] = (
    *({"game": "two-step-pd", "mediator": one, "window": 1} for one in ("none", "naive")),
    {"game": "two-step-pd", "mediator": "ic", "window": 1},
    {"game": "two-step-pd", "mediator": "naive", "window": 2},
    {"game": "repeated-pd", "mediator": "naive", "window": 1},
    *({"game": "iterated-pgg", "mediator": "naive", "window": window} for window in (1, 3, 5)),
    {"game": "iterated-pgg", "mediator": "e", "window": 1},
    {"game": "iterated-pgg", "mediator": "e", "window": 1, "random_endowments": True},
    {"game": "coin", "mediator": "none", "window": 16, "agent_rate": 1e-3},  # at 5e-4 they have not learnt to rob yet
    *({"game": "coin", "mediator": one, "window": 16} for one in ("naive", "constrained")),
)
_PAPER_ITERATIONS = {"two-step-pd": 5_000, "iterated-pgg": 10_000}
_SMOKE = {("two-step-pd", "naive"), ("two-step-pd", "ic"), ("iterated-pgg", "e"), ("coin", "none")}


def _table_3(scale: Scale, folder: Path) -> list[Line]:
    lines = []
    for (mediator, n_agents), published in PUBLISHED.items():
        figures = {_QUANTITIES[name]: value for name, value in published._asdict().items() if value is not None}
        for preset, learner in (("paper", "paper's"), ("sampled", "sampled"), ("pgg", "exact")):
            config = dataclasses.replace(PRESETS[preset], mediator=mediator, n_agents=n_agents)  # type: ignore[arg-type]
            about: dict[str, str | float] = {"mediator": mediator, "agents": n_agents, "learner": learner}
            lines.append(_line(about, config, config, scale, folder, smoke=n_agents == 3, published=figures))
    return lines


def _one_step(scale: Scale, folder: Path) -> list[Line]:
    lines = []
    for game, mediator, preset in _ONE_STEP:
        config = dataclasses.replace(PRESETS[preset], mediator=mediator)  # type: ignore[arg-type]
        about = {"game": game, "mediator": mediator, "learner": config.gradients}
        lines.append(_line(about, config, config, scale, folder, smoke=True))
    return lines


def _several_steps(scale: Scale, folder: Path) -> list[Line]:
    lines = []
    for settings in _SEVERAL_STEPS:
        game, mediator = settings["game"], settings["mediator"]
        config = dataclasses.replace(MARKOV_PRESETS[game], **settings)
        full = dataclasses.replace(config, iterations=_PAPER_ITERATIONS.get(game, config.iterations))
        endowments = "random" if config.random_endowments else ""
        about = {"game": game, "endowments": endowments, "mediator": mediator, "window": config.window}
        smoke = (game, mediator) in _SMOKE and not endowments and config.window in (1, 16)
        lines.append(_line(about, config, full, scale, folder, smoke=smoke))
    return lines


def _line(
    about: Mapping[str, str | float],
    config: TrainConfig | MarkovConfig,
    full: TrainConfig | MarkovConfig,
    scale: Scale,
    folder: Path,
    *,
    smoke: bool,
    published: dict[str, float] | None = None,
) -> Line:
    """A line of one run: of `config` at laptop scale, of its first iterations at smoke scale."""
    if scale == "smoke":
        cells = _cell(dataclasses.replace(config, seeds=2, iterations=5, games=8), folder) if smoke else []
    else:
        cells = _cell(full if scale == "full" else config, folder)
    return Line(about, cells, left_out=() if cells else _cell(full, folder), published=published or {})


def _cell(config: RunConfig, folder: Path) -> list[Cell]:
    return make_cells(lambda _: config, {}, folder)


def work_of(config: RunConfig) -> Work:
    """What there is to do in a run."""
    assert isinstance(config, TrainConfig | MarkovConfig)  # noqa: S101 (for the type checker)
    if isinstance(config, MarkovConfig):
        kind = f"{config.game} {config.mediator} window {config.window}"
    else:
        kind = f"{config.learner} {config.game} {config.n_agents}"
    return Work(f"{kind} games {config.games} seeds {config.seeds}", config.iterations)


def _exact_reward(run: Finished) -> float | None:
    from mediated_marl.table import exact_reward

    assert isinstance(run.config, TrainConfig)  # noqa: S101
    return exact_reward(run.config)


def _exact_welfare(run: Finished) -> float | None:
    from mediated_marl.markov_table import exact_welfare

    assert isinstance(run.config, MarkovConfig)  # noqa: S101
    return exact_welfare(run.config)


def _mediated(read: Callable[[Finished], Sequence[float]]) -> Callable[[Finished], Sequence[float]]:
    """The same figures, but none where there is no mediator."""
    return lambda run: [] if run.result["mediator"] == "none" else read(run)


def _next_to_grand(run: Finished) -> list[float]:
    return [policy[-2] for policy in run.result["contribution_by_size_per_seed"]]


def _bound(run: Finished) -> float | None:
    """What there is to do in a run."""
    assert isinstance(run.config, TrainConfig)  # noqa: S101
    bound: float = run.result["exact_bound_by_size"][-2]
    return bound if run.config.imposes_e else None


_COMMITMENT = Quantity("commitment", _mediated(stored("commitment_per_seed")))
_REWARD = Quantity("reward", stored("reward_per_seed"), _exact_reward)
_DEVIATION = Quantity("best deviation gains", stored("deviation_gain_per_seed"))
_SECONDS = estimate(Path(__file__).with_name("costs.json"), work_of)

EXPERIMENTS = (
    Experiment(
        "table",
        "3",
        "Table 3: one-step public goods with a mediator",
        "Mean reward of an agent, 1 if all contribute; how often agents commit; how often mediated actions contribute; "
        "p at N - 1, the mediator's contribution when one agent stays out, which encouragement (e) bounds by the exact "
        "figure. The exact reward is that of the best equilibrium for its mediator. The paper's learner has the "
        "published estimators and hyperparameters; the other two are ours, from samples and with exact gradients. "
        "Published figures are those of Table 3 of the paper, and stand beside all three.",
        _table_3,
        (
            _REWARD,
            _COMMITMENT,
            Quantity("mediated contribution", _mediated(stored("mediated_contribution_per_seed"))),
            Quantity("p at N - 1", _mediated(_next_to_grand), _bound),
            _DEVIATION,
        ),
        _SECONDS,
    ),
    Experiment(
        "table",
        "one-step-games",
        "Prisoner's dilemma and sacrifice",
        "Mean reward of an agent beside the exact one: in the dilemma 0 without a mediator and 2 with one, in the "
        "sacrifice 1, and 2.25 under incentive compatibility (ic). The paper prints no table of these games.",
        _one_step,
        (_REWARD, _COMMITMENT, _DEVIATION),
        _SECONDS,
    ),
    Experiment(
        "table",
        "several-steps",
        "Games of several steps: two-step dilemma, iterated public goods, Coin Game",
        "Welfare, without discount, beside that of the equilibrium where it was derived; the final balance of the "
        "public goods game; how often agents commit; and what the best deviation gains as a share of the return, by "
        "audit. The share says nothing where the return is next to nothing, as in the Coin Game without a mediator. "
        "The paper prints no table of these games.",
        _several_steps,
        (
            Quantity("welfare", stored("welfare_per_seed"), _exact_welfare),
            Quantity("final balance", stored("balance_per_seed")),
            _COMMITMENT,
            _DEVIATION,
            Quantity("best deviation / return", stored("deviation_gain_share_per_seed")),
        ),
        _SECONDS,
    ),
)
