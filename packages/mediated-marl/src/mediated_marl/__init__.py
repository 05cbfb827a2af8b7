"""Markov games with a mediator: agents may hand their move to a mediator, who acts for all who did.

The system follows "Mediated Multi-Agent Reinforcement Learning" (arXiv 2306.08419, AAMAS 2023).  Where to look:

- `games`: the games as batched tensor environments, one per file.
- `pettingzoo`, `two_phase`: a ParallelEnv face for each of them, a mediator around anybody's game, and as an agent.
- `coalitions`, `commitment`: who committed, and for how long.
- `exact`, `one_step`: expected payoffs of one-step games, exactly and differentiably.
- `equilibria`, `closed_forms`: what the best mediator can reach, by linear programming and by formula.
- `constraints`, `networks`, `players`: what is learnt, and under which Lagrangian.
- `train`, `sampled`: learning in one-step games with exact gradients, and from played games.
- `rollout`, `returns`, `markov`, `markov_players`, `markov_multipliers`: learning in games of several steps.
- `parallel_arena`: the same in anybody's PettingZoo environment.
- `backward_induction`, `coin_rounds`, `markov_audit`: values and audits of games of several steps, exact where they can
  be enumerated; `optimum`: the largest welfare there, and an equilibrium without mediator.
- `audit`: what a learnt mediator is worth, and who would deviate.
- `evaluate`, `plot`, `table`: finished runs in played games, in pictures, and beside the paper's table.
- `cli`: the commands.
"""
