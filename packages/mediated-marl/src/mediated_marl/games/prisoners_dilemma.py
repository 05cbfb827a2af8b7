"""The prisoner's dilemma.

=============  ====================================================================================
actions        0 = defect (D), 1 = cooperate (C)
payoffs        DD (0, 0); DC (7, -5); CD (-5, 7); CC (2, 2); first letter: agent 0
observations   one constant, 1
arguments      none
episode        one step, then terminated
equilibrium    without mediator DD; with a naive mediator both commit and get (2, 2)
history        0.1.0 first version; payoffs of the paper's first example
=============  ====================================================================================
"""

from mediated_marl.games.matrix import MatrixGame

__all__ = ["prisoners_dilemma"]

PAYOFFS = (((0.0, 0.0), (7.0, -5.0)), ((-5.0, 7.0), (2.0, 2.0)))


def prisoners_dilemma() -> MatrixGame:
    """The game of the table above."""
    return MatrixGame(PAYOFFS, name="pd")
