"""From the raw set to the prepared one: checks, near-duplicates, face localisation, the teacher's soft labels.

Only the stage `prepare` and the command line import this package.
"""
