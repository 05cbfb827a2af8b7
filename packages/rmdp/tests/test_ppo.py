"""Advantages by hand and updates on a bandit whose answer is known."""

import pytest
import torch

from rmdp.envs.batch import DiscreteActions
from rmdp.policies import Critics, Policies
from rmdp.ppo import Experience, PPOConfig, clip_per_representative, generalised_advantages, improve

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
    optimiser = torch.optim.Adam([*policies.parameters(), *critics.parameters()], lr=0.02)
    for _ in range(60):
        improve(policies, critics, optimiser, bandit(policies, [0, 1], generator), CONFIG, generator)
    chosen = policies.net(torch.ones(2, 1, 1)).softmax(-1)[:, 0]
    assert chosen[0, 0] > 0.95
    assert chosen[1, 1] > 0.95
    torch.testing.assert_close(critics(torch.ones(2, 1, 1)), torch.full((2, 1, 1), 3.0), atol=0.1, rtol=0)


def test_first_step_follows_the_policy_gradient():
    (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
    batch = bandit(policies, [0, 1], generator)
    log_probability, _ = policies.judge(batch.observation, batch.action)
    (-(log_probability * batch.advantage).mean(1).sum()).backward()
    expected = [parameter.grad.clone() for parameter in policies.parameters()]
    before = [parameter.detach().clone() for parameter in policies.parameters()]
    optimiser = torch.optim.SGD([*policies.parameters(), *critics.parameters()], lr=0.1)
    one_step = PPOConfig(epochs=1, minibatches=1, clip=0.2, entropy=0.0, kl_limit=1.0, gradient_norm=1e9)
    improve(policies, critics, optimiser, batch, one_step, generator)
    for parameter, start, gradient in zip(policies.parameters(), before, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), start - 0.1 * gradient)


def test_representative_beyond_the_kl_limit_rests_after_the_pass():
    strides = []
    for epochs in (1, 3):
        (policies, critics), generator = networks(), torch.Generator().manual_seed(1)
        batch = bandit(policies, [0, 1], generator)
        shift = torch.tensor([[1.0], [0.0]])  # the first representative's samples look as if drawn by another policy
        batch = batch._replace(log_probability=batch.log_probability + shift)
        before = policies.net[-1].weight.detach().clone()
        optimiser = torch.optim.Adam([*policies.parameters(), *critics.parameters()], lr=1e-3)
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
    clip_per_representative([policies], 2, 0.5)
    gradient = policies.net[0].weight.grad
    assert gradient[0].norm().item() == pytest.approx(0.5)
    torch.testing.assert_close(gradient[1], torch.full_like(gradient[1], 0.01))
