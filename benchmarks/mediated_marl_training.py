"""Training with ten seeds stacked, against a plain loop over agents: ratios within one run.

The plain learner is one seed of the published method as one would write it down: an actor and a critic network with an
optimiser each for every agent, a network for the mediator and one for its critic with optimisers of their own, games
played as a batch, gradients by automatic differentiation, and a loop over agents. Ours trains ten seeds at once. Both
play 128 games per iteration and seed, and both take the same steps: play, agents, mediator under its constraint,
critics, multiplier. In the iterated public goods game a game is an episode of ten steps, and the multipliers are one
per agent in the plain learner and one per step, coalition and agent in ours; there a second thread lets the mediator
learn beside the agents. The rounds alternate, and figures are medians.

The last columns are the official code's milliseconds per iteration of 128 games and how often ours goes into them. They
were measured once on a quiet machine of two cores and are not measured here: that ratio means something on such a
machine only.

    python benchmarks/mediated_marl_training.py [--seeds 10] [--rounds 9] [--iterations 20]
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from gt_core.environment import prepare
from mediated_marl.config import PRESETS
from mediated_marl.games import sacrifice
from mediated_marl.markov import MarkovTrainer
from mediated_marl.markov_config import MARKOV_PRESETS
from mediated_marl.sampled import SampledTrainer
from torch import Tensor, nn
from torch.distributions import Categorical

GAMES = 128
OFFICIAL = {("pgg", 3): 6.12, ("pgg", 10): 12.2, ("pgg", 25): 25.8, ("sacrifice", 2): 4.07, ("iterated pgg", 3): 183.0}


class Player:
    """An actor and a critic with an optimiser each; what acts alone in a one-step game observes a constant 0."""

    def __init__(
        self, actor: nn.Module, critic: nn.Module, rates: tuple[float, float], *, weight_decay: float = 1e-3
    ) -> None:
        self.actor, self.critic = actor, critic
        self.actor_optimiser = torch.optim.Adam(actor.parameters(), rates[0], weight_decay=weight_decay)
        self.critic_optimiser = torch.optim.Adam(critic.parameters(), rates[1], weight_decay=weight_decay)

    def learn(self, actor_loss: Tensor, critic_loss: Tensor, clip: float = 0.0) -> None:
        """One step of both networks, gradients clipped entry by entry."""
        for loss, network, optimiser in (
            (actor_loss, self.actor, self.actor_optimiser),
            (critic_loss, self.critic, self.critic_optimiser),
        ):
            optimiser.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_value_(network.parameters(), clip)
            optimiser.step()


def small_network(*sizes: int) -> nn.Module:
    """Layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def selfish_agents(n_agents: int, n_choices: int, rates: tuple[float, float]) -> list[Player]:
    """One independent actor-critic per agent."""
    return [Player(nn.Linear(1, n_choices), nn.Linear(1, 1), rates) for _ in range(n_agents)]


def agents_learn(agents: list[Player], chosen: Tensor, rewards: Tensor, bonus: float) -> None:
    """Every agent's own policy gradient: `chosen` and `rewards` are `[B, N]`."""
    nothing = torch.zeros(GAMES, 1)
    for index, agent in enumerate(agents):
        policy = Categorical(logits=agent.actor(nothing))
        values = agent.critic(nothing).squeeze(-1)
        advantage = rewards[:, index] - values.detach()
        loss = -(advantage * policy.log_prob(chosen[:, index])).mean() - bonus * policy.entropy().mean()
        agent.learn(loss, (rewards[:, index] - values).square().mean())


def choices(agents: list[Player]) -> Tensor:
    """What every agent chooses in every game, `[B, N]`."""
    nothing = torch.zeros(GAMES, 1)
    with torch.no_grad():
        return torch.stack([Categorical(logits=agent.actor(nothing)).sample() for agent in agents], -1)


class PlainPublicGoods:
    """One seed of public goods under encouragement.

    Args:
        n_agents: N.
        multiplier: of contributions.
    """

    def __init__(self, n_agents: int, multiplier: float) -> None:
        self.n_agents, self.multiplier = n_agents, multiplier
        self.agents = selfish_agents(n_agents, 3, (1e-3, 1e-2))
        self.mediator = Player(small_network(1, 16, 2), small_network(1, 32, 1), (1e-3, 1e-2))
        self.log_multiplier = torch.zeros(())

    def iterate(self) -> None:
        """Play 128 games and move everybody."""
        chosen = choices(self.agents)
        committed = chosen == 2
        size = committed.sum(-1)
        seen = (2 * size / self.n_agents - 1).unsqueeze(-1)
        mediated = self._mediate(committed, seen)
        rewards = self._rewards(torch.where(committed, mediated, chosen))
        agents_learn(self.agents, chosen, rewards, 0.1)
        if committed.any():
            self._mediator_learns(committed, size, seen, mediated, rewards)

    def _mediate(self, committed: Tensor, seen: Tensor) -> Tensor:
        mediated = torch.zeros_like(committed, dtype=torch.long)
        game, agent = committed.nonzero(as_tuple=True)
        if len(game):
            with torch.no_grad():
                mediated[game, agent] = Categorical(logits=self.mediator.actor(seen[game])).sample()
        return mediated

    def _rewards(self, contributed: Tensor) -> Tensor:
        share = self.multiplier / self.n_agents * contributed.sum(-1, keepdim=True)
        return (share - contributed) / (self.multiplier - 1)

    def _mediator_learns(
        self, committed: Tensor, size: Tensor, seen: Tensor, mediated: Tensor, rewards: Tensor
    ) -> None:
        values = self.mediator.critic(seen).squeeze(-1)
        earned = (rewards * committed).sum(-1)
        constrained = (size >= 2) & (size < self.n_agents)
        with torch.no_grad():
            inside = self.mediator.critic(seen + 2 / self.n_agents).squeeze(-1) / (size + 1)
            outside = (rewards * ~committed).sum(-1) / (self.n_agents - size).clamp(min=1)
            violation = torch.where(constrained, outside - inside, torch.zeros(()))
            advantage = earned - values - self.log_multiplier.exp() * violation
        game, agent = committed.nonzero(as_tuple=True)
        policy = Categorical(logits=self.mediator.actor(seen[game]))
        gain = advantage[game] * policy.log_prob(mediated[game, agent]) + 0.1 * policy.entropy()
        formed = size > 0
        self.mediator.learn(-gain.mean(), (earned - values)[formed].square().mean(), clip=0.1)
        if constrained.any():
            weighed = torch.where(violation < 0, 0.99 * violation, violation)[constrained]
            weights = size[constrained]
            step = 1e-2 * (weights * weighed).sum() / weights.sum()
            self.log_multiplier = (self.log_multiplier + step).clamp(-4, 4)


class PlainSacrifice:
    """One seed of the sacrifice game under incentive compatibility."""

    def __init__(self) -> None:
        self.payoffs = sacrifice().payoffs.float()
        self.agents = selfish_agents(2, 4, (1e-3, 1e-3))
        self.mediator = Player(small_network(3, 16, 3), small_network(2, 32, 2), (1e-3, 1e-3))
        self.log_multipliers = torch.zeros(2)

    def iterate(self) -> None:
        """Play 128 games and move everybody."""
        chosen = choices(self.agents)
        committed = chosen == 3
        coalition = committed.float()
        mediated = torch.zeros_like(chosen)
        with torch.no_grad():
            for index in range(2):
                mediated[:, index] = Categorical(logits=self._logits(coalition, index)).sample()
        played = torch.where(committed, mediated, chosen)
        rewards = self.payoffs[played[:, 0], played[:, 1]]
        agents_learn(self.agents, chosen, rewards, 0.5)
        if committed.any():
            self._mediator_learns(committed, coalition, mediated, rewards)

    def _logits(self, coalition: Tensor, index: int) -> Tensor:
        number = torch.full((len(coalition), 1), float(index))
        logits: Tensor = self.mediator.actor(torch.cat([coalition, number], -1))
        return logits

    def _mediator_learns(self, committed: Tensor, coalition: Tensor, mediated: Tensor, rewards: Tensor) -> None:
        values = self.mediator.critic(coalition)
        both = committed.all(-1)
        with torch.no_grad():
            advantage = ((rewards - values) * committed).sum(-1)
            violations = []
            for index in range(2):
                alone = coalition.clone()
                alone[:, index] = 0
                violation = self.mediator.critic(alone)[:, index] - rewards[:, index]
                violations.append(torch.where(both, violation, torch.zeros(())))
                advantage = advantage - self.log_multipliers[index].exp() * violations[-1]
        loss = torch.zeros(())
        for index in range(2):
            rows = committed[:, index]
            if rows.any():
                policy = Categorical(logits=self._logits(coalition[rows], index))
                gain = advantage[rows] * policy.log_prob(mediated[rows, index]) + 0.5 * policy.entropy()
                loss = loss - gain.sum() / committed.sum()
        self.mediator.learn(loss, (rewards - values).square().mean(), clip=0.1)
        if both.any():
            for index, violation in enumerate(violations):
                weighed = torch.where(violation < 0, 2 * violation, violation)[both]
                self.log_multipliers[index] = (self.log_multipliers[index] + 1e-3 * weighed.mean()).clamp(-4, 4)


class PlainIterated:
    """One seed of the iterated public goods game of three agents under encouragement; values one step ahead."""

    horizon, share, income, discount = 10, 0.5, 2 / 3, 0.99

    def __init__(self) -> None:
        rates = (5e-4, 1e-3)
        networks = [(small_network(2, 16, 16, 3), small_network(2, 16, 16, 1)) for _ in range(3)]
        self.agents = [Player(*pair, rates, weight_decay=0.0) for pair in networks]
        actor, critic = small_network(10, 16, 16, 2), small_network(7, 16, 16, 3)
        self.mediator = Player(actor, critic, (1e-3, 1e-3), weight_decay=0.0)
        self.log_multipliers = torch.zeros(3)

    def iterate(self) -> None:
        """Play 128 episodes and move everybody."""
        states, chosen, mediated, rewards = self._play()
        for index, agent in enumerate(self.agents):
            self._agent_learns(agent, index, states, chosen[..., index], rewards[..., index])
        if (chosen == 2).any():
            self._mediator_learns(states, chosen == 2, mediated, rewards)

    def _play(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States `[T + 1, B, 4]`, and choices, the mediator's actions and rewards `[T, B, 3]`."""
        balances = torch.ones(GAMES, 3)
        states, chosen, mediated, rewards = [self._state(balances, 0)], [], [], []
        for step in range(self.horizon):
            with torch.no_grad():
                logits = [agent.actor(states[-1][:, [index, 3]]) for index, agent in enumerate(self.agents)]
                chosen.append(torch.stack([Categorical(logits=one).sample() for one in logits], -1))
                committed = chosen[-1] == 2
                inputs = [self._seen(states[-1], committed, index) for index in range(3)]
                actions = [Categorical(logits=self.mediator.actor(one)).sample() for one in inputs]
            mediated.append(torch.stack(actions, -1))
            given = self.share * balances * torch.where(committed, mediated[-1], chosen[-1])
            rewards.append(self.income * given.sum(-1, keepdim=True) - given)
            balances = balances + rewards[-1]
            states.append(self._state(balances, step + 1))
        return torch.stack(states), torch.stack(chosen), torch.stack(mediated), torch.stack(rewards)

    def _state(self, balances: Tensor, step: int) -> Tensor:
        return torch.cat([balances / 57.665, torch.full((GAMES, 1), step / self.horizon)], -1)

    def _seen(self, states: Tensor, committed: Tensor, index: int) -> Tensor:
        whose = torch.zeros(*states.shape[:-1], 3)
        whose[..., index] = 1
        return torch.cat([states, committed.float(), whose], -1)

    def _ahead(self, values: Tensor) -> Tensor:
        """The next step's values, 0 beyond the last."""
        return torch.cat([values[1:], torch.zeros_like(values[:1])])

    def _agent_learns(self, agent: Player, index: int, states: Tensor, chosen: Tensor, rewards: Tensor) -> None:
        seen = states[:-1, :, [index, 3]]
        values = agent.critic(seen).squeeze(-1)
        target = rewards + self.discount * self._ahead(values.detach())
        policy = Categorical(logits=agent.actor(seen))
        gain = (target - values.detach()) * policy.log_prob(chosen) + 0.2 * policy.entropy()
        agent.learn(-gain.mean(), (target - values).square().mean(), clip=0.1)

    def _mediator_learns(self, states: Tensor, committed: Tensor, mediated: Tensor, rewards: Tensor) -> None:
        now = states[:-1]
        values = self.mediator.critic(torch.cat([now, committed.float()], -1))
        target = rewards + self.discount * self._ahead(values.detach())
        advantage = ((target - values.detach()) * committed).sum(-1)
        violations = []
        for index in range(3):
            inside = committed.clone()
            inside[..., index] = True
            with torch.no_grad():
                next_door = self.mediator.critic(torch.cat([now, inside.float()], -1))[..., index]
            violations.append(torch.where(committed[..., index], torch.zeros(()), target[..., index] - next_door))
            advantage = advantage - self.log_multipliers[index].exp() * violations[-1]
        loss = torch.zeros(())
        for index in range(3):
            rows = committed[..., index]
            if rows.any():
                policy = Categorical(logits=self.mediator.actor(self._seen(now, committed, index)[rows]))
                gain = advantage[rows] * policy.log_prob(mediated[..., index][rows]) + 0.2 * policy.entropy()
                loss = loss - gain.mean()
        self.mediator.learn(loss, (target - values).square().mean(), clip=0.1)
        for index, violation in enumerate(violations):
            if not committed[..., index].all():
                step = 5e-3 * violation.sum() / (~committed[..., index]).sum()
                self.log_multipliers[index] = (self.log_multipliers[index] + step).clamp(-4, 4)


def seconds(work: Callable[[], object], iterations: int) -> float:
    """Time of one iteration, a mean over some."""
    start = time.perf_counter()
    for _ in range(iterations):
        work()
    return (time.perf_counter() - start) / iterations


def compare(
    ours: Callable[[], object], plain: Callable[[], object], rounds: int, iterations: int, ours_more: int = 5
) -> tuple[float, float]:
    """Seconds per iteration of the plain loop and of ours, medians over alternating rounds."""
    pairs = [(seconds(plain, iterations), seconds(ours, ours_more * iterations)) for _ in range(rounds + 1)]
    plain_times, our_times = np.median(np.array(pairs[1:]), 0)
    return float(plain_times), float(our_times)


def line(game: str, n_agents: int, learner: str, plain: float, ours: float, threads: int = 1) -> None:
    """Print what one game took, in seconds per iteration and seed."""
    official = OFFICIAL[game, n_agents]
    print(
        f"{game:12} {n_agents:6} {learner:>8} {threads:7} {1e3 * plain:9.3f} {1e3 * ours:8.4f} "
        f"{GAMES / ours:12.0f} {plain / ours:5.0f}x {official:11.2f} {official / (1e3 * ours):5.0f}x",
        flush=True,
    )


def main() -> None:
    """Print one line per game and learner."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    prepare("cpu", 1)
    torch.manual_seed(0)
    print(
        f"{'game':12} {'agents':>6} {'ours':>8} {'threads':>7} {'plain ms':>9} {'our ms':>8} {'our games/s':>12} "
        f"{'ratio':>6} {'official ms':>11} {'ratio':>6}"
    )
    goods = [(preset, "pgg", n_agents) for n_agents in (3, 10, 25) for preset in ("paper", "sampled")]
    for preset, game, n_agents in [*goods, ("sampled-sacrifice", "sacrifice", 2)]:
        mediator = "e" if game == "pgg" else "ic"
        config = dataclasses.replace(
            PRESETS[preset], n_agents=n_agents, mediator=mediator, seeds=options.seeds, games=GAMES, iterations=10**6
        )
        plain = PlainPublicGoods(n_agents, 2.0 if n_agents <= 10 else 5.0) if game == "pgg" else PlainSacrifice()
        theirs, ours = compare(SampledTrainer(config).iterate, plain.iterate, options.rounds, options.iterations)
        line(game, n_agents, config.learner, theirs, ours / config.seeds)
    several = dataclasses.replace(
        MARKOV_PRESETS["iterated-pgg"], seeds=options.seeds, games=GAMES, iterations=10**6, hidden=16, layers=2
    )
    iterations = max(1, options.iterations // 5)  # each plays ten steps
    for threads in (1, 2):
        trainer = MarkovTrainer(dataclasses.replace(several, threads=threads))
        theirs, ours = compare(trainer.iterate, PlainIterated().iterate, options.rounds, iterations, 1)
        line("iterated pgg", 3, "sampled", theirs, ours / several.seeds, threads)


if __name__ == "__main__":
    main()
