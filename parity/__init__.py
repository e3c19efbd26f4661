"""Parity with CirculantAttention.jl 1.0.1: an independent reference, and tests against it."""
