"""Circulant attention timed against its peers: ``python -m benchmarks``; see README.md."""
