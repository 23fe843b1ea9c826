"""The model registry: comparison of a candidate, versions and stages, the origin of a digest.

It decides about finished models and finds them again; making them (`stages`, `release`), measuring (`evaluation`) and
serving them (`api`) are elsewhere. Versions are GTO's tags on the `artifacts:` entry of dvc.yaml, which
DVC and git read.
"""
