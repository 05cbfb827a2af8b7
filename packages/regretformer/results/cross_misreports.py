"""Cross-misreports of the committed networks and of the published ones, measured into cross-misreports/SETTING.json.

    python packages/regretformer/results/cross_misreports.py 1x2
    python packages/regretformer/results/cross_misreports.py 2x2 --valuations 200

The committed networks are those of seed 0 under the budget 0.001. The published ones are the authors' checkpoints, in
the folder that --published names; without them the others are measured alone. `table.py --write` puts what was
measured into the package's README.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gt_core.environment import hardware, prepare, versions
from gt_core.files import write_json

from regretformer.compare import equal_evaluation
from regretformer.cross_misreports import cross_misreports, cross_table
from regretformer.mechanisms import NamedMechanism, import_official, open_mechanisms

RESULTS = Path(__file__).parent
RUNS = {"RegretNet": "{}-regretnet/seed0", "EquivariantNet": "{}-equivariantnet/seed0", "RegretFormer": "{}/seed0"}
"""The committed run of each network, by the setting."""


def measure(setting: str, published: Path, valuations: int | None, command: str) -> dict[str, Any]:
    """The table of a setting, with what it was measured by."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        names = {net: str(RESULTS / run.format(setting)) for net, run in RUNS.items()}
        names = {net: run for net, run in names.items() if Path(run).is_dir()}
        names |= {f"published {net}": run for net, run in _imported(setting, published, Path(folder)).items()}
        mechanisms, drawn = open_mechanisms(list(names.values()))
    named = [_called(*pair) for pair in zip(names, mechanisms, strict=True)]
    evaluation = equal_evaluation(drawn.setting, valuations=valuations)
    table = cross_misreports(named, drawn, evaluation)
    cost = {"seed": evaluation.seed, "seconds": round(time.perf_counter() - began, 3), "command": command}
    return {**table, **cost, **versions("regretformer"), **hardware("cpu")}


def _imported(setting: str, published: Path, folder: Path) -> dict[str, str]:
    """The published networks of a setting, as directories."""
    files = {net: published / f"{net}_{setting}_seed0.pt" for net in RUNS}
    found = {net: folder / net for net, file in files.items() if file.is_file()}
    for net, directory in found.items():
        import_official(files[net], directory, setting)
    return {net: str(directory) for net, directory in found.items()}


def _called(name: str, one: NamedMechanism) -> NamedMechanism:
    return dataclasses.replace(one, name=name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the table of one setting, write and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("setting")
    parser.add_argument("--valuations", type=int, help="by default 10,000 by grid and 1,000 by ascent")
    parser.add_argument("--published", type=Path, default=Path("../shared/data/official-regretformer"))
    parser.add_argument("--folder", type=Path, default=RESULTS / "cross-misreports")
    options = parser.parse_args(arguments)
    prepare("cpu", 1)
    typed = [options.setting] + ([f"--valuations {options.valuations}"] if options.valuations else [])
    command = f"python packages/regretformer/results/cross_misreports.py {' '.join(typed)}"
    table = measure(options.setting, options.published, options.valuations, command)
    options.folder.mkdir(exist_ok=True)
    write_json(options.folder / f"{options.setting}.json", table)
    sys.stdout.write(cross_table(table))


if __name__ == "__main__":
    main()
