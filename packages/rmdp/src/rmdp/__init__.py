"""Personalised reinforcement learning with a budget of policies: n users served by k representatives."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmdp.api import RMDP, load_pretrained

__all__ = ["RMDP", "load_pretrained"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
    """Import the Python interface when it is asked for: the commands answer `--help` without torch."""
    if name in __all__:
        from rmdp import api

        return getattr(api, name)
    raise AttributeError(f"module 'rmdp' has no attribute {name!r}")
