"""One matrix to and from SciPy."""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def to_scipy(values: Tensor, geometry: Geometry) -> Any:
    """The ``scipy.sparse.csr_array (N, N)`` of the values ``(N * K,)`` of one matrix; a copy.

    It has no absent entries.
    """
    try:
        from scipy.sparse import csr_array  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("A.to_scipy() needs SciPy: pip install scipy") from error
    if values.dtype not in _DTYPES:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(
            f"SciPy has no sparse matrices of {values.dtype}: use A.float().to_scipy() "
            f"(expected one of {expected})"
        )
    values = pruned(values, geometry)
    # SciPy may change its arrays in place, and the index tensors are shared by all matrices.
    arrays = (values, geometry.col_indices("cpu"), geometry.crow_indices("cpu"))
    copies = tuple(one.detach().cpu().resolve_conj().resolve_neg().numpy().copy() for one in arrays)
    return csr_array(copies, shape=(geometry.pixels, geometry.pixels))


def pruned(values: Tensor, geometry: Geometry) -> Tensor:
    """The values ``(*, N * K)`` without absent entries; a copy if there are absent ones."""
    slots = geometry.slots(values.device)
    return values if slots is None else values.index_select(-1, slots)


def is_scipy(data: object) -> TypeGuard[Any]:
    """Whether ``data`` is a sparse matrix of SciPy, which is not imported for this."""
    scipy = sys.modules.get("scipy.sparse")
    return scipy is not None and scipy.issparse(data)


def from_scipy(data: Any) -> Tensor:
    """The ``torch.sparse_csr`` tensor of a CSR matrix of SciPy; shares its memory if sorted."""
    if data.format != "csr":
        raise TypeError(
            f"expected data of SciPy in format csr, got {data.format}: use data.tocsr()"
        )
    if not data.has_sorted_indices:
        data = data.sorted_indices()
    crow, col, values = map(torch.from_numpy, (data.indptr, data.indices, data.data))
    return torch.sparse_csr_tensor(crow, col, values, data.shape, check_invariants=False)
