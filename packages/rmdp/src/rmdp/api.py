"""The Python interface: construct, `learn`, `predict`, `evaluate`, `save`, `load`, as in Stable-Baselines3.

    from rmdp import RMDP

    model = RMDP("HalfCheetah-v4", k=5).learn()
    action, _ = model.predict(observation, user=7)
    model.evaluate()["welfare"]
    model.save("cheetahs")
    model = RMDP.load("cheetahs")

Users may be a function from transitions to rewards (`rmdp.population`). Functions are not saved, for loading runs no
code from files: whoever loads such a model gives them again.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.config import from_dict, to_dict
from gt_core.errors import InputError, RunError
from gt_core.progress import ProgressDisplay
from gt_core.seeding import Streams
from numpy.typing import ArrayLike, NDArray

from rmdp.algorithms import ALGORITHMS
from rmdp.arrays import Array, to_array, to_numpy
from rmdp.assignment import Assignment
from rmdp.config import PRESETS, TrainConfig, default_preset
from rmdp.envs.batch import Transition
from rmdp.fingerprint import fingerprint, require_same_users
from rmdp.population import FunctionPopulation, Population
from rmdp.rollout import Actors
from rmdp.setup import build_population
from rmdp.train import evaluate_model, load_model, model_of, snapshot

__all__ = ["RMDP", "Users", "load_pretrained"]

Users = str | Population | Callable[[Transition], Any]
"""`auto`, package.module:factory, a population, or a function from transitions to the rewards of n users."""

_IN_CODE = "given in code"


class RMDP:
    """K policies that serve n users of one environment.

    Args:
        env: A Gymnasium environment's name, or resource-gathering.
        k: The budget: how many policies.
        users: Who they are; see `Users`.
        preset: The named set of defaults; the one that suits the environment if empty.
        settings: Any other field of `rmdp.config.TrainConfig`, such as `n`, `algorithm`, `iterations` or `seed`.

    Raises:
        InputError: A setting or the users cannot work.
        TypeError: A setting does not exist.
    """

    def __init__(self, env: str, k: int = 5, users: Users = "auto", *, preset: str = "", **settings: Any) -> None:  # noqa: ANN401 (the config's own types)
        preset = preset or default_preset(env)
        if preset not in PRESETS:
            raise InputError(f"preset {preset!r} does not exist; choose from {', '.join(PRESETS)}")
        if not isinstance(users, str) and hasattr(users, "n"):
            settings["n"] = users.n
        named = users if isinstance(users, str) else _IN_CODE
        self._start(dataclasses.replace(PRESETS[preset], env=env, k=k, users=named, **settings), users)

    def _start(self, config: TrainConfig, users: Users) -> None:
        self.config = config
        self.population = _population(config, users)
        self.algorithm = ALGORITHMS[config.algorithm](config, self.population)
        self.assignment: Assignment = self.algorithm.assignment
        """Who is served by whom, (n,)."""
        self._draws = Streams(config.seed, config.device).torch("predictions")

    def learn(
        self,
        iterations: int | None = None,
        *,
        progress: bool = False,
        callback: Callable[[int, Mapping[str, float]], object] | None = None,
    ) -> "RMDP":
        """Learn policies and assignment.

        Args:
            iterations: How many to do now; by default all that are left of the config's, which is where the schedules
                end.
            progress: Whether to show it on stderr.
            callback: Called after each iteration with their number so far and the figures; False stops learning.

        Returns:
            The model itself.
        """
        start = self.algorithm.step
        end = self.config.iterations if iterations is None else min(start + iterations, self.config.iterations)
        with ProgressDisplay(end, start) if progress else _Silence() as display:
            for step in range(start, end):
                figures = self.algorithm.iterate()
                display.update(step + 1, {name: figures[f"train/{name}"] for name in ("welfare", "flips")})
                if callback is not None and callback(step + 1, figures) is False:
                    break
        self.assignment = model_of(self.algorithm, self.config).assignment
        return self

    @torch.no_grad()
    def predict(self, observation: ArrayLike, user: ArrayLike, deterministic: bool = True) -> tuple[NDArray[Any], None]:
        """What the user's representative does.

        Args:
            observation: Raw observations, (D,) or (B, D).
            user: A number in 0, ..., n - 1, or one for each observation, (B,).
            deterministic: Whether to take the most probable action; otherwise it is drawn.

        Returns:
            The action, (A,) or a number, or B of them, in the environment's units; and None, the state that
            Stable-Baselines3's recurrent policies have at this place.

        Raises:
            InputError: The observation has the wrong size, or there is no such user.
        """
        members = self.algorithm.representatives
        raw, users = np.asarray(observation, dtype=np.float64), np.asarray(user)
        size, n = members.env.observation_size, self.population.n
        if raw.ndim not in (1, 2) or raw.shape[-1] != size:
            raise InputError(f"an observation has {size} numbers, got shape {raw.shape}")
        if not (np.issubdtype(users.dtype, np.integer) and (users >= 0).all() and (users < n).all()):
            raise InputError(f"users are numbered 0 to {n - 1}, got {user!r}")
        rows = np.atleast_2d(raw)
        serving = np.broadcast_to(self.assignment[users], len(rows))
        policies, k = members.policies, members.config.k
        view = members.moments.normalise(rows).expand(k, -1, -1)
        if deterministic:
            action: Array = policies.mode(view)
        else:
            actors = Actors(policies, k, len(rows))
            action, _ = actors.act(to_array(view), *actors.noise(self._draws))
        chosen = to_numpy(policies.to_environment(action))[serving, np.arange(len(rows))]
        return (chosen if raw.ndim == 2 else chosen[0]), None

    def evaluate(self, episodes: int = 10, seed: int = 0) -> dict[str, Any]:
        """Welfare, its spread over users, regret, cluster sizes and the ceiling, on fresh deterministic episodes.

        Args:
            episodes: Per representative.
            seed: Of the episodes.
        """
        model = snapshot(self.algorithm, self.config)._replace(assignment=self.assignment)
        return evaluate_model(model, seed, episodes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, and all that is needed to go on learning, into the new directory `path`.

        Raises:
            FileExistsError: It exists.
        """
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
        state = {
            "config": to_dict(self.config),
            "algorithm": self.algorithm.state_dict(),
            "assignment": torch.from_numpy(np.ascontiguousarray(self.assignment)),
            "users": fingerprint(self.config, self.population),
        }
        save_checkpoint(path, state)

    @classmethod
    def of_run(cls, directory: str | os.PathLike[str]) -> "RMDP":
        """The model of a run of rmdp-train, finished or stopped, or of one that ships: `pretrained/NAME`.

        Learning on starts a new run from its policies, with fresh critics.

        Raises:
            CheckpointError: The files were altered.
            InputError: Its users are others today, or nothing of that name ships with the package.
            RunError: There is no run.
        """
        trained = load_model(Path(directory))
        model = cls.__new__(cls)
        model._start(trained.config, trained.population)
        members = model.algorithm.representatives
        members.policies.load_state_dict(trained.policies.state_dict())
        members.moments.load_state_dict(trained.moments.state_dict())
        model.assignment = trained.assignment
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str], users: Users = "auto") -> "RMDP":
        """Read a saved model; it runs no code from the files.

        Args:
            path: What `save` wrote.
            users: The users once more, if they were given in code.

        Raises:
            CheckpointError: The files were altered.
            InputError: The users were given in code and are missing here, or are others than those it was trained for.
            RunError: It is a checkpoint, but not of a model.
        """
        state = load_checkpoint(path)
        if not {"config", "algorithm", "assignment", "users"} <= state.keys():
            raise RunError(f"{path} was not written by RMDP.save; rmdp-eval judges the directory of a run")
        config = from_dict(TrainConfig(), state["config"], str(path))
        if config.users == _IN_CODE and isinstance(users, str):
            raise InputError(f"the users of {path} were given in code: give them again, load(path, users=...)")
        model = cls.__new__(cls)
        model._start(config, users if config.users == _IN_CODE else config.users)
        require_same_users(state["users"], model.population, path)
        model.algorithm.load_state_dict(state["algorithm"])
        model.assignment = state["assignment"].numpy()
        return model


def load_pretrained(name: str) -> RMDP:
    """Trained policies that ship with the package, such as "HalfCheetah-v4-k5"; their card says what they are worth.

    Raises:
        InputError: There are none of that name; the message lists all.
    """
    return RMDP.of_run(Path("pretrained") / name)


def _population(config: TrainConfig, users: Users) -> Population:
    if isinstance(users, str):
        return build_population(config)
    if callable(users):
        return FunctionPopulation(users, config.n, getattr(users, "__name__", "users"))
    return users


class _Silence:
    """A progress display that shows nothing."""

    def __enter__(self) -> "_Silence":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, completed: int, figures: Mapping[str, float]) -> None:
        pass
