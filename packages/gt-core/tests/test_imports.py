import sys
from pathlib import Path

import pytest

from gt_core.errors import InputError
from gt_core.imports import import_named


@pytest.fixture(autouse=True)
def _untouched_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def test_import_finds_what_is_installed() -> None:
    assert import_named("os.path:join")("a", "b") == str(Path("a") / "b")  # type: ignore[operator]


def test_import_finds_a_file_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "my_own_tastes.py").write_text("answer = 42")
    assert import_named("my_own_tastes:answer") == 42


def test_import_lets_no_file_take_the_place_of_a_library(tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text("raise SystemExit('shadowed')")
    assert "wave" not in sys.modules
    assert callable(import_named("wave:open"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("likes", "expected package.module:name, got 'likes'"),
        (":likes", "expected package.module:name, got ':likes'"),
        ("likes:", "expected package.module:name, got 'likes:'"),
        ("no_such_module:likes", "no_such_module:likes cannot be imported: No module named .*; install it"),
        ("statistics:no_such", "statistics has no 'no_such'; it has .*fmean"),
    ],
)
def test_import_refuses_and_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_named(name)


def test_import_of_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_tastes.py").write_text("def likes(:")
    with pytest.raises(InputError, match="broken_tastes:likes cannot be imported: invalid syntax"):
        import_named("broken_tastes:likes")
