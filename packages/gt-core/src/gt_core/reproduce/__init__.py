"""Reproducing a paper: each table or figure as the runs behind it, and as one report of the paper's figures and ours.

A package lists its experiments (`gt_core.reproduce.experiment`) and hands them to `reproduce_command`. Lines of a table
that a scale leaves out stay empty, with what they would cost; nothing is guessed.
"""
