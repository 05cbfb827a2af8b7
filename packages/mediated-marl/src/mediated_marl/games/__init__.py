"""The games, batched: leading dimensions are free (say seeds x games), the last one counts the agents.

One game per file.  Every game follows `mediated_marl.games.protocol.Game`; the functions among these names return a
configured `MatrixGame` or `RepeatedMatrixGame`.
"""

from mediated_marl.games.coin import CoinGame
from mediated_marl.games.iterated_public_goods import IteratedPublicGoodsGame
from mediated_marl.games.matrix import MatrixGame
from mediated_marl.games.prisoners_dilemma import prisoners_dilemma
from mediated_marl.games.protocol import Game, Step
from mediated_marl.games.public_goods import PublicGoodsGame
from mediated_marl.games.randomised_prisoners_dilemma import RandomisedPrisonersDilemma
from mediated_marl.games.repeated_matrix import RepeatedMatrixGame
from mediated_marl.games.sacrifice import sacrifice
from mediated_marl.games.two_step_prisoners_dilemma import two_step_prisoners_dilemma

__all__ = [
    "CoinGame",
    "Game",
    "IteratedPublicGoodsGame",
    "MatrixGame",
    "PublicGoodsGame",
    "RandomisedPrisonersDilemma",
    "RepeatedMatrixGame",
    "Step",
    "prisoners_dilemma",
    "sacrifice",
    "two_step_prisoners_dilemma",
]
