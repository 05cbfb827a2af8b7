"""What a training run of rmdp is made of, and the presets."""

import dataclasses
import math
from typing import ClassVar, Literal

from gt_core.config import RunConfig
from gt_core.errors import InputError

__all__ = ["PRESETS", "TrainConfig", "default_preset"]

_GATHERING = "resource-gathering"
_CELLS = 25
_TOGETHER = 100
_SAMPLES_TOGETHER, _FEWEST, _MOST = 16384, 1024, 4096


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Serve n users by k policies; the defaults are those of the preset `fast`."""

    threads_change_bits: ClassVar[bool] = False
    preset: str = "fast"
    """The named set of defaults that everything else starts from."""
    threads: int = 1
    """CPU threads: robots are stepped on all of them, and with two or more critics learn in processes beside the
    policies; the result stays the same to the last bit."""
    env: str = "HalfCheetah-v4"
    """A Gymnasium environment, or resource-gathering."""
    k: int = 5
    """The budget: how many policies."""
    n: int = 100
    """How many users; resource-gathering has 25, one per cell."""
    users: str = "auto"
    """Who they are: package.module:factory, called with (n, generator) for a function from transitions to (..., n)
    rewards; auto is target velocities for robots, cells for resource-gathering, and random linear scalarisations for
    multi-objective environments."""
    algorithm: Literal["em", "end-to-end", "cluster", "random", "oracle", "one-for-all", "one-each"] = "em"
    """How users and policies are matched; one-for-all (k = 1) and one-each (k = n) are the bounds."""
    iterations: int = 500
    """M-steps."""
    warm_up: int = 10
    """Iterations before the first E-step."""
    memory: float = 0.8
    """Weight of the past in the table of returns, per iteration."""
    ease: float = 8.0
    """How many times as tolerant users are at the start, where tolerance has a meaning; it falls to 1 geometrically."""
    ease_until: float = 0.5
    """Share of training after which users are themselves."""
    balance_until: float = 0.5
    """Share of training during which clusters have equal size, up to one user."""
    assignment_rate: float = 0.1
    """Adam's learning rate for the soft assignment of end-to-end, one step per iteration."""
    pretrain: float = 0.1
    """Share of training in which cluster learns the one policy whose rewards tell users apart."""
    samples: int = 2048
    """Steps of each representative per iteration; 0 spreads 16384 over all, at least 1024 and at most 4096 each."""
    copies: int = 0
    """Simultaneous environments per representative; 0 spreads about a hundred over all representatives."""
    trunk: Literal["own", "shared"] = "own"
    """Whether policies share their hidden layers."""
    critic: Literal["own", "shared"] = "own"
    """Whether each representative has its own critic, or one serves all that is told whose value to estimate."""
    hidden: tuple[int, ...] = (64, 64)
    """Sizes of the hidden layers of policies and critics."""
    normalise: bool = True
    """Whether observations are normalised by their running moments."""
    sigma: float = 0.6
    """Initial standard deviation of Box actions, in units of half the range; it is trained."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Weight of each further temporal difference in the advantage."""
    deadline: bool = False
    """Whether the time limit is part of the task, so that nothing can be earned after it; otherwise it only cuts the
    watching short, and the value of the state it cut is bootstrapped."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    final_learning_rate: float = 1e-4
    """The same at the end; geometric in between."""
    epochs: int = 6
    """Passes over an iteration's samples."""
    minibatches: int = 8
    """Gradient steps per pass."""
    clip: float = 0.2
    """How far the probability ratio may usefully move from one."""
    entropy: float = 1e-3
    """Weight of the entropy bonus at the start."""
    final_entropy: float = 1e-4
    """The same at the end; geometric in between."""
    kl_limit: float = 0.05
    """KL divergence within a pass beyond which a representative skips the remaining passes."""
    gradient_norm: float = 0.5
    """Largest norm of one representative's gradient."""
    evaluation_episodes: int = 10
    """Deterministic episodes per representative in the final evaluation."""
    exact: bool = False
    """Move robots bit for bit as Gymnasium does, somewhat slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.n:
            raise InputError(f"k must be between 1 and the number of users, got k = {self.k}, n = {self.n}")
        if self.env == _GATHERING and self.users == "auto" and self.n != _CELLS:
            raise InputError(f"{_GATHERING} has {_CELLS} users, one per cell, got n = {self.n}: use --n {_CELLS}")
        self.require("[1, inf)", "iterations", "epochs", "minibatches", "evaluation_episodes", "n", "ease")
        self.require("(0, inf)", "sigma", "learning_rate", "final_learning_rate", "clip", "kl_limit", "gradient_norm")
        self.require("(0, inf)", "entropy", "final_entropy", "assignment_rate")
        self.require("[0, inf)", "warm_up", "copies", "samples")
        self.require("(0, 1]", "gamma", "gae_lambda", "ease_until")
        self.require("[0, 1]", "balance_until")
        self.require("[0, 1)", "memory")
        self.require("(0, 1)", "pretrain")
        self._require_bound()
        if any(size < 1 for size in self.hidden):
            raise InputError(f"hidden layers need at least 1 unit, got {self.hidden}")

    @property
    def copies_each(self) -> int:
        """Simultaneous environments per representative."""
        return self.copies or min(max(1, round(_TOGETHER / self.k)), self.samples_each)

    @property
    def samples_each(self) -> int:
        """Steps of each representative per iteration, as asked for."""
        return self.samples or min(max(_SAMPLES_TOGETHER // self.k, _FEWEST), _MOST)

    @property
    def segment(self) -> int:
        """Steps of each environment per iteration."""
        return math.ceil(self.samples_each / self.copies_each)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of all representatives per iteration."""
        return self.segment * self.copies_each * self.k

    @property
    def moves_users(self) -> bool:
        """Whether the algorithm learns who is served by whom, so that users may be moved once more at the end."""
        return self.algorithm in ("em", "end-to-end")

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        env = self.env.replace("/", "-").replace(":", "-")
        return f"{env}-k{self.k}-{self.algorithm}-{self.preset}-seed{self.seed}"

    def _require_bound(self) -> None:
        bounds = {"one-for-all": 1, "one-each": self.n}
        needed = bounds.get(self.algorithm, self.k)
        if self.k != needed:
            raise InputError(f"{self.algorithm} has {needed} policies, got k = {self.k}: use --k {needed}")
        if self.algorithm == "cluster" and self.iterations < 2:
            raise InputError(f"cluster needs at least 2 iterations, one of them to pretrain, got {self.iterations}")


_PAPER = TrainConfig(
    preset="paper",
    iterations=2001,
    warm_up=50,
    memory=0.95,
    ease=1.0,
    balance_until=0.0,
    copies=1,
    trunk="shared",
    critic="shared",
    sigma=math.exp(-1),
    learning_rate=3e-4,
    epochs=10,
    minibatches=32,
)
_WALKS = TrainConfig(
    preset="gathering",
    env=_GATHERING,
    n=_CELLS,
    iterations=300,
    samples=0,
    balance_until=0.1,
    normalise=False,
    deadline=True,
    gamma=1.0,
    gae_lambda=1.0,
    entropy=0.2,
    final_entropy=1e-4,
)
PRESETS = {
    "fast": TrainConfig(),
    "gathering": _WALKS,
    "paper": _PAPER,
    "smoke": TrainConfig(preset="smoke", iterations=3, warm_up=1, samples=200, evaluation_episodes=1, n=20, k=2),
}


def default_preset(env: str) -> str:
    """The preset that suits an environment."""
    return "gathering" if env == _GATHERING else "fast"
