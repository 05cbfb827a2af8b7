"""The results table of the package's README, from the committed runs beside this file.

    python packages/mediated-marl/results/table.py           # print them
    python packages/mediated-marl/results/table.py --write   # put them into README.md, and models into the package

A test fails while README.md and the files differ.  Each run was made in the package's folder by

    mediated-marl-train --out-dir results/RUN --preset P --mediator M --n-agents N

with the settings that its config.json holds; `--config results/RUN/config.json` repeats it.
"""

import sys
from pathlib import Path

from gt_core.pretrained import card, contents, write
from gt_core.readme import replace_between, replace_line
from gt_core.run import read_cost, read_result
from gt_core.stats import interquartile_mean

from mediated_marl.markov_table import markov_markdown, markov_rows
from mediated_marl.table import PUBLISHED, markdown, rows

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
FRONT = RESULTS.parents[2] / "README.md"
BEGIN, END = "<!-- results/table.py writes {} from here -->\n", "<!-- to here: {} -->\n"

PRETRAINED = RESULTS.parent / "src" / "mediated_marl" / "pretrained"
SHIPPED = {"pgg-3": "exact-e-3", "pgg-10": "exact-e-10", "pgg-25": "exact-e-25", "sacrifice": "exact-sacrifice"}


def tables() -> dict[str, str]:
    """The tables in Markdown: of one-step games, and of games of several steps."""
    runs = sorted(file.parent for file in RESULTS.glob("*/result.json"))
    return {"one step": markdown(rows(runs)), "several steps": markov_markdown(markov_rows(runs))}


def updated(readme: str) -> str:
    """The README's text with each table between its marks."""
    for name, table in tables().items():
        readme = replace_between(readme, BEGIN.format(name), END.format(name), table)
    return readme


def shipped() -> dict[str, dict[Path, bytes]]:
    """The runs that ship with the package, with their cards."""
    return {name: contents(RESULTS / run, _card(name, RESULTS / run)) for name, run in SHIPPED.items()}


def _card(name: str, run: Path) -> str:
    return card(name, "mediated-marl-train", run, markdown(rows([run])))


def headline() -> str:
    """The package's line in the table of the repository's README."""
    run = RESULTS / "sampled-e-25"
    result, cost = read_result(run), read_cost(run)
    paper = PUBLISHED["e", 25].reward
    cells = (
        "public goods, 25 agents, ten seeds",
        f"mean reward {interquartile_mean(result['reward_per_seed']):.3f}, {cost['seconds']:.0f} s",
        f"published {paper:.3f}; at best 1",
    )
    return f"| [mediated-marl](packages/mediated-marl) | {' | '.join(cells)} <!-- mediated-marl --> |"


def with_headline(readme: str) -> str:
    """The text of the repository's README with that line."""
    return replace_line(readme, "<!-- mediated-marl -->", headline())


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(updated(README.read_text()))
        FRONT.write_text(with_headline(FRONT.read_text()))
        write(PRETRAINED, shipped())
    else:
        sys.stdout.write("\n".join(tables().values()))
