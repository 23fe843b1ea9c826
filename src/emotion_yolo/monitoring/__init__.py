"""Compares what a service has seen with what its model was measured on, and says when they differ."""
