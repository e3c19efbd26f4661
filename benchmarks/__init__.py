"""Circulant attention timed against its peers: ``python -m benchmarks``. README.md says how."""
