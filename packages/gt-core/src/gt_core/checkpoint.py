"""Checkpoints that are atomic, verified and free of pickle.

A checkpoint is a directory of three files:

- `tensors.safetensors`: every tensor of the state;
- `state.json`: everything else, with a reference where each tensor was;
- `manifest.json`: size and SHA-256 of the other two.

It is written under a temporary name, synced to disk and renamed, so a directory that bears a checkpoint's name is
complete. Loading verifies the manifest first and runs no code from the files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gt_core.errors import CheckpointError
from gt_core.files import sync_directory, write_synced

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_FILES = ("tensors.safetensors", "state.json")
_MANIFEST = "manifest.json"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` as the new checkpoint `path`.

    Args:
        path: the checkpoint's directory; its parent must exist.
        state: nested dicts, lists and tuples of tensors, numbers, strings, booleans and None, such as `state_dict()` of
            modules and optimisers return. Dict keys may be strings or integers.

    Raises:
        TypeError: if `state` holds anything else.
        FileExistsError: if `path` exists; a checkpoint is never rewritten.
        OSError: if the disk refuses; nothing is left behind.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"checkpoint {path} exists already")
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _flatten(state, "", tensors)
    contents = (save_tensors(tensors), json.dumps(skeleton).encode())
    manifest = {"format": _FORMAT, "files": {name: _digest(data) for name, data in zip(_FILES, contents, strict=True)}}

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, data in zip(_FILES, contents, strict=True):
            write_synced(temporary / name, data)
        write_synced(temporary / _MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_directory(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(path.parent)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the checkpoint `path` back: equal to what was saved, bit for bit, with tensors on the CPU.

    Raises:
        CheckpointError: if a file is missing or differs from the manifest.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    contents = [_read_verified(path / name, manifest[name]) for name in _FILES]
    try:
        tensors = load_tensors(contents[0])
        state = _restore(json.loads(contents[1]), tensors)
    except Exception as error:  # a hash that matches content nobody wrote: whatever it raises, it is not a checkpoint
        raise CheckpointError(f"{path} is not a checkpoint of this format: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a checkpoint of this format: state.json holds no object")
    return state


def _digest(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    file = path / _MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        version, files = manifest["format"], manifest["files"]
        entries = {name: {"bytes": files[name]["bytes"], "sha256": files[name]["sha256"]} for name in _FILES}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: its {_MANIFEST} cannot be read ({error})") from error
    if version != _FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version!r}; this version of gt-core reads {_FORMAT}")
    return entries


def _read_verified(file: Path, expected: dict[str, Any]) -> bytes:
    try:
        if file.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes, its manifest says {expected['bytes']}")
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if _digest(data) != expected:
        raise CheckpointError(
            f"{file} differs from its manifest (SHA-256): it was altered or damaged; delete {file.parent}"
        )
    return data


def _flatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:  # noqa: ANN401 (nested JSON)
    """JSON for `value`, its tensors moved into `tensors` under the path that leads to them."""
    if isinstance(value, torch.Tensor):
        if name in tensors:
            raise TypeError(
                f"two checkpoint entries are both called {name!r}: a dict has that key as string and integer"
            )
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, (str, int)) and not isinstance(key, bool) for key in value):
            raise TypeError(f"checkpoint keys must be strings or integers, got {list(value)!r} at {name or 'the top'}")
        return {"$items": [[key, _flatten(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {name or 'the top'}; convert it first")


def _restore(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401 (nested JSON)
    """The inverse of `_flatten`."""
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$tuple":
        return tuple(_restore(item, tensors) for item in content)
    if kind == "$items":
        return {key: _restore(item, tensors) for key, item in content}
    raise ValueError(f"unknown entry {kind!r}")
