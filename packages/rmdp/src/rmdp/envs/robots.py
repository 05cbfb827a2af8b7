"""The robots stepped natively: what distinguishes one environment from another, as data.

Values are those of `gymnasium.envs.mujoco`, versions 4 and 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["HORIZON", "ROBOTS", "Robot"]

HORIZON = 1000
"""Steps after which an episode is truncated."""


@dataclass(frozen=True)
class Robot:
    """What distinguishes one robot's environment from another's; see the fields."""

    asset: str
    """File name of the model."""
    frame_skip: int
    """Simulator steps per environment step."""
    hidden: int = 1
    """How many leading positions (the place on the plane) are not observed."""
    reset_noise: float = 5e-3
    """Half-width of the uniform noise on the initial positions."""
    normal_velocity_noise: bool = False
    """Whether initial velocities are normal with that standard deviation; uniform otherwise."""
    velocity_limit: float = np.inf
    """Observed velocities are clipped to plus or minus this."""
    height: int = 1
    """Index of the height among the positions."""
    healthy_height: tuple[float, float] = (-np.inf, np.inf)
    """Heights in metres outside of which the robot has fallen."""
    healthy_angle: tuple[float, float] = (-np.inf, np.inf)
    """Torso angles in radians (position 2) outside of which the robot has fallen."""
    healthy_state: float = np.inf
    """Bound on every other position and velocity."""
    closed_interval: bool = False
    """Whether the ends of the healthy heights are healthy."""
    torso: bool = False
    """Whether Gymnasium measures the velocity at the torso's body."""
    contacts: bool = False
    """Whether contact forces are observed."""


_CHEETAH = Robot("half_cheetah.xml", 5, reset_noise=0.1, normal_velocity_noise=True)
_HOPPER = Robot(
    "hopper.xml", 4, velocity_limit=10, healthy_height=(0.7, np.inf), healthy_angle=(-0.2, 0.2), healthy_state=100
)
_WALKER: dict[str, Any] = {"velocity_limit": 10, "healthy_height": (0.8, 2.0), "healthy_angle": (-1.0, 1.0)}
_ANT: dict[str, Any] = {
    "hidden": 2,
    "reset_noise": 0.1,
    "normal_velocity_noise": True,
    "height": 2,
    "healthy_height": (0.2, 1.0),
    "closed_interval": True,
    "torso": True,
}

ROBOTS: Mapping[str, Robot] = {
    "HalfCheetah-v4": _CHEETAH,
    "HalfCheetah-v5": _CHEETAH,
    "Hopper-v4": _HOPPER,
    "Hopper-v5": _HOPPER,
    "Walker2d-v4": Robot("walker2d.xml", 4, **_WALKER),
    "Walker2d-v5": Robot("walker2d_v5.xml", 4, **_WALKER),
    "Ant-v4": Robot("ant.xml", 5, **_ANT),
    "Ant-v5": Robot("ant.xml", 5, **_ANT, contacts=True),
}
"""The environments of this module by their Gymnasium name."""
