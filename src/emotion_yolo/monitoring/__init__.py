"""Drift: compares a service's pictures and answers with the reference of its model."""
