"""Evaluations of several settings: what is kept, and that processes change nothing."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from regretformer.side_by_side import measured

NAMES = ["2x3", "2x4", "3x3"]
COUNTED = """
def count(log, name):
    if name == "3x3" and (log / "broken").exists():
        raise ValueError("3x3 is broken")
    with (log / name).open("a") as file:
        file.write(".")
    return {"name": name, "items": int(name[-1])}
"""


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Figures of a setting, which notes that they were measured; in a module that other processes can import."""
    (tmp_path / "counted_settings.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "counted_settings", raising=False)  # of another test's folder
    return partial(importlib.import_module("counted_settings").count, tmp_path)


def times(log: Path) -> list[int]:
    return [len((log / name).read_text()) if (log / name).exists() else 0 for name in NAMES]


@pytest.mark.parametrize("threads", [1, 2])
def test_measured_returns_all_in_their_order(threads: int, count: Any, tmp_path: Path) -> None:
    found = measured(NAMES, count, threads=threads)
    assert list(found) == NAMES
    assert [figures["items"] for figures in found.values()] == [3, 4, 3]
    assert times(tmp_path) == [1, 1, 1]


def test_measured_goes_on_where_it_was_interrupted(count: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="3x3 is broken"):
        measured(NAMES, count, kept=kept, how={"starts": 20})
    assert times(tmp_path) == [1, 1, 0]
    (tmp_path / "broken").unlink()
    found = measured(NAMES, count, kept=kept, how={"starts": 20})
    assert times(tmp_path) == [1, 1, 1]
    assert found == {name: json.loads((kept / f"{name}.json").read_text())["figures"] for name in NAMES}


def test_measured_takes_nothing_that_was_measured_otherwise(count: Any, tmp_path: Path) -> None:
    for starts in (20, 30):
        measured(NAMES, count, kept=tmp_path / "kept", how={"starts": starts})
    assert times(tmp_path) == [2, 2, 2]


def test_a_failure_in_one_process_is_told_at_once(count: Any, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="3x3 is broken"):
        measured(NAMES, count, threads=2)
