"""Searches for params: sweeps as files in `configs/sweeps/`, whose trials are experiments of DVC.

Only the command line imports this package.
"""
