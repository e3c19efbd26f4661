"""The Circulant: a block-circulant sparse matrix as a value."""

from circulant_attention.matrix import (  # noqa: F401  (each registers with torch)
    torch_containers,
    torch_functions,
)
from circulant_attention.matrix.circulant import Circulant, check_circulant

__all__ = ["Circulant", "check_circulant"]
