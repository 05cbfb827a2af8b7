"""What the tests of sweeps and reproductions share."""

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module `toy_training`, which can be imported by this name here, in an empty working directory."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("toy_training")
