"""One-step games as the exact trainer and the audit see them: payoffs, values of coalitions, neighbours.

Two models share one shape.  `EnumeratedGame` lists all `2^N` coalitions of a normal-form game and has a slot per agent;
`SymmetricPublicGoods` lists the `N + 1` sizes and has two slots, a member and an outsider, that stand for `k` and for
`N - k` agents.  In both, `C` counts coalitions (or sizes) and `I` slots, and the constraint of slot i at coalition c
compares `values[c, i]` with the value of the same agent once its own membership has changed.
"""

from typing import NamedTuple, Protocol

import torch
from gt_core.errors import InputError
from torch import Tensor

from mediated_marl.coalitions import (
    coalition_members,
    coalition_number,
    coalition_probabilities,
    poisson_binomial,
    toggled,
)
from mediated_marl.exact import (
    check_enumerable,
    coalition_payoffs,
    deviation_payoffs,
    expected_payoffs,
    public_goods_deviation_payoffs,
    public_goods_payoffs,
    public_goods_values,
)
from mediated_marl.games import MatrixGame, PublicGoodsGame
from mediated_marl.games.public_goods import public_good

__all__ = ["CoalitionTable", "EnumeratedGame", "OneStepGame", "SymmetricPublicGoods", "one_step_game"]


class CoalitionTable(NamedTuple):
    """Every agent's value in every coalition, and next door.

    Attributes:
        values: `[S, C, I]`.
        neighbours: `[S, C, I]`, the same agents' values once they joined or left.
    """

    values: Tensor
    neighbours: Tensor


class OneStepGame(Protocol):
    """A one-step game that can be summed exactly.

    Attributes:
        n_agents: N.
        n_actions: A, own actions without commit.
        coalitions: `[R, N]` bool, the coalitions for which the mediator network is read.
        members: `[C, I]`, how many members a slot stands for.
        outsiders: `[C, I]`, how many outsiders.
        sizes: `[C]` int64.
    """

    n_agents: int
    n_actions: int
    coalitions: Tensor
    members: Tensor
    outsiders: Tensor
    sizes: Tensor

    def payoffs(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """Expected payoffs `[*, S, N]` of policies `[*, S, N, A + 1]` and mediator probabilities `[S, R, N, A]`."""
        ...

    def deviations(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """What each pure action would earn, `[S, N, A + 1]`."""
        ...

    def table(self, outside: Tensor, mediator: Tensor) -> CoalitionTable:
        """Values of all coalitions when outsiders play `outside` `[S, N, A]`."""
        ...

    def probabilities(self, commit: Tensor) -> Tensor:
        """How likely each coalition is, `[S, C]`, from commit probabilities `[S, N]`."""
        ...

    def neighbours(self, values: Tensor) -> Tensor:
        """The values of the same agents next door, `[S, C, I]`; see `CoalitionTable`."""
        ...

    def rewards(self, actions: Tensor) -> Tensor:
        """Payoffs `[*batch, N]` of joint actions `[*batch, N]`."""
        ...

    def number(self, committed: Tensor) -> Tensor:
        """Which of the C coalitions formed, `[*batch]`, from who committed, `[*batch, N]` bool."""
        ...

    def row(self, number: Tensor) -> Tensor:
        """Which of the R coalitions the mediator reads at coalition `number`; any row where nobody is a member."""
        ...


class EnumeratedGame:
    """A normal-form game, all coalitions listed.

    Raises:
        TooLargeError: too many coalitions and joint actions.
        InputError: agents with different numbers of actions.
    """

    def __init__(self, game: MatrixGame) -> None:
        check_enumerable(game.action_counts)
        if len(set(game.action_counts)) > 1:
            raise InputError(
                f"the agents have {game.action_counts} actions; give all the same number, say by repeating a row"
            )
        self.table_of_payoffs = game.payoffs
        self.n_agents, self.n_actions = game.n_agents, game.n_actions
        self.coalitions = coalition_members(game.n_agents)
        self.members = self.coalitions.to(game.payoffs.dtype)
        self.outsiders = 1 - self.members
        self.sizes = self.coalitions.sum(-1)
        self._neighbours = toggled(torch.arange(len(self.sizes)), game.n_agents)

    def payoffs(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return expected_payoffs(self.table_of_payoffs, policies, mediator)

    def deviations(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return deviation_payoffs(policies, lambda changed: self.payoffs(changed, mediator))

    def table(self, outside: Tensor, mediator: Tensor) -> CoalitionTable:
        """See `OneStepGame`."""
        values = coalition_payoffs(self.table_of_payoffs, outside, mediator)
        return CoalitionTable(values, self.neighbours(values))

    def probabilities(self, commit: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return coalition_probabilities(commit)

    def neighbours(self, values: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return values.gather(-2, self._neighbours.expand_as(values))

    def rewards(self, actions: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return self.table_of_payoffs[actions.unbind(-1)]

    def number(self, committed: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return coalition_number(committed)

    def row(self, number: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return number


class SymmetricPublicGoods:
    """The public goods game, coalitions told apart by their size only.

    Values take outsiders to keep, their dominant action; one that contributes is worse off, so a constraint that holds
    against keeping holds against contributing.
    """

    def __init__(self, game: PublicGoodsGame) -> None:
        self.game = game
        self.n_agents, self.n_actions = game.n_agents, 2
        self.coalitions = torch.ones(game.n_agents, game.n_agents).tril().bool()
        self.sizes = torch.arange(game.n_agents + 1)
        counts = self.sizes.to(game.dtype)
        self.members = torch.stack([counts, torch.zeros_like(counts)], -1)
        self.outsiders = torch.stack([torch.zeros_like(counts), game.n_agents - counts], -1)

    def contribution(self, mediator: Tensor) -> Tensor:
        """The mediator's probability of contributing at sizes 1 to N, `[S, N]`."""
        return mediator[..., 0, 1]  # agent 0 is a member of every coalition listed

    def payoffs(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return public_goods_payoffs(policies, self.contribution(mediator), self.game.multiplier)

    def deviations(self, policies: Tensor, mediator: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return public_goods_deviation_payoffs(policies, self.contribution(mediator), self.game.multiplier)

    def table(self, outside: Tensor, mediator: Tensor) -> CoalitionTable:
        """See `OneStepGame`; `outside` is taken to be keeping."""
        del outside
        values = torch.stack(public_goods_values(self.contribution(mediator), self.game.multiplier), -1)
        return CoalitionTable(values, self.neighbours(values))

    def probabilities(self, commit: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return poisson_binomial(commit)

    def neighbours(self, values: Tensor) -> Tensor:
        """See `OneStepGame`."""
        members, outsiders = values.unbind(-1)
        return torch.stack([outsiders.roll(1, -1), members.roll(-1, -1)], -1)  # the wrapped ends stand for nobody

    def rewards(self, actions: Tensor) -> Tensor:
        """See `OneStepGame`."""
        return public_good(actions.to(self.game.dtype), self.game.multiplier)

    def number(self, committed: Tensor) -> Tensor:
        """See `OneStepGame`; a coalition's number is its size."""
        return committed.sum(-1)

    def row(self, number: Tensor) -> Tensor:
        """See `OneStepGame`; row r is size r + 1."""
        return (number - 1).clamp(min=0)


def one_step_game(game: MatrixGame | PublicGoodsGame) -> OneStepGame:
    """The cheapest exact model of a one-step game.

    Raises:
        TooLargeError: see `EnumeratedGame`.
        InputError: see `EnumeratedGame`.
    """
    return SymmetricPublicGoods(game) if isinstance(game, PublicGoodsGame) else EnumeratedGame(game)
