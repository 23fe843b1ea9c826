"""Recipes: how a release is trained from the data, as files in `configs/recipes/`, and the runs that follow them.

A recipe runs the stages of dvc.yaml in a separate clone. Only the command line imports this package.
"""
