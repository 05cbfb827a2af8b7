"""Games of several steps by hand: gradients against automatic differentiation, draws against probabilities."""

import dataclasses

import numpy as np
import pytest
import torch

from mediated_marl.episodes import Episodes, agents_first, agents_last, play_episodes
from mediated_marl.games import CoinGame, IteratedPublicGoodsGame, RepeatedMatrixGame, prisoners_dilemma
from mediated_marl.markov import MarkovTrainer, agent_returns, mediator_returns, weigh
from mediated_marl.markov_by_hand import draw
from mediated_marl.markov_config import MARKOV_PRESETS
from mediated_marl.markov_multipliers import MultiplierNetwork
from mediated_marl.networks import MASKED, entropy
from mediated_marl.rollout import Rollout, TensorArena, masked, roll_out

BONUS = 0.3
GAMES = {
    "iterated-pgg": IteratedPublicGoodsGame(3, horizon=4, random_endowments=True, dtype=torch.float64),
    "coin": CoinGame(2, horizon=3, dtype=torch.float64),
    "repeated-pd": RepeatedMatrixGame(prisoners_dilemma().payoffs.double(), 3, memory=True),
    "many": IteratedPublicGoodsGame(5, horizon=2, dtype=torch.float64),
}


@pytest.fixture
def build():
    """Trainers in double precision, of tiny runs."""

    def trainer(game, **options):
        preset = MARKOV_PRESETS["iterated-pgg" if game == "many" else game]
        sizes = {"seeds": 2, "games": 5, "hidden": 6, "exploration": 0.3, "mediator": "constrained", "window": 1}
        arena = TensorArena(GAMES[game])
        sizes["horizon"] = arena.horizon
        return MarkovTrainer(dataclasses.replace(preset, **{**sizes, **options}), arena)

    torch.set_default_dtype(torch.float64)
    yield trainer
    torch.set_default_dtype(torch.float32)


def as_rollout(one, episodes):
    """Episodes that a trainer played, agents last; what was seen is what its networks read."""
    arrays, n_agents = one.arrays, one.arena.n_agents
    observations = torch.from_numpy(arrays.agent_inputs[:, :, :-2].copy()).permute(0, 3, 4, 1, 2)
    features = arrays.states[:, :2, : one.arena.state_size]  # of each step, and of the one after
    features = torch.from_numpy(np.concatenate([features[:, 0, :, :1], features[:, 1]], 2)).permute(0, 2, 3, 1)
    legal = torch.from_numpy(arrays.legal.copy()).permute(0, 3, 4, 1, 2)
    assert observations.shape[3] == n_agents
    return Rollout(observations, features, legal, *(agents_last(part.copy()) for part in episodes[:-1]))


def agents_loss(one, played, episodes):
    """The loss of agents and their critics, plainly: means over steps and episodes where the choice was played."""
    config, values = one.config, one.critics.agents(played.observations, played.locks).squeeze(-1)
    returns = agents_last(agent_returns(episodes, agents_first(values.detach()), config.discount, config.decay))
    values, locks = values[:, :-1], played.locks[:, :-1]
    logits = one.players.choices(played.observations[:, :-1], locks)
    log_policies = masked(logits, played.legal[:, :-1], locks, mediated=config.mediated).log_softmax(-1)
    taken = log_policies.gather(-1, played.chosen.unsqueeze(-1)).squeeze(-1)
    counted = played.alive[:, :-1] & ~played.explored.unsqueeze(-1)
    climbed = (returns - values.detach()) * taken + BONUS * entropy(log_policies)
    return (counted * ((values - returns).square() - climbed)).mean((1, 2)).sum()


def mediators_loss(one, played, episodes):
    """The loss of mediator, critic and multiplier networks, plainly: the mediator's a mean over members' samples."""
    config, critic = one.config, one.critics.coalitions
    now = (played.features[:, :-1], played.locks[:, :-1], played.committed)
    values, next_door = critic(*now), critic.next_door(*now).detach()
    following = critic(played.features[:, 1:], played.locks[:, 1:], played.wanted[:, 1:]).detach()
    returns = mediator_returns(episodes, agents_first(following), config.discount, config.decay)
    logs = {name: network.log_multipliers(*now) for name, network in one.networks.items()}
    prices = {name: torch.zeros_like(values) for name in ("ic", "e")}
    for name, log in logs.items():
        better, worse = (next_door, values.detach()) if name == "ic" else (values.detach(), next_door)
        found = better + config.margin * better.abs() - worse
        prices[name] = MultiplierNetwork.clipped(log) * (config.damping * found).clamp(-3, 3).exp()
    prices |= {name: agents_last(table.at(episodes.committed)) for name, table in one.tables.items()}
    constants = (agents_first(part.detach()) for part in (values, next_door, prices["ic"], prices["e"]))
    evidence = weigh(episodes, returns, *constants, config.margin, normalise=config.normalise)

    policy = one.players.mediation(*now).masked_fill(~played.legal[:, :-1], MASKED).log_softmax(-1)
    taken = policy.gather(-1, played.mediated.unsqueeze(-1)).squeeze(-1)
    climbed = agents_last(evidence.advantages) * taken + config.mediator_entropy * BONUS * entropy(policy)
    loss = (played.alive[:, :-1] * (values - agents_last(returns)).square()).mean((1, 2)).sum()
    samples = played.committed.sum((1, 2, 3)).clamp(min=1)
    loss = loss - ((played.committed * climbed).sum((1, 2, 3)) / samples).sum()
    for name, log in logs.items():
        violation, weights = (evidence.ic, evidence.members) if name == "ic" else (evidence.e, evidence.outsiders)
        loss = loss - MultiplierNetwork.gain(log, agents_last(violation), agents_last(weights))
    return loss


def gradients(loss, networks):
    """Of weights and biases of every layer, `[M, inputs + 1, outputs]` each."""
    layers = [layer for network in networks for layer in zip(network.weights, network.biases, strict=True)]
    found = torch.autograd.grad(loss, [part for layer in layers for part in layer])
    return [torch.cat(pair, 1).numpy() for pair in zip(found[::2], found[1::2], strict=True)]


@pytest.mark.parametrize(
    ("game", "options"),
    [
        ("iterated-pgg", {}),
        ("iterated-pgg", {"multipliers": "network"}),
        ("iterated-pgg", {"multipliers": "network", "mediator": "e", "window": 2, "layers": 1}),
        ("iterated-pgg", {"mediator": "naive", "lock_out": "episode", "exploration": 0.0}),
        ("iterated-pgg", {"mediator": "none"}),
        ("many", {"multipliers": "network", "normalise": False}),
        ("coin", {"mediator": "ic", "window": 3, "decay": 0.5}),
        ("repeated-pd", {"margin": 0.0, "damping": 0.0, "mediator_entropy": 2.0}),
    ],
)
def test_gradients_by_hand_equal_automatic_differentiation(build, game, options):
    one = build(game, **options)
    episodes = one.play()
    played = as_rollout(one, episodes)
    found = one.agents_gradients(episodes, BONUS)
    expected = gradients(agents_loss(one, played, episodes), [one.players.agents.network, one.critics.agents.network])
    if one.config.mediated:
        found += one.mediators_gradients(episodes, BONUS)[2]
        networks = [one.players.mediator, one.critics.coalitions.network]
        networks += [network.network.network for network in one.networks.values()]
        expected += gradients(mediators_loss(one, played, episodes), networks)
    assert max(np.abs(part).max() for part in expected) > 0.01
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-10)


def test_arrays_draw_what_the_networks_say(build):
    one = build("coin", games=20_000, seeds=1, window=2, hidden=4, layers=1)
    one.arrays._always_legal = False
    moment = one.arena.begin(torch.Generator().manual_seed(0), (1, 1))
    moment = type(moment)(*(part.expand(1, 20_000, *part.shape[2:]) for part in moment))
    legal = moment.legal.clone()
    legal[:, :, 0, 1] = False
    for locks in ([0, 0], [1, 0], [0, -1]):
        bound = torch.tensor(locks).expand(1, 20_000, 2)
        wanted, own = one.arrays.choose(0, moment._replace(legal=legal), agents_first(bound))
        logits = masked(one.players.choices(moment.observations, bound), legal, bound, mediated=True)[0, 0]
        chance = logits.softmax(-1)[:, -1]
        assert wanted.mean((0, 2)).tolist() == pytest.approx(chance.tolist(), abs=0.02)
        for agent in range(2):
            if locks[agent] <= 0:
                shares = np.bincount(own[0, agent], minlength=4) / 20_000
                assert shares.tolist() == pytest.approx(logits[agent, :-1].softmax(-1).tolist(), abs=0.02)
        committed = torch.tensor([True, True]).expand(1, 20_000, 2)
        mediated = one.arrays.mediate(0, agents_first(committed))
        logits = one.players.mediation(moment.features, bound, committed).masked_fill(~legal, MASKED)[0, 0]
        for agent in range(2):
            shares = np.bincount(mediated[0, agent], minlength=4) / 20_000
            assert shares.tolist() == pytest.approx(logits[agent].softmax(-1).tolist(), abs=0.02)


class Recited:
    """Players that recite what was chosen before."""

    def __init__(self, played):
        self.played = played

    def choose(self, step, moment, locks):
        assert (locks == agents_first(self.played.locks[:, step])).all()
        assert (moment.observations == self.played.observations[:, step]).all()
        return agents_first(self.played.wanted[:, step]), agents_first(self.played.own[:, step])

    def mediate(self, step, committed):
        assert (committed == agents_first(self.played.committed[:, step])).all()
        return agents_first(self.played.mediated[:, step])


@pytest.mark.parametrize(
    ("game", "rules"),
    [("coin", {}), ("iterated-pgg", {"window": 2}), ("repeated-pd", {"lock_out": "episode"})],
)
def test_training_plays_the_same_games_as_everybody_else(build, game, rules):
    """The same luck and choices in the loop over tensors and in the one over arrays."""
    one = build(game, exploration=0.0, **rules)
    arena, shape = one.arena, (one.config.seeds, one.config.games)
    played = roll_out(arena, one.players, one.rules, shape, torch.Generator().manual_seed(3))
    into = Episodes.blank((shape[0], arena.n_agents, arena.horizon, shape[1]), np.float64)
    recited = play_episodes(arena, Recited(played), one.rules, torch.Generator().manual_seed(3), into)
    assert played.rewards.abs().max() > 0
    for ours, theirs in zip(recited, Episodes.of(played), strict=True):
        assert (ours == theirs).all()


def test_draw_never_draws_what_is_impossible():
    logits = np.array([MASKED, 0.3, MASKED, 1.1, MASKED], np.float32).reshape(1, 1, 5, 1).repeat(20_000, -1)
    drawn, _, _ = draw(logits, np.random.default_rng(0))
    assert set(drawn.ravel().tolist()) == {1, 3}
    assert (drawn == 3).mean() == pytest.approx(np.exp(1.1) / (np.exp(0.3) + np.exp(1.1)), abs=0.015)
