"""Grids of runs on one machine or many: the same command from a laptop to a cluster.

    from gt_core.sweep.driver import sweep
    from gt_core.sweep.grid import make_cells
    from gt_core.sweep.processes import Processes

    cells = make_cells(lambda _: TrainConfig(), {"k": [1, 2], "seed": range(10)}, Path("runs"))
    outcomes = sweep(cells, "package.module:train", Processes(jobs=2))

A cell is one config of the grid and one run directory, named after the config's hash. `train(config)` continues that
run, or starts it, and leaves its `result.json`. A cell's result depends on its config alone: not on the backend, the
worker or the order. So a finished cell is never run again, one that died goes on from its checkpoint, and a sweep that
was stopped is continued by repeating it.
"""
