"""Sacrifice: one agent can give up its payoff for the other's.

=============  ====================================================================================
actions        0 = defect (D), 1 = cooperate (C), 2 = sacrifice (S)
payoffs        agent 0 chooses the row, agent 1 the column:

               ====  ======  ======  ======
               ..    D       C       S
               ====  ======  ======  ======
               D     (1, 1)  (3, 0)  (5, 0)
               C     (0, 3)  (2, 2)  (5, 0)
               S     (0, 0)  (0, 0)  (0, 0)
               ====  ======  ======  ======

observations   one constant, 1
arguments      none
episode        one step, then terminated
equilibrium    without mediator (1, 1).  A naive mediator would sacrifice agent 1 (sum 5), which therefore stays
               out; under incentive compatibility it gets half S, half C against C: (3.5, 1), welfare 4.5
history        0.1.0 first version; payoffs of the paper's third example
=============  ====================================================================================
"""

from mediated_marl.games.matrix import MatrixGame

__all__ = ["sacrifice"]

PAYOFFS = (
    ((1.0, 1.0), (3.0, 0.0), (5.0, 0.0)),
    ((0.0, 3.0), (2.0, 2.0), (5.0, 0.0)),
    ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
)


def sacrifice() -> MatrixGame:
    """The game of the table above."""
    return MatrixGame(PAYOFFS, name="sacrifice")
