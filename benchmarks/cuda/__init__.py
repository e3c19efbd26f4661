"""Benchmarks on a GPU: ``python -m benchmarks.cuda``, or ``make bench-cuda``. See README.md."""
