"""Peers beside us on the same work: ``python -m benchmarks``; what is measured and how is in README.md."""
