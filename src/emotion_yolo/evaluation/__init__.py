"""Measuring an exported model: metrics, robustness, error analysis, report, model card, and the table of experiments.

Only `runs` and `robustness` run the detector, everything else works on predictions and labels. `stages`, `cli` and the
benchmarks import this package; it imports `data`, `inference`, `structures` and `drawing`.
"""
