"""What a training run in a game of several steps is told; imports no torch, so that `--help` answers at once."""

from dataclasses import dataclass, replace
from typing import Literal

from gt_core.config import RunConfig
from gt_core.errors import InputError

from mediated_marl.config import MediatorKind

__all__ = ["MARKOV_PRESETS", "MarkovConfig", "MarkovForm"]

MarkovGame = Literal["two-step-pd", "repeated-pd", "iterated-pgg", "coin", "env"]
MarkovForm = Literal["scalar", "agent", "size", "coalition", "step", "network"]


@dataclass(frozen=True)
class MarkovConfig(RunConfig):
    """Learn agents that may commit, and the mediator they commit to, in a game of several steps."""

    threads: int = 1
    """CPU threads: with two the mediator learns beside the agents, to the same bits; more are not used."""
    game: MarkovGame = "iterated-pgg"
    """Two-step or repeated prisoner's dilemma, iterated public goods, Coin Game, or your own: see env."""
    env: str = ""
    """package.module:factory, a function without arguments that makes a PettingZoo ParallelEnv."""
    n_agents: int = 3
    """Agents of the public goods game and of the Coin Game; the dilemmas have two, an env says how many it has."""
    horizon: int = 10
    """Steps of an episode; the two-step prisoner's dilemma has two, an env is cut after as many."""
    random_endowments: bool = False
    """Draw the first balances of the public goods game from (0, 1] instead of 1 each."""
    relative_balances: bool = False
    """Show balances as shares of the best at that step and time as 1 / steps left, easier to learn from than both
    as the paper shows them."""
    egocentric: bool = False
    """Show each agent of the Coin Game what lies around it instead of the whole grid, easier to learn from."""
    mediator: MediatorKind = "e"
    """No mediator, a naive one, or one under incentive compatibility (ic), encouragement (e), or both (constrained)."""
    window: int = 1
    """For how many steps a choice to commit or to stay out binds."""
    lock_out: Literal["window", "episode"] = "window"
    """Whether staying out binds for the window, or until the episode ends."""
    multipliers: MarkovForm = "network"
    """One multiplier in all, per agent, per size of C, per C and agent, also per step, or a network of state and C."""
    seeds: int = 10
    """Runs trained side by side, each with its own parameters."""
    iterations: int = 3000
    """Gradient steps."""
    games: int = 32
    """Episodes per iteration and seed."""
    discount: float = 0.99
    """What a reward one step later is worth."""
    decay: float = 0.9
    """Lambda of the returns: 0 is the one-step target of the paper, 1 what was played."""
    reward_scale: float = 1.0
    """Rewards are divided by it before anybody learns from them; entropy and multipliers are weighed against that."""
    exploration: float = 0.2
    """Chance, per episode and step, that the free agents' coalition is drawn by coins, for the mediator to learn."""
    hidden: int = 16
    """Units of each hidden layer."""
    layers: int = 2
    """Hidden layers of every network."""
    agent_rate: float = 2e-3
    """Adam's learning rate of the agents."""
    agent_critic_rate: float = 5e-3
    """Adam's learning rate of the agents' values."""
    mediator_rate: float = 2e-3
    """Adam's learning rate of the mediator."""
    mediator_critic_rate: float = 5e-3
    """Adam's learning rate of the mediator's values."""
    dual_rate: float = 2e-3
    """Step of the multipliers in log space; Adam's learning rate where they are a network."""
    multiplier_start: float = 0.05
    """Every multiplier's first value; the published 1 punishes before anything is known, and may never recover."""
    final_rates: float = 0.1
    """What share of all step sizes is left at the end; they fall geometrically."""
    gradient_clip: float = 0.0
    """Largest entry of any gradient; 0 leaves them as they are."""
    margin: float = 0.05
    """By how much committing must pay more than staying out, as a share of the latter."""
    damping: float = 1.0
    """How strongly a violation bears on its multiplier at once; damps the circling of primal and dual steps."""
    normalise: bool = True
    """Divide the mediator's advantages at each state and coalition by one plus the largest multiplier there."""
    entropy_start: float = 0.1
    """Weight of the policies' entropy at the start; it falls geometrically."""
    entropy_end: float = 1e-3
    """Weight of the policies' entropy at the end."""
    mediator_entropy: float = 1.0
    """The weight of the mediator's entropy, as a multiple of the agents'; more of it calms a policy that must mix."""
    log_every: int = 10
    """Iterations between two lines of the metrics."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("[1, inf)", "n_agents", "horizon", "seeds", "iterations", "games", "hidden", "layers", "log_every")
        self.require("[0, inf)", "margin", "damping", "gradient_clip")
        self.require("(0, inf)", "agent_rate", "agent_critic_rate", "mediator_rate", "mediator_critic_rate")
        self.require("(0, inf)", "dual_rate", "entropy_start", "entropy_end", "mediator_entropy")
        self.require("(0, inf)", "reward_scale", "multiplier_start")
        self.require("[0, 1]", "discount", "decay", "exploration")
        self.require("(0, 1]", "final_rates")
        self._check_game()

    def _check_game(self) -> None:
        if (self.game == "env") != bool(self.env):
            raise InputError(
                f"game is {self.game} and env is {self.env!r}; give --env package.module:factory and no game"
            )
        if self.game == "two-step-pd" and self.horizon != 2:
            raise InputError(f"horizon is {self.horizon}, but two-step-pd has 2 steps; pass --horizon 2")
        if self.game in ("two-step-pd", "repeated-pd") and self.n_agents != 2:
            raise InputError(f"n_agents is {self.n_agents}, but {self.game} has 2 agents; pass --n-agents 2")
        if not 1 <= self.window <= self.horizon:
            raise InputError(
                f"window is {self.window}, but an episode has {self.horizon} steps; give 1 to {self.horizon}"
            )

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        game = self.env.replace(":", ".") if self.env else self.game
        return f"{game}-{self.mediator}-window{self.window}-seed{self.seed}"

    @property
    def mediated(self) -> bool:
        """Whether there is a mediator."""
        return self.mediator != "none"

    @property
    def imposes_ic(self) -> bool:
        """Whether incentive compatibility is imposed."""
        return self.mediator in ("ic", "constrained")

    @property
    def imposes_e(self) -> bool:
        """Whether encouragement is imposed."""
        return self.mediator in ("e", "constrained")


TWO_STEP = MarkovConfig(
    "two-step-pd",
    game="two-step-pd",
    n_agents=2,
    horizon=2,
    mediator="ic",
    hidden=32,
    iterations=2500,
    exploration=0.5,
    margin=0.2,
    damping=2.0,
    mediator_critic_rate=1e-2,
    dual_rate=5e-3,
    final_rates=0.1,
    entropy_start=1.0,
    entropy_end=2e-2,
    mediator_entropy=5.0,
)
ITERATED = MarkovConfig(
    "iterated-pgg",
    relative_balances=True,
    multipliers="step",
    reward_scale=10.0,
    iterations=900,
    multiplier_start=1.0,
    dual_rate=5e-2,
    margin=0.3,
    damping=4.0,
    final_rates=0.2,
    entropy_start=0.2,
    entropy_end=3e-3,
    mediator_entropy=5.0,
)
COIN = MarkovConfig(
    "coin",
    game="coin",
    n_agents=2,
    horizon=16,
    egocentric=True,
    window=16,
    mediator="constrained",
    hidden=32,
    iterations=1000,
    exploration=0.5,
    agent_rate=5e-4,
    mediator_rate=5e-3,
    entropy_start=0.2,
    entropy_end=1e-2,
)
MARKOV_PRESETS = {
    "two-step-pd": TWO_STEP,
    "repeated-pd": replace(TWO_STEP, preset="repeated-pd", game="repeated-pd", horizon=4, mediator="naive"),
    "iterated-pgg": ITERATED,
    "coin": COIN,
    "env": MarkovConfig("env", game="env", env="package.module:factory", horizon=100, seeds=3, games=8, hidden=64),
}
