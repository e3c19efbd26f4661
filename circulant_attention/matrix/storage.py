"""The values of a Circulant that is being made: ones, or checked data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circulant_attention.checks import check_dtype, is_int
from circulant_attention.geometry import Geometry, make_geometry
from circulant_attention.matrix.algebra import without_absent


def ones(
    window: Any, dims: Any, dtype: torch.dtype | None, device: torch.device | str | None
) -> tuple[Geometry, Tensor]:
    """The geometry and the values of a matrix of ones."""
    sizes = tuple(dims) if isinstance(dims, Sequence) else ()
    if len(sizes) < 3 or not all(is_int(size) and size >= 0 for size in sizes):
        raise ValueError(f"expected dims (B, heads, *spatial), got {dims}")
    sizes = tuple(size if isinstance(size, int | torch.SymInt) else int(size) for size in sizes)
    dtype = torch.float32 if dtype is None else dtype
    check_dtype("dtype", dtype)
    geometry = make_geometry(window, sizes[2:])
    values = torch.ones(*sizes[:2], geometry.nnz, dtype=dtype, device=device)
    return geometry, without_absent(values, geometry)


def checked_values(data: Tensor, geometry: Geometry) -> Tensor:
    """The values ``(B, heads, N * K)`` of dense or sparse data; raises unless the data fits."""
    check_dtype("data", data.dtype)
    if data.layout == torch.strided:
        if data.dim() != 3 or data.shape[2] != geometry.nnz:
            raise ValueError(
                f"expected values of shape (B, heads, {geometry.nnz}) for spatial size "
                f"{geometry.spatial_size} and window {geometry.window}, got {tuple(data.shape)}"
            )
        return without_absent(data, geometry)
    if data.layout != torch.sparse_csr:
        raise TypeError(f"expected data in layout torch.sparse_csr, got {data.layout}")
    n = geometry.pixels
    if not 2 <= data.dim() <= 4 or data.shape[-2:] != (n, n):
        raise ValueError(
            f"expected data of shape (B, heads, {n}, {n}) for spatial size "
            f"{geometry.spatial_size}, got {tuple(data.shape)}"
        )
    for name, given, wanted in (
        ("row pointers", data.crow_indices(), geometry.crow_indices(data.device)),
        ("columns", data.col_indices(), geometry.col_indices(data.device)),
    ):
        if given.shape[-1] != wanted.shape[0] or not bool((given == wanted).all()):
            raise ValueError(
                f"data's pattern is not the circulant one of spatial size "
                f"{geometry.spatial_size} and window {geometry.window}: expected {n} rows of "
                f"{_expected_columns(geometry)} ascending columns around each pixel, got other "
                f"{name}"
            )
    values = data.values()
    batch_shape = values.shape[:-1]
    slots = geometry.slots(values.device)
    if slots is not None:
        values = values.new_zeros(*batch_shape, geometry.nnz).index_copy(-1, slots, values)
    return values.reshape(*(batch_shape[:1] or (1,)), *(batch_shape[1:] or (1,)), geometry.nnz)


def _expected_columns(geometry: Geometry) -> str:
    return f"{'at most ' if geometry.truncated else ''}{geometry.nnz_per_row}"
