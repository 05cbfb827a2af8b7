"""How far a network's outcomes are from those of another mechanism (paper's code, distillation).

At a profile of bids b a student is from its teacher

    D(b) = sum_i KL(Bernoulli(f_i^T) || Bernoulli(f_i^S)) + sum_j KL(g_j^T || g_j^S),

where f are payment fractions, p_i = f_i sum_j g_ij b_ij, and g_j is the distribution of item j over the bidders and
"unsold"; inside the logarithms 1e-5 is added. A fraction of nothing means nothing: where the teacher gives a bidder
lotteries worth less than 1e-5, its fraction is left out.
"""

import torch
from torch import Tensor

from regretformer.auction import Outcome

__all__ = ["divergence"]

_EPS = 1e-5


def divergence(teacher: Outcome, student: tuple[Tensor, Tensor], bids: Tensor) -> Tensor:
    """How far a student is from its teacher at each profile, in nats, [B].

    Args:
        teacher: allocation [B, n, m] and payments [B, n].
        student: allocation [B, n, m] and payment fractions [B, n].
        bids: [B, n, m].
    """
    allocation, fractions = student
    worth = (teacher.allocation * bids).sum(-1)
    taught = (teacher.payments / worth.clamp_min(_EPS)).clamp(0, 1)
    of_fractions = _kl(_complete(taught.unsqueeze(1)), _complete(fractions.unsqueeze(1)))
    of_items = _kl(_complete(teacher.allocation), _complete(allocation))
    return (of_fractions * (worth > _EPS)).sum(-1) + of_items.sum(-1)


def _complete(shares: Tensor) -> Tensor:
    """Shares [B, k, c], and as one more what they leave of 1, [B, k + 1, c]."""
    return torch.cat([shares, (1 - shares.sum(1, keepdim=True)).clamp_min(0)], dim=1)


def _kl(of: Tensor, against: Tensor) -> Tensor:
    """Kullback-Leibler divergence of distributions along the second axis, [B, k, c] to [B, c]."""
    return (of * ((of + _EPS).log() - (against + _EPS).log())).sum(1)
