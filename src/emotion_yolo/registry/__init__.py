"""Which model is served and why: comparison of a candidate, versions and stages, the origin of a digest.

Belongs here: what decides about finished models or finds them again. Not how one is made (`stages`, `release`),
measured (`evaluation`) or served (`api`). Versions are GTO's tags on the `artifacts:` entry of dvc.yaml, which
DVC and git read.
"""
