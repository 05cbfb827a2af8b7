"""Follow a tutorial word by word: what the tests of the packages do with the pages in tutorials/.

Blocks are taken in order. Python with a title is written to the file of that name, other Python is run, and the lines
of `sh` blocks are the packages' commands. A block whose title says that it takes minutes is left to the reader. A
print whose line ends with a comment must print that.
"""

import contextlib
import io
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest import mock

BLOCK = re.compile(r'^```(python|sh)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def follow(page: Path) -> None:
    """Do in the working directory what the page says."""
    names: dict[str, Any] = {"__name__": page.stem}
    blocks = BLOCK.findall(page.read_text())
    assert blocks, f"{page} has no code to follow"  # noqa: S101 (for tests)
    for language, title, code in blocks:
        if "minutes" in title:
            continue
        if language == "sh":
            for line in filter(None, (line.partition("#")[0].strip() for line in code.splitlines())):
                run(line)
        elif title:
            Path(title).write_text(code)
        else:
            execute(code, page, names)


def run(line: str) -> None:
    """Run one of the packages' commands in this process."""
    name, *arguments = shlex.split(line)
    (entry,) = entry_points(group="console_scripts", name=name)
    with mock.patch.object(sys, "argv", [name, *arguments]):
        entry.load()()


def execute(code: str, page: Path, names: dict[str, Any]) -> None:
    """Run one block, and hold what it prints against what its comments promise."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(page), "exec"), names)  # noqa: S102 (the repository's own page)
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert out.getvalue().splitlines() == promised, (page, out.getvalue(), promised)  # noqa: S101 (for tests)
