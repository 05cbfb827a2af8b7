"""Copy a finished run into the committed results.

    python packages/rmdp/results/collect.py runs/NAME

Config, versions, cost, result, model and the fingerprint of the users are kept, not the metrics and checkpoints; the
name of the run directory is left out of the config.
"""

import json
import shutil
import sys
from pathlib import Path

RESULTS = Path(__file__).parent


def collect(run: Path) -> Path:
    """Copy `run` and return where it lies now."""
    result, config = (json.loads((run / name).read_text()) for name in ("result.json", "config.json"))
    place = RESULTS / f"{result['env']}-k{result['k']}-{result['algorithm']}" / f"seed{result['seed']}"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config | {"out_dir": "runs/{name}"}, indent=2) + "\n")
    for file in ("versions.json", "cost.json", "result.json"):
        shutil.copy(run / file, place)
    for part in ("model", "users"):
        shutil.copytree(run / part, place / part)
    return place


if __name__ == "__main__":
    for run in sys.argv[1:]:
        sys.stdout.write(f"{collect(Path(run))}\n")
