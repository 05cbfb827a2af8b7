"""Errors that a person can act on.

Each message names the value that was wrong and the remedy. Commands print the message alone and exit with status 2;
library users catch `ValueError`.
"""

__all__ = ["CheckpointError", "InputError", "NumericalError", "RunError"]


class InputError(ValueError):
    """A value given by the user cannot be used."""


class RunError(InputError):
    """A run directory cannot be created, continued or read."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete or altered."""


class NumericalError(ArithmeticError):
    """A quantity of the computation became NaN or infinite."""
