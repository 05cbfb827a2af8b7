"""Two rounds: an asymmetric prisoner's dilemma, then the ordinary one.

=============  ====================================================================================
actions        0 = defect (D), 1 = cooperate (C)
payoffs        round 1: DD (0, 0); DC (7, -5); CD (-5, 7); CC (-1, 4)
               round 2: DD (0, 0); DC (7, -5); CD (-5, 7); CC (2, 2)
observations   the round, one-hot `[2]`, for agents and mediator
arguments      none
episode        two steps, then terminated
equilibrium    round 1 at CC costs agent 0 one unit.  Deciding anew each round it stays out (welfare 4); if
               staying out bars it from round 2 as well, it commits (welfare 7); a mediator under incentive
               compatibility lets agent 0 cooperate with probability 7/8 (welfare 6.875)
history        0.1.0 first version; payoffs of the paper's second example
=============  ====================================================================================
"""

from mediated_marl.games.prisoners_dilemma import PAYOFFS
from mediated_marl.games.repeated_matrix import RepeatedMatrixGame

__all__ = ["two_step_prisoners_dilemma"]

FIRST_ROUND = (((0.0, 0.0), (7.0, -5.0)), ((-5.0, 7.0), (-1.0, 4.0)))


def two_step_prisoners_dilemma() -> RepeatedMatrixGame:
    """The game of the table above."""
    return RepeatedMatrixGame([FIRST_ROUND, PAYOFFS], name="two-step-pd")
