"""The native ops, their derivatives and their flop formulas."""

from circulant_attention.ops import flops  # noqa: F401  (registers with torch)
