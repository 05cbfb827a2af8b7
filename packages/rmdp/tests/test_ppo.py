"""Advantages by hand and updates on a bandit whose answer is known."""

import numpy as np
import pytest
import torch

from rmdp.backpropagation import join
from rmdp.envs.batch import BoxActions, DiscreteActions
from rmdp.policies import Critics, Policies
from rmdp.ppo import Experience, PPOConfig, _step, clip_per_representative, generalised_advantages, improve

CONFIG = PPOConfig(epochs=4, minibatches=2, clip=0.2, entropy=0.0, kl_limit=0.5, gradient_norm=0.5)


def test_advantages_by_hand():
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    next_value = torch.tensor([[1.0], [8.0], [3.0]])
    kinds = {"terminated": [-0.5 + 1.0, 2 - 1.0], "truncated": [0, 2 + 0.5 * 8 - 1.0]}
    for kind, (_, middle) in kinds.items():
        ended = torch.tensor([False, True, False])
        terminated = ended if kind == "terminated" else torch.zeros(3, dtype=torch.bool)
        advantage = generalised_advantages(reward, value, next_value, terminated, ended, gamma=0.5, decay=0.8)
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


def bandit(policies, likes, generator, samples=64):
    """Each representative is rewarded for one arm."""
    observation = torch.ones(len(likes), samples, 1)
    with torch.no_grad():
        action, log_probability = policies.act(observation, generator)
    advantage = (action == torch.tensor(likes)[:, None]).float()
    advantage = (advantage - advantage.mean(1, keepdim=True)) / (advantage.std(1, keepdim=True) + 1e-3)
    return Experience(observation, action, log_probability, advantage, torch.full((len(likes), samples, 1), 3.0))


def test_updates_find_each_representatives_arm_and_value():
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam([join(policies, critics)], lr=0.02)
    for _ in range(60):
        improve(policies, critics, optimiser, bandit(policies, [0, 1], generator), CONFIG, generator)
    chosen = policies.net(torch.ones(2, 1, 1)).softmax(-1)[:, 0]
    assert chosen[0, 0] > 0.95
    assert chosen[1, 1] > 0.95
    torch.testing.assert_close(critics(torch.ones(2, 1, 1)), torch.full((2, 1, 1), 3.0), atol=0.1, rtol=0)


def test_first_step_follows_the_policy_gradient():
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    batch = bandit(policies, [0, 1], generator)
    log_probability, _ = policies.judge(policies.net(batch.observation), batch.action)
    (-(log_probability * batch.advantage).mean(1).sum()).backward()
    expected = [parameter.grad.clone() for parameter in policies.parameters()]
    before = [parameter.detach().clone() for parameter in policies.parameters()]
    optimiser = torch.optim.SGD([join(policies, critics)], lr=0.1)
    one_step = PPOConfig(epochs=1, minibatches=1, clip=0.2, entropy=0.0, kl_limit=1.0, gradient_norm=1e9)
    improve(policies, critics, optimiser, batch, one_step, generator)
    for parameter, start, gradient in zip(policies.parameters(), before, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), start - 0.1 * gradient)


ACTIONS = {
    "bounded": BoxActions(np.array([-1.0, 0.0]), np.array([1.0, 2.0])),
    "unbounded": BoxActions(np.array([-np.inf, 0.0]), np.array([np.inf, 2.0])),
    "discrete": DiscreteActions(4),
}


def loss_of(policies, critics, batch, learns):
    """The loss that an update descends, written down once more for automatic differentiation."""
    parameters = policies.squash(policies.net(batch.observation))
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


@pytest.mark.parametrize("trunk", ["own", "shared"])
@pytest.mark.parametrize("kind", ACTIONS)
def test_gradients_by_hand_equal_automatic_ones(kind, trunk, monkeypatch):
    generator, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    policies = Policies(3, 4, ACTIONS[kind], hidden=(8, 6), trunk=trunk, sigma=0.5, generator=generator)
    critics = Critics(3, 4, 5, hidden=(8, 6), generator=generator)
    joint, learns = join(policies, critics), torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        joint += 0.2 * torch.randn(joint.shape, generator=draw)
    observation = torch.randn(3, 20, 4, generator=draw)
    with torch.no_grad():
        action, log_probability = policies.act(observation, draw)
    shift, advantage = (torch.randn(3, 20, generator=draw) for _ in range(2))
    targets = torch.randn(3, 20, 5, generator=draw)
    batch = Experience(observation, action, log_probability + 0.2 * shift, advantage, targets)
    parameters = [*policies.parameters(), *critics.parameters()]
    expected = torch.autograd.grad(loss_of(policies, critics, batch, learns), parameters)
    monkeypatch.setattr("rmdp.ppo.clip_per_representative", lambda *_: None)
    config = PPOConfig(epochs=1, minibatches=1, clip=0.1, entropy=0.3, kl_limit=1.0, gradient_norm=1.0)
    _step(policies, critics, torch.optim.SGD([joint], lr=0.0), batch, learns, config)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(joint.grad, torch.cat([gradient.flatten() for gradient in expected]))


def test_joined_parameters_move_with_their_vector():
    policies, critics = networks()
    saved = {name: value.clone() for name, value in critics.state_dict().items()}
    joint = join(policies, critics)
    with torch.no_grad():
        joint += 1
    for name, value in critics.state_dict().items():
        torch.testing.assert_close(value, saved[name] + 1)
    critics.load_state_dict(saved)
    torch.testing.assert_close(joint[-1], saved["net.2.bias"].flatten()[-1], check_dtype=False)


def test_representative_beyond_the_kl_limit_rests_after_the_pass():
    strides = []
    for epochs in (1, 3):
        (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
        batch = bandit(policies, [0, 1], generator)
        shift = torch.tensor([[1.0], [0.0]])  # the first representative's samples look as if drawn by another policy
        batch = batch._replace(log_probability=batch.log_probability + shift)
        before = policies.net[-1].weight.detach().clone()
        optimiser = torch.optim.Adam([join(policies, critics)], lr=1e-3)
        limited = PPOConfig(epochs, 1, clip=0.9, entropy=0.0, kl_limit=0.1, gradient_norm=0.5)
        improve(policies, critics, optimiser, batch, limited, generator)
        strides.append((policies.net[-1].weight.detach() - before).flatten(1).norm(dim=1))
    assert strides[0].min() > 0
    assert strides[0][0] == strides[1][0]
    assert strides[1][1] > 2 * strides[0][1]


def test_gradients_are_clipped_one_by_one():
    policies, _ = networks()
    for parameter in policies.parameters():
        parameter.grad = torch.zeros_like(parameter)
    policies.net[0].weight.grad[0], policies.net[0].weight.grad[1] = 30.0, 0.01
    clip_per_representative(policies, 2, 0.5)
    gradient = policies.net[0].weight.grad
    assert gradient[0].norm().item() == pytest.approx(0.5)
    torch.testing.assert_close(gradient[1], torch.full_like(gradient[1], 0.01))
