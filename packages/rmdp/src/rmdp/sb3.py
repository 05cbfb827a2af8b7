"""A representative as a Stable-Baselines3 model: needs the extra rmdp[export].

- Box actions: the actor of TD3, whose tanh and rescaling to the bounds are those of `rmdp.policies`;
- Discrete actions: the actor of PPO, whose prediction is the largest logit.

The observation statistics are the features extractor, so that `predict` takes raw observations. Only the actor is
trained; critics are not exported, for they value users rather than one reward.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from rmdp.actor import Actor
from rmdp.envs.batch import Actions, DiscreteActions

__all__ = ["NormalisedObservations", "stable_baselines3_model"]


class NormalisedObservations(BaseFeaturesExtractor):
    """Observation statistics at the entrance of a Stable-Baselines3 policy.

    Args:
        observation_space: A Box of one dimension.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    limit: torch.Tensor

    def __init__(self, observation_space: spaces.Box) -> None:
        size = int(observation_space.shape[0])
        super().__init__(observation_space, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("limit", torch.tensor(torch.inf))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Raw observations (B, D) as the policy sees them."""
        return torch.clamp((observations - self.mean) / self.deviation, -self.limit, self.limit)


class _Spaces(gymnasium.Env[Any, Any]):
    """Nothing but the two spaces a model is constructed from."""

    def __init__(self, observation_size: int, actions: Actions) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_size,), np.float32)
        self.action_space = (
            spaces.Discrete(actions.count)
            if isinstance(actions, DiscreteActions)
            else spaces.Box(actions.low.astype(np.float32), actions.high.astype(np.float32))
        )


def stable_baselines3_model(actor: Actor, actions: Actions) -> BaseAlgorithm:
    """A model whose deterministic prediction is the actor's."""
    linears = [layer for layer in actor.net if isinstance(layer, nn.Linear)]
    env = _Spaces(linears[0].in_features, actions)
    hidden = [layer.out_features for layer in linears[:-1]]
    shared: dict[str, Any] = {"activation_fn": nn.Tanh, "features_extractor_class": NormalisedObservations}
    model: BaseAlgorithm
    if actor.discrete:
        architecture = {"pi": hidden, "vf": [1]}
        model = PPO(
            "MlpPolicy", env, n_steps=2, batch_size=2, device="cpu", policy_kwargs=shared | {"net_arch": architecture}
        )
        entrance = model.policy.features_extractor
        layers = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    else:
        architecture = {"pi": hidden, "qf": [1]}
        model = TD3("MlpPolicy", env, buffer_size=1, device="cpu", policy_kwargs=shared | {"net_arch": architecture})
        entrance = model.policy.actor.features_extractor
        layers = list(model.policy.actor.mu)
    with torch.no_grad():
        for name in ("mean", "deviation", "limit"):
            getattr(entrance, name).copy_(getattr(actor, name))
        for ours, theirs in zip(linears, (layer for layer in layers if isinstance(layer, nn.Linear)), strict=True):
            theirs.load_state_dict(ours.state_dict())
    return model
