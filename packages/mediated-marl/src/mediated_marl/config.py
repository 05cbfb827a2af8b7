"""What a training run is told; imports no torch, so that `--help` answers at once."""

from dataclasses import dataclass, replace
from typing import Literal

from gt_core.config import RunConfig
from gt_core.errors import InputError

__all__ = ["DEFAULT_PRESET", "PRESETS", "Features", "MediatorKind", "MultiplierForm", "OutsiderRule", "TrainConfig"]

GameName = Literal["pgg", "pd", "sacrifice"]
MediatorKind = Literal["none", "naive", "ic", "e", "constrained"]
MultiplierForm = Literal["scalar", "agent", "size", "coalition"]
Weights = Literal["visited", "uniform"]
Gradients = Literal["exact", "sampled"]
Features = Literal["one-hot", "scaled"]
OutsiderRule = Literal["sum", "published"]


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Learn agents that may commit, and the mediator they commit to, in a one-step game."""

    game: GameName = "pgg"
    """Public goods game, prisoner's dilemma, or sacrifice."""
    n_agents: int = 3
    """Agents of the public goods game; the other games have two."""
    multiplier: float = 0.0
    """What contributions are multiplied by; 0 takes the paper's value, 2 up to ten agents and 5 beyond."""
    mediator: MediatorKind = "e"
    """No mediator, a naive one, or one under incentive compatibility (ic), encouragement (e), or both (constrained)."""
    gradients: Gradients = "exact"
    """Sum the game over all coalitions, or estimate the policy gradients from played games."""
    multipliers: MultiplierForm = "size"
    """One Lagrange multiplier in all, per agent, per coalition size, or per coalition and agent."""
    coalition_weights: Weights = "uniform"
    """Train the mediator on coalitions as often as the agents form them, or on all coalitions equally."""
    seeds: int = 10
    """Runs trained side by side, each with its own parameters."""
    iterations: int = 2000
    """Gradient steps."""
    games: int = 128
    """Games played per iteration and seed (sampled gradients only, like all options that speak of critics)."""
    hidden: int = 16
    """Units of the mediator's hidden layer."""
    critic_hidden: int = 32
    """Units of the hidden layer of the mediator's critics."""
    coalition_features: Features = "one-hot"
    """How networks read a coalition's size: scaled to [-1, 1], or that and one-hot, so that neighbours differ."""
    agent_rate: float = 2e-2
    """Adam's learning rate of the agents."""
    mediator_rate: float = 1e-2
    """Adam's learning rate of the mediator."""
    agent_critic_rate: float = 2e-2
    """Adam's learning rate of the agents' values."""
    mediator_critic_rate: float = 1e-2
    """Adam's learning rate of the mediator's critics."""
    weight_decay: float = 0.0
    """Adam's L2 penalty, on all parameters."""
    gradient_clip: float = 0.0
    """Largest entry of the gradients of the mediator and its critics; 0 leaves them as they are."""
    gradient_memory: float = 0.99
    """Adam's decay of squared gradients; they shrink with the entropy, so a long memory slows the end of a run."""
    final_rates: float = 1.0
    """What share of the step sizes of mediator, critics and multipliers is left at the end; they fall geometrically."""
    outsiders: OutsiderRule = "sum"
    """Add encouragement over outsiders, or as published for public goods: their mean, at coalitions of 2 to N - 1."""
    dual_rate: float = 5e-2
    """Step of the multipliers in log space."""
    margin: float = 0.05
    """By how much committing must pay more than staying out, as a share of the latter."""
    slack_weight: float = 1.0
    """Factor on slack, sample by sample, where multipliers are moved by samples."""
    damping: float = 5.0
    """How strongly a violation bears on its multiplier at once; damps the circling of primal and dual steps."""
    entropy_start: float = 0.5
    """Weight of the policies' entropy at the start; it falls geometrically."""
    entropy_end: float = 1e-4
    """Weight of the policies' entropy at the end."""
    log_every: int = 10
    """Iterations between two lines of the metrics (sampled gradients; exact ones log every iteration)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("[1, inf)", "seeds", "iterations", "hidden", "critic_hidden", "games", "log_every")
        self.require("[0, inf)", "margin", "damping", "weight_decay", "gradient_clip", "slack_weight")
        self.require("(0, inf)", "agent_rate", "mediator_rate", "agent_critic_rate", "mediator_critic_rate")
        self.require("(0, inf)", "dual_rate", "entropy_start", "entropy_end")
        self.require("(0, 1]", "final_rates")
        self.require("[0, 1)", "gradient_memory")
        if self.multipliers == "agent" and self.game == "pgg":
            raise InputError("agents of the public goods game are interchangeable; choose --multipliers size or scalar")
        if self.game != "pgg" and self.n_agents != 2:
            raise InputError(f"n_agents is {self.n_agents}, but {self.game} has 2 agents; pass --n-agents 2")

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        prefix = "" if self.learner == "exact" else f"{self.learner}-"
        return f"{prefix}{self.game}-{self.n_agents}-{self.mediator}-seed{self.seed}"

    @property
    def learner(self) -> Literal["exact", "sampled", "paper"]:
        """Which of the three ways of learning this is; the paper's is known by how it treats outsiders."""
        return "paper" if self.outsiders == "published" else self.gradients

    @property
    def imposes_ic(self) -> bool:
        """Whether incentive compatibility is imposed."""
        return self.mediator in ("ic", "constrained")

    @property
    def imposes_e(self) -> bool:
        """Whether encouragement is imposed."""
        return self.mediator in ("e", "constrained")


PAPER = TrainConfig(
    "paper",
    gradients="sampled",
    multipliers="scalar",
    coalition_weights="visited",
    coalition_features="scaled",
    outsiders="published",
    iterations=20_000,
    agent_rate=1e-3,
    agent_critic_rate=1e-2,
    mediator_rate=1e-3,
    mediator_critic_rate=1e-2,
    weight_decay=1e-3,
    gradient_clip=0.1,
    gradient_memory=0.999,
    dual_rate=1e-2,
    slack_weight=0.99,
    margin=0.0,
    damping=0.0,
    entropy_start=0.1,
    entropy_end=1e-3,
)
SAMPLED = TrainConfig("sampled", gradients="sampled", iterations=3000, final_rates=0.03, margin=0.2, entropy_end=3e-3)
PRESETS = {
    "pgg": TrainConfig("pgg"),
    "sacrifice": TrainConfig("sacrifice", game="sacrifice", n_agents=2, mediator="ic", multipliers="coalition"),
    "pd": TrainConfig("pd", game="pd", n_agents=2, mediator="naive"),
    "paper": PAPER,
    "sampled": SAMPLED,
    "sampled-sacrifice": replace(
        SAMPLED,
        preset="sampled-sacrifice",
        game="sacrifice",
        n_agents=2,
        mediator="ic",
        multipliers="agent",
        iterations=8000,
        agent_rate=5e-3,
        mediator_rate=2e-3,
        dual_rate=5e-3,
        final_rates=0.03,
        damping=1.0,
        margin=0.05,
        entropy_end=5e-3,
    ),
}
DEFAULT_PRESET = "pgg"
