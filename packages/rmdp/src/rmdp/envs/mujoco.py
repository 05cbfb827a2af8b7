"""HalfCheetah, Hopper, Walker2d and Ant, stepped natively in batches.

The dynamics, observations, resets and terminations are those of Gymnasium's environments of the same name and version
(`gymnasium.envs.mujoco`), whose model files are used; their rewards are left out, since rewards belong to the users.
An observation is the generalised positions without the place on the plane, then the generalised velocities, then, in
Ant-v5, the contact forces clipped to [-1, 1].

The step's information: `x_velocity`, the forward velocity in m/s averaged over the step, (x' - x) / dt, and
`x_position` in metres.

`exact=True` gives trajectories equal to Gymnasium's bit for bit; the default is the faster native pool, which differs
in the last bits (`rmdp.envs.physics`). Ant-v5 observes contact forces, which the pool does not return, so it always
runs in the exact way.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gt_core.errors import InputError
from numpy.typing import NDArray

from rmdp.envs.batch import BoxActions, Step, require_copies
from rmdp.envs.generators import generator_words, restore_generators, spawn
from rmdp.envs.physics import Array, Copies, ExactPhysics, RolloutPhysics, load_model
from rmdp.envs.robots import HORIZON, ROBOTS, Robot

__all__ = ["MujocoBatch"]

_ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class MujocoBatch:
    """B copies of a robot; a `BatchEnv`.

    Args:
        name: A key of `ROBOTS`.
        copies: B.
        generator: Source of one generator per copy for the reset noise; or the B generators themselves.
        threads: Native threads; 0 takes every core this process may use.
        exact: Move the copies exactly as Gymnasium does.
        healthy_height: Replaces the robot's range of healthy heights, in metres (the paper's Ant has 0.4 to 1).

    Attributes:
        model: the compiled MuJoCo model, for rendering and measuring.
        threads: how many threads move the copies.
        elapsed: (B,) steps since each copy's reset; writable, to start copies at different phases of the time limit.

    Raises:
        InputError: Unknown name, no copies, negative threads, a reversed range, or not one generator per copy.
    """

    def __init__(
        self,
        name: str,
        copies: int,
        generator: np.random.Generator | Sequence[np.random.Generator],
        *,
        threads: int = 0,
        exact: bool = False,
        healthy_height: tuple[float, float] | None = None,
    ) -> None:
        self.copies = require_copies(copies)
        self.robot = _robot(name)
        self._healthy_height = _interval(healthy_height or self.robot.healthy_height)
        limits = *self._healthy_height, *self.robot.healthy_angle, self.robot.healthy_state
        self._falls = bool(np.isfinite(limits).any())
        self._generators = _per_copy(generator, copies)
        self.threads = _threads(threads, copies)
        self.model = model = load_model(_ASSETS / self.robot.asset)
        self._physics = _physics(self.robot, model, copies, threads=self.threads, exact=exact)
        self._nq, self._timestep = model.nq, model.opt.timestep * self.robot.frame_skip
        self._rest = model.qpos0.copy()
        bounds = model.actuator_ctrlrange.astype(np.float32)
        self.actions = BoxActions(bounds[:, 0], bounds[:, 1])
        self.horizon: int | None = HORIZON
        self.diverged, self._counting = 0, Lock()
        self.elapsed = np.zeros(copies, dtype=np.int64)
        self._observation = self._observe()
        self.observation_size = self._observation.shape[1]

    def reset(self) -> Array:
        """Start a new episode in every copy.

        Returns:
            Observations, (B, D).
        """
        for copy in range(self.copies):
            self._place(copy)
        self.elapsed[:] = 0
        self._observation = self._observe()
        return self._observation.copy()

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply one action per copy and reset the copies whose episode ends.

        A copy that diverges is reset, counted in `diverged` and reported as truncated at its last good observation,
        with velocity zero.

        Args:
            actions: (B, A); beyond the bounds they act as the bounds do.

        Raises:
            InputError: The shape is not (B, A), or a number is not finite.
        """
        return self._advance(slice(None), self._physics.step, actions)

    def lane(self, copies: NDArray[np.int64]) -> Callable[[NDArray[Any]], Step]:
        """A function that steps some of the copies as `step` does all.

        Lanes of different copies may run at the same time, each on a thread of its own, and need not wait for each
        other after every step.
        """
        neighbours = (np.diff(copies) == 1).all()
        chosen = slice(copies[0], copies[-1] + 1) if neighbours else copies  # what is cut out need not be copied
        return partial(self._advance, chosen, self._physics.lane(chosen))

    def _advance(self, copies: Copies, move: Callable[[Array], None], actions: NDArray[Any]) -> Step:
        self._require_actions(actions, copies)
        before = self._physics.position(copies)
        move(actions)
        after = self._physics.position(copies)
        velocity = (after - before) / self._timestep
        final, terminated, diverged = self._observe(copies), self._fallen(copies), self._physics.diverged[copies]
        self.elapsed[copies] += 1
        if diverged.any():
            with self._counting:
                self.diverged += int(diverged.sum())
            stood = self._observation[copies]
            final[diverged], velocity[diverged], after[diverged] = stood[diverged], 0.0, before[diverged]
            terminated = terminated & ~diverged
        truncated = diverged | (self.elapsed[copies] >= HORIZON)
        observation = self._restart(copies, final, terminated | truncated)
        self._observation[copies] = observation
        return Step(observation, final, terminated, truncated, {"x_velocity": velocity, "x_position": after})

    def state(self) -> dict[str, NDArray[Any]]:
        """See `BatchEnv`: positions, velocities, clocks and generators of all copies."""
        words = generator_words(self._generators)
        counters = {"elapsed": self.elapsed.copy(), "diverged": np.array(self.diverged), "generators": words}
        return self._physics.save() | counters

    def restore(self, state: Mapping[str, NDArray[Any]]) -> Array:
        """See `BatchEnv`."""
        restore_generators(self._generators, state["generators"])
        self._physics.load(state)
        self.elapsed[:] = state["elapsed"]
        self.diverged = int(state["diverged"])
        self._observation = self._observe()
        return self._observation.copy()

    def close(self) -> None:
        """Stop the threads; the batch cannot step afterwards."""
        self._physics.close()

    def _place(self, copy: int) -> None:
        """Rest pose plus noise, drawn in Gymnasium's order."""
        generator, scale = self._generators[copy], self.robot.reset_noise
        velocities = self._physics.state.shape[1] - 1 - self._nq
        noise = generator.uniform(-scale, scale, self._nq)
        if self.robot.normal_velocity_noise:
            speed = scale * generator.standard_normal(velocities)
        else:
            speed = generator.uniform(-scale, scale, velocities)
        self._physics.place(copy, self._rest + noise, speed)

    def _restart(self, copies: Copies, final: Array, ended: NDArray[np.bool_]) -> Array:
        if not ended.any():
            return final
        anew = np.arange(self.copies)[copies][ended]
        for copy in anew.tolist():
            self._place(copy)
        self.elapsed[anew] = 0
        observation = final.copy()
        observation[ended] = self._observe(anew)
        return observation

    def _observe(self, copies: Copies = slice(None)) -> Array:
        observation = self._physics.state[copies, 1 + self.robot.hidden :].copy()
        if self.robot.velocity_limit < math.inf:
            velocity = observation[:, self._nq - self.robot.hidden :]
            np.clip(velocity, -self.robot.velocity_limit, self.robot.velocity_limit, out=velocity)
        if self.robot.contacts and isinstance(self._physics, ExactPhysics):
            forces = np.clip(self._physics.contact_forces()[copies], -1.0, 1.0)
            observation = np.concatenate([observation, forces], axis=1)
        return observation

    def _fallen(self, copies: Copies) -> NDArray[np.bool_]:
        """Which copies Gymnasium would call unhealthy, (B,)."""
        state, (low, high) = self._physics.state[copies], self._healthy_height
        if not self._falls:
            return np.zeros(len(state), dtype=bool)
        height, angle = state[:, 1 + self.robot.height], state[:, 3]
        if self.robot.closed_interval:
            return ~((low <= height) & (height <= high))
        upright = (low < height) & (height < high)
        upright &= (self.robot.healthy_angle[0] < angle) & (angle < self.robot.healthy_angle[1])
        if np.isfinite(self.robot.healthy_state):
            upright &= (np.abs(state[:, 3:]) < self.robot.healthy_state).all(axis=1)
        return ~upright

    def _require_actions(self, actions: NDArray[Any], copies: Copies) -> None:
        expected = (len(self.elapsed[copies]), self.actions.size)
        if actions.shape != expected:
            raise InputError(f"expected actions of shape {expected}, got {actions.shape}")
        if not np.isfinite(actions).all():
            row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            copy = np.arange(self.copies)[copies][row]
            raise InputError(f"the action of copy {copy} is {actions[row]}: the policy left the finite numbers")


def _robot(name: str) -> Robot:
    if name not in ROBOTS:
        raise InputError(f"{name!r} is not stepped natively; choose one of {', '.join(ROBOTS)}")
    return ROBOTS[name]


def _interval(heights: tuple[float, float]) -> tuple[float, float]:
    if not heights[0] < heights[1]:
        raise InputError(f"healthy heights must be (low, high) with low < high, got {heights}")
    return heights


def _per_copy(
    generator: np.random.Generator | Sequence[np.random.Generator], copies: int
) -> Sequence[np.random.Generator]:
    if isinstance(generator, np.random.Generator):
        return spawn(generator, copies)
    if len(generator) != copies:
        raise InputError(f"{copies} copies need {copies} generators or one to derive them from, got {len(generator)}")
    return generator


def _threads(threads: int, copies: int) -> int:
    if threads < 0:
        raise InputError(f"threads must be 0 (every core) or more, got {threads}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(threads or cores, copies)


def _physics(
    robot: Robot, model: mujoco.MjModel, copies: int, *, threads: int, exact: bool
) -> RolloutPhysics | ExactPhysics:
    if exact or robot.contacts:
        return ExactPhysics(model, copies, robot.frame_skip, threads, torso=robot.torso, contacts=robot.contacts)
    return RolloutPhysics(model, copies, robot.frame_skip, threads)
