"""Batched MuJoCo physics: B copies of one model, moved by `frame_skip` simulator steps at a time.

The state of a copy is `[time, q, v]`: seconds, generalised positions, generalised velocities. Two ways to move it:

- `RolloutPhysics` hands all copies to MuJoCo's native thread pool (`mujoco.rollout`). The constraint solver starts
  cold at every call, because the pool takes a warm start but returns none: same dynamics, other last bits.
- `ExactPhysics` keeps one `MjData` per copy and repeats Gymnasium's calls in Gymnasium's order from Python threads
  (MuJoCo drops the interpreter lock), which makes trajectories equal to Gymnasium's bit for bit. It also reads what
  the pool does not return: body positions and contact forces.

A simulation that blows up is reset by MuJoCo with a warning. `ExactPhysics` asks each copy for its warnings; the pool
stops a copy that warned, so that its clock did not advance as told.

MuJoCo's own log writes to the terminal and appends to MUJOCO_LOG.TXT in the working directory; `quieten` turns both
into records of the logger `rmdp.mujoco`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

__all__ = ["Copies", "ExactPhysics", "Physics", "RolloutPhysics", "load_model", "quieten"]

Array = NDArray[np.float64]
Copies = slice | NDArray[np.int64]
"""Which copies."""

_LOGGER = logging.getLogger("rmdp.mujoco")
_FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_TORSO = 1


def quieten() -> None:
    """Send MuJoCo's native warnings, of this process, to the logger `rmdp.mujoco` at level DEBUG."""
    mujoco.set_mju_user_warning(_LOGGER.debug)


def load_model(path: Path) -> mujoco.MjModel:
    """Compile a model file without a word on the terminal.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no MuJoCo model at {path}: this version of gymnasium ships other assets")
    quieten()
    return mujoco.MjModel.from_xml_path(str(path))


class Physics(Protocol):
    """B copies of a model.

    Attributes:
        state: (B, 1 + nq + nv), rows `[time, q, v]`.
        diverged: (B,) whether the last `step` left a copy without a meaningful state.
    """

    state: Array
    diverged: NDArray[np.bool_]

    def place(self, copy: int, positions: Array, velocities: Array) -> None:
        """Start copy number `copy` anew at time zero with positions (nq,) and velocities (nv,)."""
        ...

    def step(self, controls: Array) -> None:
        """Hold controls (B, nu) for `frame_skip` simulator steps."""
        ...

    def lane(self, copies: Copies) -> Callable[[Array], None]:
        """A function that moves some of the copies as `step` does, on the thread that calls it."""
        ...

    def position(self, copies: Copies = slice(None)) -> Array:
        """Forward position of the copies in metres, (B,)."""
        ...

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take a state back that `save` gave."""
        ...

    def save(self) -> dict[str, NDArray[Any]]:
        """All that decides the motion to come."""
        ...

    def close(self) -> None:
        """Stop the threads."""
        ...


class RolloutPhysics:
    """Copies moved by MuJoCo's native thread pool; see `Physics`.

    Args:
        model: The compiled model; each robot is a single kinematic tree, so that looking for islands is switched off.
        copies: B.
        frame_skip: Simulator steps per environment step.
        threads: Native threads; with 1 no pool is started.
    """

    def __init__(self, model: mujoco.MjModel, copies: int, frame_skip: int, threads: int) -> None:
        if hasattr(mujoco.mjtDisableBit, "mjDSBL_ISLAND"):  # a MuJoCo without it looks for islands only when asked to
            model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND.value
        self._model, self._nq, self._frame_skip = model, model.nq, frame_skip
        self.state = np.zeros((copies, mujoco.mj_stateSize(model, _FULL)))
        self.diverged = np.zeros(copies, dtype=bool)
        self._all = _Crew(model, copies, frame_skip, threads)

    def place(self, copy: int, positions: Array, velocities: Array) -> None:
        """See `Physics`."""
        self.state[copy, 0] = 0.0
        self.state[copy, 1 : 1 + self._nq] = positions
        self.state[copy, 1 + self._nq :] = velocities

    def step(self, controls: Array) -> None:
        """See `Physics`."""
        self.state[:], self.diverged[:] = self._all.move(self.state, controls)

    def lane(self, copies: Copies) -> Callable[[Array], None]:
        """See `Physics`."""
        crew = _Crew(self._model, len(self.state[copies]), self._frame_skip, 1)

        def step(controls: Array) -> None:
            self.state[copies], self.diverged[copies] = crew.move(self.state[copies], controls)

        return step

    def position(self, copies: Copies = slice(None)) -> Array:
        """See `Physics`; the first generalised position."""
        return np.array(self.state[copies, 1])

    def save(self) -> dict[str, NDArray[Any]]:
        """See `Physics`."""
        return {"physics": self.state.copy()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Physics`."""
        self.state[:] = state["physics"]

    def close(self) -> None:
        """See `Physics`."""
        self._all.pool.close()


class _Crew:
    """Native threads, and the memory that they work in."""

    def __init__(self, model: mujoco.MjModel, copies: int, frame_skip: int, threads: int) -> None:
        self._models = [model] * copies
        self._datas = [mujoco.MjData(model) for _ in range(threads)]
        self.pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._frame_skip, self._duration = frame_skip, model.opt.timestep * frame_skip
        self._together = math.ceil(copies / (2 * threads))  # handing out small shares takes a tenth of a step
        self._controls = np.zeros((copies, frame_skip, model.nu))
        self._path = np.zeros((copies, frame_skip, mujoco.mj_stateSize(model, _FULL)))
        self._sensors = np.zeros((copies, frame_skip, model.nsensordata))

    def move(self, state: Array, controls: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Where states (copies, S) lead under controls (copies, nu), and which did not get there."""
        self._controls[:] = controls[:, None]
        self.pool.rollout(
            self._models,
            self._datas,
            state,
            self._controls,
            skip_checks=True,
            nstep=self._frame_skip,
            state=self._path,
            sensordata=self._sensors,
            chunk_size=self._together,
        )
        end = self._path[:, -1]
        clock_is_off = np.abs(end[:, 0] - state[:, 0] - self._duration) > self._duration / (2 * self._frame_skip)
        return end, clock_is_off | ~np.isfinite(end).all(axis=1)


class ExactPhysics:
    """Copies moved one by one as Gymnasium moves them; see `Physics`.

    Args:
        model: The compiled model.
        copies: B.
        frame_skip: Simulator steps per environment step.
        threads: Python threads that share the copies.
        torso: Measure the position at the torso's body, as Gymnasium's Ant does, instead of the first coordinate.
        contacts: Compute the contact forces, (B, 6 x bodies), after each step.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        copies: int,
        frame_skip: int,
        threads: int,
        *,
        torso: bool = False,
        contacts: bool = False,
    ) -> None:
        self._model, self._frame_skip, self._torso, self._contacts = model, frame_skip, torso, contacts
        self._datas = [mujoco.MjData(model) for _ in range(copies)]
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._shares = [range(start, copies, threads) for start in range(threads)]
        self.state = np.zeros((copies, mujoco.mj_stateSize(model, _FULL)))
        self.diverged = np.zeros(copies, dtype=bool)

    def place(self, copy: int, positions: Array, velocities: Array) -> None:
        """See `Physics`."""
        data = self._datas[copy]
        mujoco.mj_resetData(self._model, data)
        data.qpos[:], data.qvel[:] = positions, velocities
        mujoco.mj_forward(self._model, data)
        self._read(copy)

    def step(self, controls: Array) -> None:
        """See `Physics`."""
        if self._threads is None:
            self._advance(range(len(self._datas)), controls)
        else:
            for done in [self._threads.submit(self._advance, share, controls[share]) for share in self._shares]:
                done.result()

    def lane(self, copies: Copies) -> Callable[[Array], None]:
        """See `Physics`."""
        return partial(self._advance, np.arange(len(self.state))[copies].tolist())

    def position(self, copies: Copies = slice(None)) -> Array:
        """See `Physics`."""
        if not self._torso:
            return np.array(self.state[copies, 1])
        return np.array([data.xpos[_TORSO, 0] for data in self._datas])[copies]

    def contact_forces(self) -> Array:
        """Forces and torques on every body but the world, (B, 6 x bodies), in newton and newton metres."""
        return np.array([data.cfrc_ext[1:].ravel() for data in self._datas])

    def save(self) -> dict[str, NDArray[Any]]:
        """See `Physics`; with the solver's warm start and the last body positions and forces."""
        return {
            "physics": self.state.copy(),
            "warm_start": np.array([data.qacc_warmstart for data in self._datas]),
            "body_position": np.array([data.xpos for data in self._datas]),
            "contact_force": np.array([data.cfrc_ext for data in self._datas]),
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Physics`."""
        for copy, data in enumerate(self._datas):
            mujoco.mj_setState(self._model, data, np.ascontiguousarray(state["physics"][copy]), _FULL)
            data.qacc_warmstart[:] = state["warm_start"][copy]
            data.xpos[:] = state["body_position"][copy]
            data.cfrc_ext[:] = state["contact_force"][copy]
            self._read(copy)

    def close(self) -> None:
        """See `Physics`."""
        if self._threads is not None:
            self._threads.shutdown()

    def _advance(self, share: Sequence[int], controls: Array) -> None:
        for copy, control in zip(share, controls, strict=True):
            data = self._datas[copy]
            data.ctrl[:] = control
            mujoco.mj_step(self._model, data, nstep=self._frame_skip)
            if self._contacts:
                mujoco.mj_rnePostConstraint(self._model, data)
            self._read(copy)
            self.diverged[copy] = data.warning.number.any() or not np.isfinite(self.state[copy]).all()

    def _read(self, copy: int) -> None:
        mujoco.mj_getState(self._model, self._datas[copy], self.state[copy], _FULL)
