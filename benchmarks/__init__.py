"""Benchmarks and long runs: not part of the product, not collected by the tests."""
