"""Copy a finished run into the committed results.

    python packages/rmdp/results/collect.py runs/NAME
    python packages/rmdp/results/collect.py runs/NAME HalfCheetah-v4-k5-em-2000  # under a name of its own

Config, versions, cost, result, model and the fingerprint of the users are kept, not the metrics and checkpoints; the
name of the run directory is left out of the config.
"""

import json
import shutil
import sys
from pathlib import Path

RESULTS = Path(__file__).parent


def collect(run: Path, name: str = "") -> Path:
    """Copy `run` and return where it lies now, by default under its environment, k and algorithm."""
    result, config = (json.loads((run / file).read_text()) for file in ("result.json", "config.json"))
    place = RESULTS / (name or f"{result['env']}-k{result['k']}-{result['algorithm']}") / f"seed{result['seed']}"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config | {"out_dir": "runs/{name}"}, indent=2) + "\n")
    for file in ("versions.json", "cost.json", "result.json"):
        shutil.copy(run / file, place)
    for part in ("model", "users"):
        shutil.copytree(run / part, place / part)
    return place


if __name__ == "__main__":
    sys.stdout.write(f"{collect(Path(sys.argv[1]), *sys.argv[2:])}\n")
