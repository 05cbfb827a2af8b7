r"""Returns of played episodes: one recursion for everybody.

    G_t = r_t + gamma * c_t * (w_t * V_(t+1) + (1 - w_t) * G_(t+1))

`V_(t+1)` is the critic's value of what follows step t, `c_t` is 0 where the agent's game ended by its own rules, and
`w_t` in [0, 1] is how much of the future is left to the critic:

- `1 - decay` between two decisions: the lambda-return, whose difference from `V_t` is generalised advantage estimation
  (Schulman et al., arXiv:1506.02438); 1 is the paper's one-step target, 0 the played return;
- 0 while an agent is locked in, so that the steps between two decisions make one macro-transition
  `sum_j gamma^j r_(t+j) + gamma^k V_(t+k)`;
- 1 where the episode is cut, and where the next step was not taken by those whose value is meant.
"""

import numpy as np

from mediated_marl.by_hand import Array

__all__ = ["bootstrapped_returns"]


def bootstrapped_returns(rewards: Array, following: Array, shares: Array, continues: Array, discount: float) -> Array:
    """The recursion above over the last dimension but one.

    Args:
        rewards: `[*, T, B]`.
        following: `[*, T, B]`, `V_(t+1)`.
        shares: `[*, T, B]`, `w_t`; the last step's is taken to be 1.
        continues: `[*, T, B]`, `c_t`.
        discount: gamma.

    Returns:
        `[*, T, B]`.
    """
    ahead, returns = following[..., -1, :], np.empty_like(rewards)
    for step in reversed(range(rewards.shape[-2])):
        mixed = ahead + shares[..., step, :] * (following[..., step, :] - ahead)
        ahead = rewards[..., step, :] + discount * continues[..., step, :] * mixed
        returns[..., step, :] = ahead
    return returns
