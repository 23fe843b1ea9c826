"""Experiment tracking: DVCLive, the Weights & Biases run, and the lineage that both and `model.json` record."""
