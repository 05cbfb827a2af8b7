"""The tables of the package's README, from the committed JSON files.

    python packages/regretformer/results/table.py           # print them
    python packages/regretformer/results/table.py --write   # put them into README.md, and models into the package

A test fails while README.md and the files differ.
"""

import json
import sys
from pathlib import Path
from typing import Any

from gt_core.pretrained import card, contents, write
from gt_core.readme import replace_between, replace_line
from gt_core.run import read_cost, read_result

from regretformer.compare import markdown
from regretformer.cross_misreports import cross_table
from regretformer.frontier import plot_frontier
from regretformer.report import load_config

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
FRONT = RESULTS.parents[2] / "README.md"
BEGIN, END = "<!-- results/table.py writes {} from here -->\n", "<!-- to here: {} -->\n"
PRETRAINED = RESULTS.parent / "src" / "regretformer" / "pretrained"
SHIPPED = {"1x2": "1x2/seed0", "2x2": "2x2/seed0", "2x3": "2x3/seed0", "416x47": "416x47/seed0"}
CROSSED = sorted(file.stem for file in (RESULTS / "cross-misreports").glob("*.json"))
COLUMNS = (
    "setting", "network", "budget", "seed", "revenue", "exact optimum", "best truthful baseline",
    "honest regret / revenue", "in training", "honest / training", "protocol sees", "seconds",
)  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
DISTILLED = (
    "setting", "student", "teacher's revenue", "student's revenue", "teacher's regret / revenue on its own misreports",
    "on the student's", "student's regret / revenue on its own misreports", "on the teacher's", "divergence",
)  # fmt: skip


def rows(result: dict[str, Any], cost: dict[str, Any]) -> str:
    """The lines of a run: one, or of a mixture one for each setting."""
    if "settings" not in result:
        return row(result, f"{cost['seconds']:.0f}")
    lines = []
    for index, name in enumerate(result["settings"]):
        figures = {key.removeprefix(f"{name}/"): value for key, value in result.items() if key.startswith(f"{name}/")}
        about = {**result, **figures, "setting": f"{name} of {result['setting']}"}
        lines.append(row(about, "the same run" if index else f"{cost['seconds']:.0f}"))
    return "".join(lines)


def row(result: dict[str, Any], seconds: str) -> str:
    """One line of the table."""
    optimum = "" if result["optimal_revenue"] is None else f"{result['optimal_revenue']:.4f}"
    honest = f"{result['regret_sum_over_revenue']:.6f} ({result['attack']})"
    low, high = result["revenue_ci"]
    cells = (
        result["setting"],
        result["net"],
        f"{result['regret_budget']:g}" if result["constraint"] == "budget" else "none (augmented Lagrangian)",
        result["seed"],
        f"{result['revenue']:.4f} ± {(high - low) / 2:.4f}",
        optimum,
        f"{result['baseline_revenue']:.4f} ({result['baseline']})" if result["baseline"] else "",
        honest,
        f"{result['training_ratio'] * result['regret_budget']:.6f}",
        f"{result['regret_over_budget'] / result['training_ratio']:.2f}",
        f"{result['protocol_regret_sum_over_revenue']:.6f}",
        seconds,
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


def trained() -> str:
    """All trained networks, in Markdown."""
    runs = sorted(file.parent for file in RESULTS.glob("*/seed*/result.json"))
    return HEADER + "".join(rows(described(run), read_cost(run)) for run in runs)


def described(run: Path) -> dict[str, Any]:
    """The result of a run, its network named with what it is shown beside the bids."""
    result = read_result(run)
    return {**result, "net": f"{result['net']}, shown rivals"} if load_config(run).told_apart == "rivals" else result


def cross_misreports(setting: str) -> str:
    """What `cross_misreports.py` measured, in Markdown."""
    return cross_table(json.loads((RESULTS / "cross-misreports" / f"{setting}.json").read_text()))


def distilled() -> str:
    """All distillations, in Markdown."""
    runs = sorted(file.parent for file in RESULTS.glob("distillation/*/result.json"))
    return markdown(DISTILLED, [_distilled_cells(read_result(run)) for run in runs])


def _distilled_cells(result: dict[str, Any]) -> list[str]:
    pairs = (("teacher", "teacher"), ("teacher", "student"), ("student", "student"), ("student", "teacher"))
    shares = [result[f"{one}_regret_sum_on_{source}_misreports"] / result[f"{one}_revenue"] for one, source in pairs]
    return [
        result["setting"],
        result["net"],
        *(f"{result[f'{one}_revenue']:.4f}" for one in ("teacher", "student")),
        *(f"{share:.6f}" for share in shares),
        f"{result['divergence']:.4f}",
    ]


def draw_frontier(setting: str) -> None:
    """Revenue against honest regret of the committed runs under a budget, beside the known auctions."""
    results = [read_result(file.parent) for file in sorted(RESULTS.glob("*/seed*/result.json"))]
    runs = [result for result in results if (result["setting"], result["constraint"]) == (setting, "budget")]
    known = {"optimum": runs[0]["optimal_revenue"], runs[0]["baseline"]: runs[0]["baseline_revenue"]}
    lines = [{"mechanism": name, "net": None, "revenue": revenue} for name, revenue in known.items() if revenue]
    plot_frontier(RESULTS / f"frontier-{setting}.png", runs + lines)


def tables() -> dict[str, str]:
    """Every table by its name in the README's marks."""
    crossed = {f"cross-misreports in {setting}": cross_misreports(setting) for setting in CROSSED}
    return {"results": trained(), **crossed, "distillation": distilled()}


def updated(readme: str) -> str:
    """The README's text with each table between its marks."""
    for name, table in tables().items():
        readme = replace_between(readme, BEGIN.format(name), END.format(name), table)
    return readme


def shipped() -> dict[str, dict[Path, bytes]]:
    """The runs that ship with the package, with their cards."""
    return {name: contents(RESULTS / run, _card(name, RESULTS / run)) for name, run in SHIPPED.items()}


def _card(name: str, run: Path) -> str:
    return card(name, "regretformer-train", run, HEADER + rows(read_result(run), read_cost(run)))


def headline() -> str:
    """The package's line in the table of the repository's README."""
    result, cost = read_result(RESULTS / SHIPPED["2x2"]), read_cost(RESULTS / SHIPPED["2x2"])
    cells = (
        "two bidders, two items, values uniform on [0, 1]",
        f"revenue {result['revenue']:.3f}, true regret {100 * result['regret_sum_over_revenue']:.2f} % of it, "
        f"{cost['seconds'] / 60:.0f} min",
        f"best simple truthful auction {result['baseline_revenue']:.3f}; "
        "published 0.908 at a true regret of 0.3 to 0.46 %",
    )
    return f"| [regretformer](packages/regretformer) | {' | '.join(cells)} <!-- regretformer --> |"


def with_headline(readme: str) -> str:
    """The text of the repository's README with that line."""
    return replace_line(readme, "<!-- regretformer -->", headline())


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(updated(README.read_text()))
        FRONT.write_text(with_headline(FRONT.read_text()))
        write(PRETRAINED, shipped())
        draw_frontier("1x2")
    else:
        sys.stdout.write("\n".join(tables().values()))
