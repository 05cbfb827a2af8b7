"""Pictures of environments without a window: robots by MuJoCo's renderer, walks by matplotlib, others by themselves.

A stage plays k copies, one for each representative, and paints the k pictures of the present moment.
"""

import os
import subprocess
import sys
from typing import Any, Protocol

import gymnasium
import numpy as np
from gt_core.errors import InputError
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rmdp.config import TrainConfig
from rmdp.envs.batch import BatchEnv
from rmdp.envs.gym import GymBatch
from rmdp.envs.robots import ROBOTS
from rmdp.setup import build_env

__all__ = ["GymStage", "Picture", "RobotStage", "Stage", "choose_renderer", "figure_picture", "make_stage"]

Picture = NDArray[np.uint8]
"""Height x width x 3."""

_BACKENDS = ("egl", "osmesa")
_PROBE = "import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); context.free()"
_SIZE = 240


class Stage(Protocol):
    """Environments that can be painted.

    Attributes:
        env: k copies.
        step_seconds: How long a step lasts, in seconds.
    """

    env: BatchEnv
    step_seconds: float

    def pictures(self) -> list[Picture]:
        """One picture of each copy, all of the same size."""
        ...

    def close(self) -> None:
        """Release the environments and the renderer."""
        ...


def make_stage(config: TrainConfig, generator: np.random.Generator) -> Stage:
    """The stage of a robot or of a Gymnasium environment.

    Raises:
        InputError: Nothing can render here, or the environment paints no pictures.
    """
    return RobotStage(config, generator) if config.env in ROBOTS else GymStage(config, generator)


class RobotStage:
    """Robots before a camera that follows them; a `Stage`."""

    def __init__(self, config: TrainConfig, generator: np.random.Generator) -> None:
        choose_renderer()
        import mujoco

        from rmdp.envs.mujoco import MujocoBatch

        env = build_env(config, 1, generator)
        if not isinstance(env, MujocoBatch):
            raise TypeError(f"{config.env} is no robot")
        self.env: BatchEnv = env
        self.model, self._mujoco = env.model, mujoco
        self.step_seconds = env.model.opt.timestep * env.robot.frame_skip
        self._data = mujoco.MjData(env.model)
        try:
            self._renderer = mujoco.Renderer(env.model, _SIZE, _SIZE * 4 // 3)
        except Exception as error:  # whatever the graphics library raises
            raise InputError(f"MuJoCo cannot render ({error}): {_REMEDY}") from error

    def pictures(self) -> list[Picture]:
        """See `Stage`."""
        return [self._picture(state) for state in self.env.state()["physics"]]

    def _picture(self, state: NDArray[np.float64]) -> Picture:
        mujoco = self._mujoco
        mujoco.mj_setState(self.model, self._data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        mujoco.mj_forward(self.model, self._data)
        self._renderer.update_scene(self._data, camera="track")
        return np.array(self._renderer.render())

    def close(self) -> None:
        """See `Stage`."""
        self._renderer.close()
        self.env.close()


class GymStage:
    """An environment that paints itself (`render_mode="rgb_array"`); a `Stage`."""

    def __init__(self, config: TrainConfig, generator: np.random.Generator) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame opens no window, and looks for no desktop
        try:
            env = GymBatch(config.env, config.k, generator, {"render_mode": "rgb_array"})
        except (TypeError, gymnasium.error.Error) as error:
            raise InputError(f"{config.env} paints no pictures: {error}") from error
        self.env: BatchEnv = env
        self._gym = env
        self.step_seconds = 1 / env.frames_per_second

    def pictures(self) -> list[Picture]:
        """See `Stage`."""
        try:
            return self._gym.render()
        except gymnasium.error.Error as error:
            raise InputError(f"painting failed: {error}") from error

    def close(self) -> None:
        """See `Stage`."""
        self.env.close()


_REMEDY = (
    "install Mesa's EGL (Debian: apt install libegl1 libgl1-mesa-dri) or OSMesa (libosmesa6), or set MUJOCO_GL to a "
    "renderer that works here"
)


def choose_renderer() -> None:
    """Set MUJOCO_GL, which MuJoCo reads when it is imported, to a renderer without a window that works here.

    One that is set already is left alone. Each is tried in a process of its own, for a graphics library that fails can
    take the process with it and cannot be exchanged for another.

    Raises:
        InputError: None works.
    """
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return
    reasons = []
    for name in _BACKENDS:
        tried = subprocess.run(  # noqa: S603 (our own interpreter and text)
            [sys.executable, "-c", _PROBE], env=os.environ | {"MUJOCO_GL": name}, capture_output=True, text=True
        )
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = name
            return
        reasons.append(f"{name}: {(tried.stderr.strip() or 'crashed').splitlines()[-1]}")
    raise InputError(f"MuJoCo cannot render without a window ({'; '.join(reasons)}): {_REMEDY}")


def figure_picture(figure: Figure) -> Picture:
    """A matplotlib figure as a picture."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
