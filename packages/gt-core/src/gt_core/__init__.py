"""Constrained deep learning in small parts: multipliers, schedules, metrics, and runs that resume exactly.

Import from the modules: `gt_core.dual` and `gt_core.schedules` hold the mathematics of dual ascent, `gt_core.welfare`,
`gt_core.constraints` and `gt_core.stats` the metrics, and the others what every training run needs. Importing this
package alone imports nothing heavy.
"""
