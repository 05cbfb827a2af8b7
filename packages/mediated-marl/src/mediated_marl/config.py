"""What a training run is told; imports no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal

from gt_core.config import RunConfig
from gt_core.errors import InputError

__all__ = ["DEFAULT_PRESET", "PRESETS", "MediatorKind", "MultiplierForm", "TrainConfig"]

GameName = Literal["pgg", "pd", "sacrifice"]
MediatorKind = Literal["none", "naive", "ic", "e", "constrained"]
MultiplierForm = Literal["scalar", "agent", "size", "coalition"]
Weights = Literal["visited", "uniform"]


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Learn agents that may commit, and the mediator they commit to, in a one-step game with exact gradients."""

    game: GameName = "pgg"
    """Public goods game, prisoner's dilemma, or sacrifice."""
    n_agents: int = 3
    """Agents of the public goods game; the other games have two."""
    multiplier: float = 0.0
    """What contributions are multiplied by; 0 takes the paper's value, 2 up to ten agents and 5 beyond."""
    mediator: MediatorKind = "e"
    """No mediator, a naive one, or one under incentive compatibility (ic), encouragement (e), or both (constrained)."""
    multipliers: MultiplierForm = "size"
    """One Lagrange multiplier in all, per agent, per coalition size, or per coalition and agent."""
    coalition_weights: Weights = "uniform"
    """Train the mediator on coalitions as often as the agents form them, or on all coalitions equally."""
    seeds: int = 10
    """Runs trained side by side, each with its own parameters."""
    iterations: int = 2000
    """Gradient steps."""
    hidden: int = 16
    """Units of the mediator's hidden layer."""
    agent_rate: float = 2e-2
    """Adam's learning rate of the agents."""
    mediator_rate: float = 1e-2
    """Adam's learning rate of the mediator."""
    dual_rate: float = 5e-2
    """Step of the multipliers in log space."""
    margin: float = 0.05
    """By how much committing must pay more than staying out, as a share of the latter."""
    damping: float = 5.0
    """How strongly a violation bears on its multiplier at once; damps the circling of primal and dual steps."""
    entropy_start: float = 0.5
    """Weight of the policies' entropy at the start; it falls geometrically."""
    entropy_end: float = 1e-4
    """Weight of the policies' entropy at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "iterations", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("margin", "damping"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("agent_rate", "mediator_rate", "dual_rate", "entropy_start", "entropy_end"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.device != "cpu":
            raise InputError(f"device is {self.device}, but exact training has only small tensors; use --device cpu")
        if self.multipliers == "agent" and self.game == "pgg":
            raise InputError("agents of the public goods game are interchangeable; choose --multipliers size or scalar")
        if self.game != "pgg" and self.n_agents != 2:
            raise InputError(f"n_agents is {self.n_agents}, but {self.game} has 2 agents; pass --n-agents 2")

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        return f"{self.game}-{self.n_agents}-{self.mediator}-seed{self.seed}"

    @property
    def imposes_ic(self) -> bool:
        """Whether incentive compatibility is imposed."""
        return self.mediator in ("ic", "constrained")

    @property
    def imposes_e(self) -> bool:
        """Whether encouragement is imposed."""
        return self.mediator in ("e", "constrained")


PRESETS = {
    "pgg": TrainConfig("pgg"),
    "sacrifice": TrainConfig("sacrifice", game="sacrifice", n_agents=2, mediator="ic", multipliers="coalition"),
    "pd": TrainConfig("pd", game="pd", n_agents=2, mediator="naive"),
}
DEFAULT_PRESET = "pgg"
