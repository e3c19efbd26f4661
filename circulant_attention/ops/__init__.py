"""The native ops and their derivatives."""
