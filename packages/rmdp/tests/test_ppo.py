"""Advantages by hand and updates on a bandit whose answer is known."""

import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch
from gt_core.errors import RunError

from rmdp.adam import Adam, shorten
from rmdp.backpropagation import Rows, join
from rmdp.envs.batch import BoxActions, DiscreteActions
from rmdp.policies import Critics, Policies
from rmdp.ppo import Experience, Learner, PPOConfig, generalised_advantages
from rmdp.rollout import Actors

CONFIG = PPOConfig(epochs=4, minibatches=2, clip=0.2, entropy=0.0, kl_limit=0.5, gradient_norm=0.5, learning_rate=0.02)


def test_advantages_by_hand():
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    next_value = torch.tensor([[1.0], [8.0], [3.0]])
    kinds = {"terminated": [-0.5 + 1.0, 2 - 1.0], "truncated": [0, 2 + 0.5 * 8 - 1.0]}
    for kind, (_, middle) in kinds.items():
        ended = torch.tensor([False, True, False])
        terminated = ended if kind == "terminated" else torch.zeros(3, dtype=torch.bool)
        advantage = generalised_advantages(reward, value, next_value.clone(), terminated, ended, gamma=0.5, decay=0.8)
        last, first = 4 + 0.5 * 3 - 2, 1 + 0.5 * 1 - 0.5
        expected = torch.tensor([[first + 0.4 * middle], [middle], [last]])
        torch.testing.assert_close(advantage, expected)


def test_advantages_with_full_decay_are_discounted_returns_less_the_value():
    generator = torch.Generator().manual_seed(0)
    reward, value, last = (torch.randn(shape, generator=generator) for shape in ((6, 2, 3), (6, 2, 3), (1, 2, 3)))
    never = torch.zeros(6, 2, dtype=torch.bool)
    following = torch.cat([value[1:], last])
    advantage = generalised_advantages(reward, value, following, never, never, gamma=0.9, decay=1.0)
    returns = last[0]
    for t in range(5, -1, -1):
        returns = reward[t] + 0.9 * returns
        torch.testing.assert_close(advantage[t], returns - value[t])


def networks(k=2, n=1):
    generator = torch.Generator().manual_seed(0)
    policies = Policies(k, 1, DiscreteActions(2), hidden=(8,), trunk="own", sigma=1.0, generator=generator)
    return policies, Critics(k, 1, n, hidden=(8,), generator=generator)


def draw(policies, observation, generator):
    actors = Actors(policies, *observation.shape[:2])
    drawn = actors.act(observation.numpy(), *actors.noise(generator))
    action, log_probability = (torch.from_numpy(part.copy()) for part in drawn)
    return action, log_probability


def bandit(policies, likes, generator, samples=64):
    """Each representative is rewarded for one arm."""
    observation = torch.ones(len(likes), samples, 1)
    action, log_probability = draw(policies, observation, generator)
    advantage = (action == torch.tensor(likes)[:, None]).float()
    advantage = (advantage - advantage.mean(1, keepdim=True)) / (advantage.std(1, keepdim=True) + 1e-3)
    return Experience(observation, action, log_probability, advantage, torch.full((len(likes), samples, 1), 3.0))


def test_updates_find_each_representatives_arm_and_value():
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    learner = Learner(policies, critics, 2)
    for _ in range(60):
        learner.improve(bandit(policies, [0, 1], generator), CONFIG, generator)
    chosen = policies.net(torch.ones(2, 1, 1)).softmax(-1)[:, 0]
    assert chosen[0, 0] > 0.95
    assert chosen[1, 1] > 0.95
    torch.testing.assert_close(critics(torch.ones(2, 1, 1)), torch.full((2, 1, 1), 3.0), atol=0.1, rtol=0)


@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_threads_change_no_bit_and_may_be_others_later(sharing):
    results = []
    for before, after in ((1, 1), (3, 1), (1, 2)):
        generator = torch.Generator().manual_seed(1)
        policies, _ = networks(k=5)
        critics = Critics(5, 1, 2, hidden=(8,), sharing=sharing, generator=generator)
        batch = bandit(policies, [0, 1, 0, 1, 1], generator)._replace(value_target=torch.ones(5, 64, 2))
        figures, state = [], None
        for threads in (before, after):
            learner = Learner(policies, critics, 5, threads)
            if state is not None:
                learner.load_state_dict(state)
            figures.append(learner.improve(batch, CONFIG, generator))
            state = learner.state_dict()
        results.append((figures, policies.state_dict(), critics.state_dict(), state))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=0)


def test_a_process_outlives_interruptions_and_its_end_is_named_with_the_remedy():
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    others = set(multiprocessing.active_children())
    learner, batch = Learner(policies, critics, 2, threads=2), bandit(policies, [0, 1], generator)
    learner.improve(batch, CONFIG, generator)
    (critic_process,) = set(multiprocessing.active_children()) - others
    critic_process.terminate()  # which it leaves to the process that started it
    for critics in learner._critics:
        critics.ask("state_dict")  # and whoever asked was interrupted
    assert len(learner.state_dict()["critics"]) == 1
    learner.improve(batch, CONFIG, generator)
    critic_process.kill()
    with pytest.raises(RunError, match=r"process in which the critics learn has ended.* learn on one thread"):
        learner.improve(batch, CONFIG, generator)
    critic_process.join()


@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_values_are_those_of_the_critics(sharing):
    generator = torch.Generator().manual_seed(0)
    critics = Critics(3, 1, 4, hidden=(8,), sharing=sharing, generator=generator)
    policies, observation = networks(k=3)[0], torch.randn(3, 150, 1, generator=generator)
    values = Learner(policies, critics, 3).values(observation, torch.empty(3, 150, 4))
    torch.testing.assert_close(values, critics(observation).detach())


def test_adams_steps_equal_torchs():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 7, generator=generator)
    rows, other = Rows(start.clone(), torch.zeros(3, 7)), torch.nn.Parameter(start.clone())
    ours, theirs = Adam(rows), torch.optim.Adam([other], lr=0.01, eps=1e-5)
    for _ in range(50):
        other.grad = torch.randn(3, 7, generator=generator)
        rows.gradient.copy_(other.grad)
        ours.step(0.01, 1e9)
        theirs.step()
    torch.testing.assert_close(rows.values, other.detach())


def test_first_step_follows_the_policy_gradient():
    """Adam's first step is rate * g / (|g| + eps), whatever the gradient's size."""
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    batch = bandit(policies, [0, 1], generator)
    log_probability = policies.net(batch.observation).log_softmax(-1).gather(-1, batch.action[..., None])[..., 0]
    parameters = list(policies.parameters())
    expected = torch.autograd.grad(-(log_probability * batch.advantage).mean(1).sum(), parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    one_step = dataclasses.replace(CONFIG, epochs=1, minibatches=1, gradient_norm=1e9)
    Learner(policies, critics, 2).improve(batch, one_step, generator)
    for parameter, start, gradient in zip(parameters, before, expected, strict=True):
        step = -one_step.learning_rate * gradient / (gradient.abs() + 1e-5)
        torch.testing.assert_close(parameter.detach() - start, step, atol=2e-5, rtol=1e-3)


ACTIONS = {
    "bounded": BoxActions(np.array([-1.0, 0.0]), np.array([1.0, 2.0])),
    "unbounded": BoxActions(np.array([-np.inf, 0.0]), np.array([np.inf, 2.0])),
    "discrete": DiscreteActions(4),
}


def loss_of(policies, critics, batch, learns):
    """The loss that an update descends, written down once more for automatic differentiation."""
    output = policies.net(batch.observation)
    parameters = output if policies.discrete or not policies.bounded else output.tanh()
    if policies.discrete:
        drawn_from = torch.distributions.Categorical(logits=parameters)
        log_probability, entropy = drawn_from.log_prob(batch.action), drawn_from.entropy()
    else:
        drawn_from = torch.distributions.Normal(parameters, policies.log_sigma.exp().expand_as(parameters))
        log_probability, entropy = drawn_from.log_prob(batch.action).sum(-1), drawn_from.entropy().sum(-1)
    ratio = (log_probability - batch.log_probability).exp()
    surrogate = torch.minimum(ratio * batch.advantage, ratio.clamp(0.9, 1.1) * batch.advantage)
    value_loss = (critics(batch.observation) - batch.value_target).square().mean((1, 2)).sum()
    return value_loss - (learns * (surrogate + 0.3 * entropy).mean(1)).sum()


@pytest.mark.parametrize("group", [2, 5])
@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize("kind", ACTIONS)
def test_gradients_by_hand_equal_automatic_ones(kind, sharing, group, monkeypatch):
    monkeypatch.setattr("rmdp.ppo._GROUP", group)
    generator, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    policies = Policies(3, 4, ACTIONS[kind], hidden=(8, 6), trunk=sharing, sigma=0.5, generator=generator)
    critics = Critics(3, 4, 5, hidden=(8, 6), sharing=sharing, generator=generator)
    learner, learns = Learner(policies, critics, 3), np.array([1.0, 0.0, 1.0], dtype=np.float32)
    parameters = [*policies.parameters(), *critics.parameters()]
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.2 * torch.randn(parameter.shape, generator=draws)
    observation = torch.randn(3, 20, 4, generator=draws)
    action, log_probability = draw(policies, observation, draws)
    shift, advantage = (torch.randn(3, 20, generator=draws) for _ in range(2))
    targets = torch.randn(3, 20, 5, generator=draws)
    batch = Experience(observation, action, log_probability + 0.2 * shift, advantage, targets)
    expected = torch.autograd.grad(loss_of(policies, critics, batch, torch.from_numpy(learns)), parameters)
    monkeypatch.setattr("rmdp.adam.Adam.step", lambda *_, **__: None)
    config = dataclasses.replace(CONFIG, clip=0.1, entropy=0.3)
    arrays, order = Experience(*(part.numpy() for part in batch)), [np.arange(20)]
    learner._policies.epoch(arrays, order, learns, config)
    (own,) = learner._critics
    for method, *arguments in (("begin", observation, targets, config), ("epoch", order)):
        own.ask(method, *arguments)
    own.answers()
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_joined_parameters_move_with_their_rows():
    _, critics = networks()
    saved = {name: value.clone() for name, value in critics.state_dict().items()}
    (rows,) = join(critics, 2)
    rows.values.add_(1)
    for name, value in critics.state_dict().items():
        torch.testing.assert_close(value, saved[name] + 1)
    critics.load_state_dict(saved)
    torch.testing.assert_close(rows.values[:, -1], saved["net.2.bias"].flatten())


def test_representative_beyond_the_kl_limit_rests_after_the_pass():
    strides = []
    for epochs in (1, 3):
        (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
        batch = bandit(policies, [0, 1], generator)
        shift = torch.tensor([[1.0], [0.0]])  # the first representative's samples look as if drawn by another policy
        batch = batch._replace(log_probability=batch.log_probability + shift)
        before = policies.net[-1].weight.detach().clone()
        limited = PPOConfig(epochs, 1, clip=0.9, entropy=0.0, kl_limit=0.1, gradient_norm=0.5, learning_rate=1e-3)
        Learner(policies, critics, 2).improve(batch, limited, generator)
        strides.append((policies.net[-1].weight.detach() - before).flatten(1).norm(dim=1))
    assert strides[0].min() > 0
    assert strides[0][0] == strides[1][0]
    assert strides[1][1] > 2 * strides[0][1]


def test_gradients_are_clipped_one_by_one():
    gradient = np.array([[18.0, 24.0], [0.01, 0.0]])
    shorten(gradient, 0.5)
    np.testing.assert_allclose(gradient, [[0.3, 0.4], [0.01, 0.0]])
