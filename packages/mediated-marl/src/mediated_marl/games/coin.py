"""The Coin Game: a spatial dilemma in which taking what lies near may rob another.

After Lerer and Peysakhovich (2017) and Foerster et al. (2018), here for any number of agents.  One coin lies on a
torus of `size x size` cells and belongs to one agent.  Whoever steps on it takes it and earns 1; its owner loses 2
for every *other* agent that took it.  Then a new coin, of a random owner, falls on a random cell without an agent.
If everyone takes every coin the expected welfare is negative; leaving the others' coins alone is the optimum.

=============  ====================================================================================
actions        0 = up, 1 = down, 2 = left, 3 = right; the edges wrap, agents may share a cell
payoffs        +1 to each taker, -2 to the owner per taker other than itself
observations   agent i: five planes `[5, size, size]` flattened: itself, how many others, the coin if it is its
               own, the coin if it is another's, elapsed share of the episode; mediator: one plane per agent, one
               coin plane per owner, time: `[2N + 1, size, size]` flattened
egocentric     agent i: how many others, its own coin, another's coin, each a plane turned so that it stands on the
               first cell, and time as one number: `[3 * size**2 + 1]`; mediator: all agents' planes, and time once:
               `[3 N * size**2 + 1]`
arguments      `n_agents` >= 2 (2); `size` (3), `size**2 > n_agents`; `horizon` (16); `egocentric` (False); `dtype`
episode        `horizon` steps, then truncated: the game itself has no end
history        0.1.0 first version
=============  ====================================================================================
"""

from typing import NamedTuple

import torch
from gt_core.errors import InputError
from torch import Tensor
from torch.nn.functional import one_hot

from mediated_marl.games.protocol import Step, flags, progress

__all__ = ["CoinGame", "CoinState", "coin_rewards", "falling_cell", "moved", "seen_from"]

COIN_REWARD = 1.0
ROBBED_REWARD = -2.0
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class CoinState(NamedTuple):
    """Where everything is, and the coins still to fall.

    Attributes:
        time: steps played so far.
        cells: `[*batch, N]` int64, the agents' cells, row by row.
        coin: `[*batch]` int64, the coin's cell.
        owner: `[*batch]` int64, the coin's owner.
        fall: `[*batch, T + 1]` in [0, 1), which of the free cells each coin would fall on.
        owners: `[*batch, T + 1]` int64, whose each coin would be.
    """

    time: int
    cells: Tensor
    coin: Tensor
    owner: Tensor
    fall: Tensor
    owners: Tensor


class CoinGame:
    """The game of the table above.

    Raises:
        InputError: an argument outside its range, or a grid on which no coin finds a free cell.
    """

    name = "coin"
    n_actions = 4

    def __init__(
        self,
        n_agents: int = 2,
        *,
        size: int = 3,
        horizon: int = 16,
        egocentric: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if n_agents < 2:
            raise InputError(f"n_agents is {n_agents}; the Coin Game needs at least 2")
        if size < 2 or size**2 <= n_agents:
            raise InputError(
                f"size is {size}; {n_agents} agents and a coin need at least 2 x 2 cells, more than agents"
            )
        if horizon < 1:
            raise InputError(f"horizon is {horizon}; an episode needs at least one step")
        self.n_agents = n_agents
        self.size = size
        self.horizon = horizon
        self.egocentric = egocentric
        self.dtype = dtype
        self.action_counts = (4,) * n_agents
        self.observation_size = 3 * size**2 + 1 if egocentric else 5 * size**2
        self.state_size = 3 * n_agents * size**2 + 1 if egocentric else (2 * n_agents + 1) * size**2

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> CoinState:
        """Agents on random cells, and the whole episode's coins drawn in advance."""
        device, coins = generator.device, (*batch_shape, self.horizon + 1)
        cells = torch.randint(self.size**2, (*batch_shape, self.n_agents), generator=generator, device=device)
        fall = torch.rand(coins, generator=generator, dtype=self.dtype, device=device)
        owners = torch.randint(self.n_agents, coins, generator=generator, device=device)
        coin = falling_cell(cells, fall[..., 0], self.size**2)
        return CoinState(0, cells, coin, owners[..., 0], fall, owners)

    def redraw(self, state: CoinState, generator: torch.Generator) -> CoinState:
        """The same position with other coins to come."""
        fall = torch.rand(state.fall.shape, generator=generator, dtype=self.dtype, device=state.fall.device)
        owners = torch.randint(self.n_agents, state.owners.shape, generator=generator, device=state.owners.device)
        return state._replace(fall=fall, owners=owners)

    def observe(self, state: CoinState) -> Tensor:
        """Each agent's own five planes, `[*batch, N, 5 * size**2]`, or what it sees around itself."""
        if self.egocentric:
            planes = self.around(state)
            return torch.cat([planes, self._time(state, planes[..., :1])], dim=-1)
        own = one_hot(state.cells, self.size**2).to(self.dtype)
        others = own.sum(-2, keepdim=True) - own
        coin = one_hot(state.coin, self.size**2).to(self.dtype).unsqueeze(-2)
        mine = one_hot(state.owner, self.n_agents).to(self.dtype).unsqueeze(-1)
        return torch.cat([own, others, coin * mine, coin * (1 - mine), self._time(state, own)], dim=-1)

    def features(self, state: CoinState) -> Tensor:
        """All agents' planes, one coin plane per owner, and time: `[*batch, (2N + 1) * size**2]`, or all around all."""
        if self.egocentric:
            planes = self.around(state).flatten(-2)
            return torch.cat([planes, self._time(state, planes[..., :1])], dim=-1)
        agents = one_hot(state.cells, self.size**2).to(self.dtype)
        coin = one_hot(state.coin, self.size**2).to(self.dtype).unsqueeze(-2)
        coins = coin * one_hot(state.owner, self.n_agents).to(self.dtype).unsqueeze(-1)
        return torch.cat([agents, coins, self._time(state, agents[..., :1, :])], dim=-2).flatten(-2)

    def around(self, state: CoinState) -> Tensor:
        """What lies around each agent, `[*batch, N, 3 * size**2]`: how many others, its own coin, another's coin."""
        cells, count = state.cells, self.size**2
        others = one_hot(seen_from(cells.unsqueeze(-2), cells.unsqueeze(-1), self.size), count).sum(-2)
        others[..., 0] -= 1  # itself
        coin = one_hot(seen_from(state.coin.unsqueeze(-1), cells, self.size), count)
        mine = one_hot(state.owner, self.n_agents).unsqueeze(-1)
        return torch.cat([others, coin * mine, coin * (1 - mine)], dim=-1).to(self.dtype)

    def _time(self, state: CoinState, like: Tensor) -> Tensor:
        return torch.full_like(like, progress(state.time, self.horizon))

    def step(self, state: CoinState, actions: Tensor) -> Step[CoinState]:
        """Move all, pay who stands on the coin, let the next coin fall where one was taken."""
        cells = moved(state.cells, actions, self.size)
        takers = cells == state.coin.unsqueeze(-1)
        rewards = coin_rewards(takers, state.owner).to(self.dtype)
        taken, time = takers.any(-1), state.time + 1
        coin = torch.where(taken, falling_cell(cells, state.fall[..., time], self.size**2), state.coin)
        owner = torch.where(taken, state.owners[..., time], state.owner)
        cut = flags(tuple(taken.shape), value=time >= self.horizon, device=taken.device)
        return Step(rewards, CoinState(time, cells, coin, owner, state.fall, state.owners), torch.zeros_like(cut), cut)


def moved(cells: Tensor, actions: Tensor, size: int) -> Tensor:
    """The cells after one move each on the torus; all `[*batch, N]`."""
    change = torch.tensor(MOVES, device=cells.device)[actions]
    row = (cells // size + change[..., 0]) % size
    column = (cells % size + change[..., 1]) % size
    return row * size + column


def seen_from(cells: Tensor, origin: Tensor, size: int) -> Tensor:
    """The cells on a torus turned so that `origin` becomes cell 0; both `[*batch]`."""
    row = (cells // size - origin // size) % size
    column = (cells % size - origin % size) % size
    return row * size + column


def coin_rewards(takers: Tensor, owner: Tensor) -> Tensor:
    """What taking and being robbed pays, `[*batch, N]`, from `takers [*batch, N]` bool and `owner [*batch]`."""
    owns = one_hot(owner, takers.shape[-1]).bool()
    robbers = (takers & ~owns).sum(-1, keepdim=True)
    return COIN_REWARD * takers + ROBBED_REWARD * robbers * owns


def falling_cell(cells: Tensor, uniform: Tensor, n_cells: int) -> Tensor:
    """The cell `[*batch]` that `uniform [*batch]` picks among those free of the agents at `cells [*batch, N]`."""
    free = one_hot(cells, n_cells).sum(-2) == 0
    count = free.sum(-1)
    rank = torch.minimum((uniform * count).long(), count - 1)  # a product may round up to the count itself
    return ((free.cumsum(-1) == rank.unsqueeze(-1) + 1) & free).long().argmax(-1)
