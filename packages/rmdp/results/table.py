"""The results table of the package's README, from the committed `result.json` files.

    python packages/rmdp/results/table.py           # print it
    python packages/rmdp/results/table.py --write   # put it into README.md, and models into the package

A test fails while README.md and the files differ. Figures of the published code, where there are any, are in the
package's `published.json`, with where they come from.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from gt_core.pretrained import card, contents, write
from gt_core.readme import replace_between, replace_line
from gt_core.run import read_cost, read_result

from rmdp.reproduction import PUBLISHED

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
FRONT = RESULTS.parents[2] / "README.md"
BEGIN, END = "<!-- results/table.py writes {}from here -->\n", "<!-- to here{} -->\n"
PRETRAINED = RESULTS.parent / "src" / "rmdp" / "pretrained"
SHIPPED = {
    "HalfCheetah-v4-k5": "HalfCheetah-v4-k5-em/seed0",
    "resource-gathering-k3": "resource-gathering-k3-em/seed0",
}
_LOSSES = ("clusters", "offset", "ripple", "start")
HEADER = """\
| environment | k | algorithm | seed | welfare | ceiling | share | median user | iterations | training | official code |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def row(result: dict[str, Any], cost: dict[str, Any], config: dict[str, Any], official: list[dict[str, Any]]) -> str:
    """One line of the table."""
    known = official if result["seed"] == 0 else []
    cells = (
        result["env"],
        result["k"],
        result["algorithm"],
        result["seed"],
        f"{result['welfare']:.4g}",
        f"{result['ceiling']:.4g}",
        f"{result['share_of_ceiling']:.1%}",
        f"{result['quantile_0.5']:.3g}",
        config["iterations"],
        f"{cost['seconds']:.0f} s",
        ", ".join(f"{point['welfare']:g} after {point['minutes']:g} min" for point in known),
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


def table() -> str:
    """The whole table, in Markdown."""
    runs = [_read(file.parent) for file in RESULTS.glob("*/seed*/result.json")]
    runs.sort(key=lambda run: (run[0]["env"], run[0]["k"], run[0]["algorithm"], run[0]["seed"], run[2]["iterations"]))
    return HEADER + "".join(row(*run, _official(run[0])) for run in runs)


def losses() -> str:
    """What keeps runs with target velocities from their ceilings, in Markdown."""
    lines = [
        "| run | iterations | welfare | ceiling | " + " | ".join(_LOSSES) + " |\n",
        "|---" * (4 + len(_LOSSES)) + "|\n",
    ]
    for file in sorted(RESULTS.glob("*/seed*/losses.json")):
        found, config = json.loads(file.read_text()), json.loads(file.with_name("config.json").read_text())
        figures = (found[name] for name in ("welfare", "ceiling", *_LOSSES))
        cells = (f"{config['env']}, k = {config['k']}", config["iterations"], *(f"{figure:.2f}" for figure in figures))
        lines.append("| " + " | ".join(map(str, cells)) + " |\n")
    return "".join(lines)


def ablations() -> str:
    """What each part of the EM-like algorithm is worth, in Markdown."""
    spec = importlib.util.spec_from_file_location("ablations", RESULTS / "ablations.py")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 (for the type checker)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: str = module.table(json.loads(module.FILE.read_text()))
    return found


def updated(readme: str) -> str:
    """The README's text with the tables between their marks."""
    readme = replace_between(readme, BEGIN.format(""), END.format(""), table())
    readme = replace_between(readme, BEGIN.format("losses "), END.format(": losses"), losses())
    return replace_between(readme, BEGIN.format("ablations "), END.format(": ablations"), ablations())


def shipped() -> dict[str, dict[Path, bytes]]:
    """The runs that ship with the package, with their cards."""
    return {name: contents(RESULTS / run, _card(name, RESULTS / run)) for name, run in SHIPPED.items()}


def _card(name: str, run: Path) -> str:
    return card(name, "rmdp-train", run, HEADER + row(*_read(run), []))


def _official(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs of the published code with the same environment, k and algorithm."""
    return [run for run in PUBLISHED["runs"] if all(run[name] == result[name] for name in ("env", "k", "algorithm"))]


def _read(run: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Result, cost and config."""
    return read_result(run), read_cost(run), json.loads((run / "config.json").read_text())


def headline() -> str:
    """The package's line in the table of the repository's README."""
    result, cost, _ = _read(RESULTS / SHIPPED["HalfCheetah-v4-k5"])
    known = _official(result)[-1]
    cells = (
        "HalfCheetah, 100 users with speeds of their own, 5 policies",
        f"welfare {result['welfare']:.1f}, {cost['seconds'] / 60:.0f} min",
        f"published code {known['welfare']:g} after {known['minutes']:g} min; at best {result['ceiling']:.1f}",
    )
    return f"| [rmdp](packages/rmdp) | {' | '.join(cells)} <!-- rmdp --> |"


def with_headline(readme: str) -> str:
    """The text of the repository's README with that line."""
    return replace_line(readme, "<!-- rmdp -->", headline())


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(updated(README.read_text()))
        FRONT.write_text(with_headline(FRONT.read_text()))
        write(PRETRAINED, shipped())
    else:
        sys.stdout.write(table())
