"""The results table of the package's README, from the committed runs beside this file.

    python packages/mediated-marl/results/table.py           # print it
    python packages/mediated-marl/results/table.py --write   # put it into README.md

A test fails while README.md and the files differ.  Each run was made in the package's folder by

    mediated-marl-train --out-dir results/RUN --preset P --mediator M --n-agents N

with the settings that its config.json holds.
"""

import sys
from pathlib import Path

from mediated_marl.table import markdown, rows

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
BEGIN, END = "<!-- results/table.py writes from here -->\n", "<!-- to here -->\n"


def table() -> str:
    """The whole table, in Markdown."""
    return markdown(rows(sorted(file.parent for file in RESULTS.glob("*/result.json"))))


def updated(readme: str) -> str:
    """The README's text with the table between its marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(updated(README.read_text()))
    else:
        sys.stdout.write(table())
