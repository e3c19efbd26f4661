"""The Circulant: a block-circulant sparse matrix as a value."""

from circulant_attention.matrix import torch_functions  # noqa: F401  (fills the registry)
from circulant_attention.matrix.circulant import Circulant, check_circulant

__all__ = ["Circulant", "check_circulant"]
