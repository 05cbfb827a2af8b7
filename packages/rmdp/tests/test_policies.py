"""Stacked policies, critics and observation statistics."""

import math

import numpy as np
import pytest
import torch

from rmdp.distributions import distribution_of
from rmdp.envs.batch import BoxActions, DiscreteActions
from rmdp.policies import Critics, ObservationMoments, Policies
from rmdp.rollout import Actors

BOX = BoxActions(np.array([-2.0, 0.0]), np.array([2.0, 1.0]))


def policies(actions=BOX, trunk="own", k=3):
    generator = torch.Generator().manual_seed(0)
    return Policies(k, 4, actions, hidden=(8, 8), trunk=trunk, sigma=0.5, generator=generator)


def observations(k=3, batch=6):
    return torch.randn(k, batch, 4, generator=torch.Generator().manual_seed(1))


def draw(nets, seen, generator):
    actors = Actors(nets, *seen.shape[:2])
    return map(torch.from_numpy, actors.act(seen.numpy(), *actors.noise(generator)))


def judge(nets, seen, action):
    """Log-probabilities and entropy as learning sees them."""
    output = nets.net(seen).detach().numpy()
    return [torch.from_numpy(part) for part in distribution_of(nets).judge(output, action.numpy())]


def test_each_policy_is_its_own_slice_of_the_stack():
    nets, seen = policies(), observations()
    mean = nets.mode(seen)
    for j in range(3):
        hidden = seen[j]
        for layer in (0, 2):
            hidden = torch.tanh(hidden @ nets.net[layer].weight[j] + nets.net[layer].bias[j])
        by_hand = torch.tanh(hidden @ nets.net[4].weight[j] + nets.net[4].bias[j])
        torch.testing.assert_close(mean[j], by_hand)


@pytest.mark.parametrize(("trunk", "others_move"), [("own", False), ("shared", True)])
def test_one_users_gradient_reaches_other_policies_through_a_shared_trunk_only(trunk, others_move):
    nets, seen = policies(trunk=trunk), observations()
    nets.mode(seen)[0].square().sum().backward()
    reached = nets.net[0].weight.grad.flatten(1).abs().sum(1)
    assert (len(reached) == 1) == others_move
    assert reached[0] > 0
    assert not reached[1:].any()
    assert not nets.net[4].weight.grad[1:].any()


def test_box_probabilities_equal_torchs():
    nets, seen = policies(), observations()
    action, log_probability = draw(nets, seen, torch.Generator().manual_seed(2))
    expected = torch.distributions.Normal(nets.mode(seen), nets.log_sigma.exp().expand(3, 6, 2))
    torch.testing.assert_close(log_probability, expected.log_prob(action).sum(-1))
    judged, entropy = judge(nets, seen, action)
    torch.testing.assert_close(judged, log_probability)
    torch.testing.assert_close(entropy, expected.entropy().sum(-1)[:, 0])


def test_discrete_probabilities_equal_torchs():
    nets, seen = policies(DiscreteActions(5)), observations()
    action, log_probability = draw(nets, seen, torch.Generator().manual_seed(2))
    expected = torch.distributions.Categorical(logits=nets.net(seen))
    torch.testing.assert_close(log_probability, expected.log_prob(action))
    torch.testing.assert_close(judge(nets, seen, action)[1], expected.entropy().mean(1))
    torch.testing.assert_close(nets.mode(seen), expected.logits.argmax(-1))


def test_draws_follow_the_distribution():
    nets = policies(k=1)
    seen = observations(1, 1).expand(1, 20_000, 4)
    action, _ = draw(nets, seen, torch.Generator().manual_seed(3))
    torch.testing.assert_close(action.mean(1), nets.mode(seen)[:, 0], atol=0.02, rtol=0)
    torch.testing.assert_close(action.std(1), torch.full((1, 2), 0.5), atol=0.02, rtol=0)


def test_actions_fill_the_environments_range_and_stop_at_its_bounds():
    action = torch.tensor([[-3.0, -1.0], [0.0, 0.0], [1.0, 7.0]])
    played = policies().to_environment(action)
    torch.testing.assert_close(played, torch.tensor([[-2.0, 0.0], [0.0, 0.5], [2.0, 1.0]]))
    half_open = BoxActions(np.array([-np.inf, 0.0]), np.array([np.inf, np.inf]))
    torch.testing.assert_close(policies(half_open).to_environment(action[:1]), torch.tensor([[-3.0, 0.0]]))


def test_sigma_is_trained():
    nets = policies()
    assert any(parameter is nets.log_sigma for parameter in nets.parameters())
    assert nets.log_sigma.exp().flatten()[0].item() == pytest.approx(0.5)


def test_critics_value_every_user():
    critics = Critics(3, 4, 7, hidden=(8, 8), generator=torch.Generator().manual_seed(0))
    assert critics(observations()).shape == (3, 6, 7)


def test_shared_critic_is_told_the_representative_by_a_one_hot_vector():
    critics, seen = (
        Critics(3, 4, 7, hidden=(8,), sharing="shared", generator=torch.Generator().manual_seed(0)),
        observations(),
    )
    first, head = critics.net[0], critics.net[2]
    matrix = torch.cat([first.weight[0], first.bias[:, 0]])
    torch.testing.assert_close(matrix @ matrix.T, 2 * torch.eye(7))  # orthogonal, gain sqrt(2)
    told = torch.cat([seen, torch.eye(3)[:, None].expand(3, 6, 3)], -1)
    by_hand = torch.tanh(told @ matrix) @ head.weight[0] + head.bias[0]
    torch.testing.assert_close(critics(seen), by_hand)
    assert not torch.allclose(*critics(seen[:1].expand(3, 6, 4))[:2])


def test_moments_equal_those_of_all_observations_at_once():
    generator, moments = np.random.default_rng(0), ObservationMoments(3)
    raw = torch.tensor([[10.0, 0.0, -5.0]])
    torch.testing.assert_close(moments.normalise(raw.numpy()), raw)  # nothing known: as they are
    batches = [generator.normal([3.0, 0.0, -1.0], [2.0, 0.1, 5.0], (size, 4, 3)) for size in (2, 50, 7)]
    for batch in batches:
        moments.observe(batch)
    everything = np.concatenate(batches).reshape(-1, 3)
    seen = moments.normalise(everything)
    expected = np.clip((everything - everything.mean(0)) / everything.std(0), -5, 5)
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-4)


def test_normalised_observations_are_bounded():
    moments = ObservationMoments(1)
    moments.observe(np.array([[0.0], [2.0]]))
    torch.testing.assert_close(moments.normalise(np.array([[1.0], [2.0], [1e6]])), torch.tensor([[0.0], [1.0], [5.0]]))


def test_initial_spread_is_the_entropy_of_a_normal():
    entropy = judge(policies(), observations(), torch.zeros(3, 6, 2))[1]
    assert entropy[0].item() == pytest.approx(2 * (math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e)), rel=1e-5)
