"""Generated parts of a README: what a script replaces and a test keeps in step with the files behind it."""

import re

__all__ = ["replace_between", "replace_line"]


def replace_between(text: str, begin: str, end: str, part: str) -> str:
    """`text` with `part` between two marks.

    Raises:
        ValueError: if a mark is not there exactly once.
    """
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + part + end + after


def replace_line(text: str, mark: str, line: str) -> str:
    """`text` with `line` in place of the one that holds `mark`."""
    return re.sub(rf"^.*{re.escape(mark)}.*$", lambda _: line, text, flags=re.MULTILINE)
