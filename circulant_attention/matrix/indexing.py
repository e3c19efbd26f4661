"""Indexing of Circulants: batches and heads stay sparse, rows and columns come out dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circulant_attention.checks import is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import algebra

Index = int | slice | Sequence[int] | Tensor
_DIM_NAMES = ("batch", "head", "row", "column")


def parse(index: Any) -> tuple[tuple[Index, Index], Index, Index]:
    """An index as (batch, head), row, column; those left out are full slices.

    Raises:
        IndexError: If it has more than four entries or two ellipses.
        TypeError: If an entry is not an int, a slice or a list of ints.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    ellipses = [at for at, entry in enumerate(entries) if entry is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("expected at most one ellipsis in the index of a Circulant")
    if len(entries) - len(ellipses) > 4:
        raise IndexError(f"expected at most 4 indices for a Circulant, got {len(entries)}")
    at = ellipses[0] if ellipses else len(entries)
    missing = [slice(None)] * (4 - len(entries) + len(ellipses))
    entries[at : at + len(ellipses)] = missing
    for name, entry in zip(_DIM_NAMES, entries, strict=True):
        _check(name, entry)
    batch, head, row, column = entries
    return (batch, head), row, column


def _check(name: str, entry: Any) -> None:
    if isinstance(entry, Tensor):
        # A 1-d bool tensor selects, as in torch; a 0-d one would pass for the int 0 or 1.
        good = entry.dim() == 1 or (entry.dim() == 0 and entry.dtype != torch.bool)
        good = good and not entry.is_floating_point() and not entry.is_complex()
    elif isinstance(entry, Sequence) and not isinstance(entry, str):
        good = all(is_int(one) for one in entry)
    else:
        good = is_int(entry) or isinstance(entry, slice)
    if not good:
        raise TypeError(
            f"expected the {name} index to be an int, a slice, or a list or 1-d tensor of ints, "
            f"got {entry!r}"
        )


def _scalar(index: Index) -> bool:
    return is_int(index) or (isinstance(index, Tensor) and index.dim() == 0)


def _check_range(index: Index, size: int, name: str) -> None:
    if _scalar(index) and not -size <= int(index) < size:  # type: ignore[arg-type]
        raise IndexError(f"{name} index {index} is out of range for size {size}")


def _take(x: Tensor, dim: int, index: Index, name: str) -> Tensor:
    """Indexes one dim and keeps it, an int leaving size 1."""
    if _scalar(index):
        _check_range(index, x.shape[dim], name)
        return x.narrow(dim, int(index) % x.shape[dim], 1)  # type: ignore[arg-type]
    if not isinstance(index, slice | Tensor):
        index = torch.tensor(list(index), dtype=torch.long, device=x.device)  # type: ignore[arg-type]
    taken: Tensor = x[(slice(None),) * dim + (index,)]
    return taken


def take_matrices(values: Tensor, batch_head: tuple[Index, Index]) -> Tensor:
    """Indexes batch and head of values ``(B, heads, N * K)``; keeps both dims."""
    for dim, index in enumerate(batch_head):
        values = _take(values, dim, index, _DIM_NAMES[dim])
    return values


def pixel_number(position: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """The row-major number of the pixel at a position."""
    number = 0
    for at, size in zip(position, sizes, strict=True):
        number = number * size + at
    return number


def dense_rows(rows: Tensor, geometry: Geometry, index: Index) -> Tensor:
    """Some rows ``(B, heads, R, N)`` of a Circulant with entries ``(B, heads, N, K)``, dense."""
    columns = geometry.col_indices(rows.device).reshape(1, 1, geometry.pixels, geometry.nnz_per_row)
    columns = _take(columns, 2, index, "row").long()
    chosen = _take(rows, 2, index, "row")
    dense = chosen.new_zeros(*chosen.shape[:3], geometry.pixels)
    return dense.scatter(3, columns.expand(chosen.shape), chosen)


def dense_block(
    rows: Tensor, geometry: Geometry, batch_head: tuple[Index, Index], row: Index, column: Index
) -> Tensor:
    """The dense block at (row, column), without the dims of ints, as in torch.

    Its memory is the number of rows, or of columns if ``row`` is a full slice, times N.
    """
    for index, name in ((row, "row"), (column, "column")):
        _check_range(index, geometry.pixels, name)
    if row == slice(None):
        flipped = algebra.transpose(rows.flatten(-2), geometry).reshape(rows.shape)
        block = dense_rows(flipped, geometry, column).mT
    else:
        block = _take(dense_rows(rows, geometry, row), 3, column, "column")
    dropped = [dim for dim, index in enumerate((*batch_head, row, column)) if _scalar(index)]
    return block.squeeze(dropped) if dropped else block
