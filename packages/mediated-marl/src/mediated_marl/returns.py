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

import torch
from torch import Tensor

__all__ = ["bootstrapped_returns"]


def bootstrapped_returns(
    rewards: Tensor, following: Tensor, shares: Tensor, continues: Tensor, discount: float
) -> Tensor:
    """The recursion above over dimension 1.

    Args:
        rewards: `[S, T, *batch]`.
        following: `[S, T, *batch]`, `V_(t+1)`.
        shares: `[S, T, *batch]`, `w_t`; the last step's is taken to be 1.
        continues: `[S, T, *batch]`, `c_t`.
        discount: gamma.

    Returns:
        `[S, T, *batch]`.
    """
    ahead, returns = following[:, -1], []
    for step in reversed(range(rewards.shape[1])):
        mixed = torch.lerp(ahead, following[:, step], shares[:, step])
        ahead = rewards[:, step] + discount * continues[:, step] * mixed
        returns.append(ahead)
    return torch.stack(returns[::-1], 1)
