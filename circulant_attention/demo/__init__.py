"""The demo behind ``python -m circulant_attention``: non-local means on a photograph."""
