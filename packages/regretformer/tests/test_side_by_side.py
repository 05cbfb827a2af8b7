"""Evaluations of several settings: what is kept, and that processes change nothing."""

import json
from functools import partial
from pathlib import Path

import pytest

from regretformer.side_by_side import measured

NAMES = ["2x3", "2x4", "3x3"]


def count(log: Path, name: str) -> dict[str, object]:
    """Figures of a setting; notes that they were measured."""
    if name == "3x3" and (log / "broken").exists():
        raise ValueError("3x3 is broken")
    (log / name).write_text((log / name).read_text() + "." if (log / name).exists() else ".")
    return {"name": name, "items": int(name[-1])}


def times(log: Path) -> list[int]:
    return [len((log / name).read_text()) if (log / name).exists() else 0 for name in NAMES]


@pytest.mark.parametrize("threads", [1, 2])
def test_measured_returns_all_in_their_order(threads: int, tmp_path: Path) -> None:
    found = measured(NAMES, partial(count, tmp_path), threads=threads)
    assert list(found) == NAMES
    assert [figures["items"] for figures in found.values()] == [3, 4, 3]
    assert times(tmp_path) == [1, 1, 1]


def test_measured_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="3x3 is broken"):
        measured(NAMES, partial(count, tmp_path), kept=kept, how={"starts": 20})
    assert times(tmp_path) == [1, 1, 0]
    (tmp_path / "broken").unlink()
    found = measured(NAMES, partial(count, tmp_path), kept=kept, how={"starts": 20})
    assert times(tmp_path) == [1, 1, 1]
    assert found == {name: json.loads((kept / f"{name}.json").read_text())["figures"] for name in NAMES}


def test_measured_takes_nothing_that_was_measured_otherwise(tmp_path: Path) -> None:
    for starts in (20, 30):
        measured(NAMES, partial(count, tmp_path), kept=tmp_path / "kept", how={"starts": starts})
    assert times(tmp_path) == [2, 2, 2]


def test_a_failure_in_one_process_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="3x3 is broken"):
        measured(NAMES, partial(count, tmp_path), threads=2)
