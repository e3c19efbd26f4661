"""The native ops, their derivatives, their flop formulas, and what serves other devices."""

from circulant_attention.ops import fallback, flops  # noqa: F401  (register with torch)
