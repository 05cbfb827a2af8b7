"""Personalised reinforcement learning with a budget of policies: n users served by k representatives."""
