"""The tutorials of the documentation work word by word."""

import runpy
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted((DOCS / "tutorials").glob("rmdp-*.md"))  # none beside a package that left the repository


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial_works_word_by_word(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    runpy.run_path(str(DOCS / "follow.py"))["follow"](page)
