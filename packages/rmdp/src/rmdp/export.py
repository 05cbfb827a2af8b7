"""What a regulator is handed: every representative, frozen, with all that is needed to act, and a manifest.

    representative-J.onnx    raw observations (batch, D) float32 to actions, with the observation statistics inside
    representative-J.zip     the same as a Stable-Baselines3 model
    assignment.json          the representative of each user, and the users' targets where they have any
    observations.json        the statistics by themselves
    manifest.json            size and SHA-256 of these, config, versions, and the largest difference between the action
                             of each file and ours on random observations

ONNX and Stable-Baselines3 come with the extra rmdp[export]; what is not installed is left out, and named.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_core.config import to_dict
from gt_core.environment import versions
from gt_core.errors import InputError
from gt_core.files import write_json
from gt_core.onnx import write_onnx
from gt_core.seeding import Streams

from rmdp.actor import Actor
from rmdp.envs.batch import Actions, Floats
from rmdp.population import TargetVelocity
from rmdp.setup import build_env
from rmdp.train import Model, load_model

__all__ = ["export_run"]

_NEEDS = {"onnx": ("onnx", "onnxscript"), "stable-baselines3": ("stable_baselines3",)}
_CHECKED = 256


def export_run(run: Path, out: Path) -> dict[str, Any]:
    """Export all representatives of a run.

    Args:
        run: A run, finished or stopped.
        out: New directory.

    Returns:
        The manifest.

    Raises:
        InputError: `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another --out")
    model = load_model(run)
    env = build_env(model.config, 1, np.random.default_rng(0))
    actions, size = env.actions, env.observation_size
    env.close()
    formats = _formats(model)
    out.mkdir(parents=True)
    differences: dict[str, float] = {}
    for j in range(model.config.k):
        actor = Actor(model.policies, model.moments, j).eval()
        differences |= _write(actor, actions, out / f"representative-{j}", formats, _observations(model, size))
    _write_facts(model, out)
    manifest = {
        "format": 1,
        "config": to_dict(model.config) | {"out_dir": ""},
        **versions("rmdp"),
        "left_out": [name for name in _NEEDS if name not in formats],
        "largest_difference": differences,
        "files": {file.name: _digest(file.read_bytes()) for file in sorted(out.iterdir())},
    }
    write_json(out / "manifest.json", manifest)
    return manifest


def _formats(model: Model) -> list[str]:
    installed = [name for name, modules in _NEEDS.items() if all(map(importlib.util.find_spec, modules))]
    unbounded = not model.policies.discrete and not model.policies.bounded
    return [name for name in installed if not (name == "stable-baselines3" and unbounded)]  # TD3 needs bounds


def _observations(model: Model, size: int) -> Floats:
    """Observations to compare actions on, spread three times as wide as in training so that clipping is met."""
    noise = Streams(0).numpy("export").normal(size=(_CHECKED, size)) * 3
    scale = model.moments.deviation.cpu().numpy() if model.moments.count > 0 else 1.0
    return np.asarray(model.moments.mean.cpu().numpy() + noise * scale, dtype=np.float32)


def _write(actor: Actor, actions: Actions, stem: Path, formats: list[str], observations: Floats) -> dict[str, float]:
    """Write one representative in all formats; the largest difference of each file's actions from ours."""
    with torch.no_grad():
        ours = actor(torch.from_numpy(observations)).numpy()
    writers: dict[str, Callable[[], tuple[Path, Floats]]] = {
        "onnx": lambda: _write_onnx(actor, stem.with_suffix(".onnx"), observations),
        "stable-baselines3": lambda: _write_sb3(actor, actions, stem.with_suffix(".zip"), observations),
    }
    written = [writers[name]() for name in formats]
    return {file.name: float(np.abs(theirs - ours).max()) for file, theirs in written}


def _write_onnx(actor: Actor, file: Path, observations: Floats) -> tuple[Path, Floats]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    example, batch = torch.from_numpy(observations), torch.export.Dim("batch")
    write_onnx(actor, example, file, inputs=["observation"], outputs=["action"], dynamic_shapes=({0: batch},))
    onnx.checker.check_model(str(file))
    (theirs,) = ReferenceEvaluator(str(file)).run(None, {"observation": observations})
    return file, np.asarray(theirs)


def _write_sb3(actor: Actor, actions: Actions, file: Path, observations: Floats) -> tuple[Path, Floats]:
    from rmdp.sb3 import stable_baselines3_model

    model = stable_baselines3_model(actor, actions)
    model.save(file)
    return file, np.asarray(model.predict(observations, deterministic=True)[0])


def _write_facts(model: Model, out: Path) -> None:
    population, moments = model.population, model.moments
    targets = {"targets": population.targets.tolist()} if isinstance(population, TargetVelocity) else {}
    write_json(out / "assignment.json", {"assignment": model.assignment.tolist(), **targets})
    statistics = {"count": int(moments.count), "mean": moments.mean.tolist(), "deviation": moments.deviation.tolist()}
    write_json(out / "observations.json", statistics)


def _digest(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
