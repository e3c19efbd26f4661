"""The same bytes in the two conventions: Julia's column-major arrays and torch's row-major tensors.

| | Julia | torch |
|---|---|---|
| image | ``(*spatial, C, B)``, first fastest | ``(B, C, *reversed spatial)``, last fastest |
| pixels, rows, columns | from one | from zero |
| stored entries | ``(N*K, heads, B)`` | ``(B, heads, N*K)`` |
| matrix | ``(row, column, head, batch)`` | ``(batch, head, row, column)`` |

Reversing the dims of an array leaves its bytes as they are. Of a matrix only heads and batch change
places, and go to the front: its rows are rows on both sides.

Tensors are made on ``device``, and are expected there when they come back.
"""

from __future__ import annotations

import numpy as np
import torch

from circulant_attention import Circulant
from parity import reference

# Julia's dims 1 (row), 2 (column), 3 (head) and 4 (batch) of a matrix.
MATRIX_DIMS = {1: -2, 2: -1, 3: 1, 4: 0}

# That of the test that runs: see conftest.py.
device = "cpu"


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """Give the same numbers on the device: the same memory on the CPU."""
    return torch.from_numpy(array).to(device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Give the same numbers as an array, if they are on the device: the same memory on the CPU."""
    if tensor.device.type != device:
        raise ValueError(f"expected a tensor on {device}, got one on {tensor.device}")
    return tensor.detach().resolve_conj().cpu().numpy()


def to_torch(array: np.ndarray) -> torch.Tensor:
    """See a column-major array as a tensor with the dims reversed: the same memory."""
    if not array.flags.f_contiguous:
        raise ValueError("expected a column-major array")
    return from_numpy(array.T)


def to_julia(tensor: torch.Tensor) -> np.ndarray:
    """See a contiguous tensor as a column-major array with the dims reversed: the same memory."""
    if not tensor.is_contiguous():
        raise ValueError("expected a contiguous tensor")
    return to_numpy(tensor).T


def spatial_to_torch(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Give spatial sizes, a window per dim, or an index in the other order."""
    return sizes[::-1]


def window_to_torch(window: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """Give a window in the other order of the dims; an int stays what it is."""
    return window if isinstance(window, int) else window[::-1]


def index_to_torch(index: np.ndarray) -> torch.Tensor:
    """Count row pointers or columns from zero, with the dims reversed."""
    return from_numpy(np.ascontiguousarray(index.T - 1))


def index_to_julia(index: torch.Tensor) -> np.ndarray:
    """Count row pointers or columns from one, with the dims reversed."""
    return np.asfortranarray(to_numpy(index).T + 1)


def dims_to_torch(dims: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """Give the torch dims of a matrix for Julia's."""
    return MATRIX_DIMS[dims] if isinstance(dims, int) else tuple(MATRIX_DIMS[d] for d in dims)


def matrix_to_torch(matrix: np.ndarray) -> torch.Tensor:
    """Turn a dense ``(row, column, head, batch)`` array into ``(batch, head, row, column)``."""
    return from_numpy(np.ascontiguousarray(matrix.transpose(3, 2, 0, 1)))


def matrix_to_julia(matrix: torch.Tensor) -> np.ndarray:
    """Turn a dense ``(batch, head, row, column)`` tensor into ``(row, column, head, batch)``."""
    return np.asfortranarray(to_numpy(matrix).transpose(2, 3, 1, 0))


def circulant_to_torch(a: reference.Circulant) -> Circulant:
    """See a reference array as the package's: the entries are the same memory."""
    window = window_to_torch(a.kernel_length)
    return Circulant(to_torch(a.nzVal), window, spatial_to_torch(a.spatial_size))
