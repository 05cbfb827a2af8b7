"""The figures that the paper prints."""

import json
from pathlib import Path
from typing import NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """Cells of Table 3: mean reward, mean commitment, and how often mediated actions contribute.

    `next_to_grand` is how often they do when one agent stays out.
    """

    reward: float
    commitment: float | None = None
    contribution: float | None = None
    next_to_grand: float | None = None


def _table_3() -> dict[tuple[str, int], Published]:
    table = json.loads(Path(__file__).with_name("published.json").read_text())["table-3"]
    return {(cells.pop("mediator"), cells.pop("n_agents")): Published(**cells) for cells in table}


PUBLISHED = _table_3()
"""Table 3 by mediator and number of agents."""
