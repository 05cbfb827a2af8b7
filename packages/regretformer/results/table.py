"""The results table of the package's README, from the committed `result.json` files.

    python packages/regretformer/results/table.py           # print it
    python packages/regretformer/results/table.py --write   # put it into README.md

A test fails while README.md and the files differ.
"""

import sys
from pathlib import Path
from typing import Any

from gt_core.run import read_cost, read_result

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
BEGIN, END = "<!-- results/table.py writes from here -->\n", "<!-- to here -->\n"
HEADER = """\
| setting | network | seed | revenue | exact optimum | honest regret / revenue | in training | protocol sees | seconds |
|---|---|---|---|---|---|---|---|---|
"""


def row(result: dict[str, Any], cost: dict[str, Any]) -> str:
    """One line of the table."""
    optimum = "" if result["optimal_revenue"] is None else f"{result['optimal_revenue']:.4f}"
    honest = f"{result['regret_sum_over_revenue']:.6f} ({result['attack']})"
    low, high = result["revenue_ci"]
    cells = (
        result["setting"],
        result["net"],
        result["seed"],
        f"{result['revenue']:.4f} ± {(high - low) / 2:.4f}",
        optimum,
        honest,
        f"{result['training_ratio'] * result['regret_budget']:.6f}",
        f"{result['protocol_regret_sum_over_revenue']:.6f}",
        f"{cost['seconds']:.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


def table() -> str:
    """The whole table, in Markdown."""
    runs = sorted(file.parent for file in RESULTS.glob("*/seed*/result.json"))
    return HEADER + "".join(row(read_result(run), read_cost(run)) for run in runs)


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
