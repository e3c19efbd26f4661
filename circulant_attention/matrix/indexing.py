"""Indexing of Circulants: batches and heads stay sparse, rows and columns come out dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circulant_attention.checks import is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import pattern
from circulant_attention.matrix.lazy import LazyValues, TransposedValues, transpose_source

Index = int | slice | Tensor
Indices = tuple[Index, Index, Index, Index]
"""Of batch, head, row and column; a tensor is 1-d and holds ints."""
_DIM_NAMES = ("batch", "head", "row", "column")
_FULL = slice(None)


def parse(index: Any, shape: torch.Size, device: torch.device) -> Indices:
    """An index of a matrix of this shape, one per dim; those left out are full slices.

    Raises:
        IndexError: If an int is out of range, or there are more than four indices or two ellipses.
        TypeError: If one is neither an int, a slice, nor a list or 1-d tensor of ints.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    ellipses = [at for at, entry in enumerate(entries) if entry is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("expected at most one ellipsis in the index of a Circulant")
    if len(entries) - len(ellipses) > 4:
        raise IndexError(f"expected at most 4 indices for a Circulant, got {len(entries)}")
    at = ellipses[0] if ellipses else len(entries)
    missing = [_FULL] * (4 - len(entries) + len(ellipses))
    entries[at : at + len(ellipses)] = missing
    batch, head, row, column = (
        _parsed(name, entry, size, device)
        for name, entry, size in zip(_DIM_NAMES, entries, shape, strict=True)
    )
    indices = batch, head, row, column
    lengths = [len(index) for index in indices if isinstance(index, Tensor)]
    if len(lengths) > 1 and len({*lengths} - {1}) > 1:
        raise IndexError(f"expected index lists of one length, which pair up, got {lengths}")
    return indices


def _parsed(name: str, entry: Any, size: int, device: torch.device) -> Index:
    _check(name, entry)
    if isinstance(entry, slice):
        return entry
    if isinstance(entry, Tensor) and entry.dim() == 1:
        selects = entry.dtype in (torch.bool, torch.uint8)
        if selects and len(entry) != size:
            raise IndexError(f"expected the {name} mask to have {size} entries, got {len(entry)}")
        return entry.nonzero().flatten() if selects else entry
    if not isinstance(entry, Sequence):
        return _in_range(name, int(entry), size)
    return torch.tensor(
        [_in_range(name, int(one), size) for one in entry], dtype=torch.long, device=device
    )


def _in_range(name: str, at: int, size: int) -> int:
    if not -size <= at < size:
        raise IndexError(f"{name} index {at} is out of range for size {size}")
    return at


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


def keeps_rows(indices: Indices) -> bool:
    """Whether all rows and columns are taken, so that the result is a Circulant."""
    return all(isinstance(index, slice) and index == _FULL for index in indices[2:])


def take_matrices(values: Tensor, indices: Indices) -> Tensor:
    """Indexes batch and head of values ``(B, heads, N * K)``; keeps both dims.

    Two lists pair up, and leave heads of size 1.
    """
    batch, head, _, _ = (_keeping(index) for index in indices)
    if isinstance(batch, Tensor) and isinstance(head, Tensor):
        return values[batch, head].unsqueeze(1)
    return values[batch][:, head]


def _keeping(index: Index) -> slice | Tensor:
    """The index with an int as the slice of one."""
    if isinstance(index, slice | Tensor):
        return index
    return slice(index, index + 1 or None)


def dense_rows(rows: Tensor, geometry: Geometry, index: slice) -> Tensor:
    """Some rows ``(B, heads, R, N)`` of a Circulant with entries ``(B, heads, N, K)``, dense."""
    if not geometry.truncated:
        columns = geometry.col_indices(rows.device).view(geometry.pixels, geometry.nnz_per_row)
        return _scattered(rows[:, :, index], columns[index].long(), geometry)
    pixels = torch.arange(geometry.pixels, device=rows.device)[index]
    return _dense(rows[:, :, index], pixels, geometry)


def dense_block(source: Tensor | LazyValues, geometry: Geometry, indices: Indices) -> Tensor:
    """The dense block at the indices, with the dims that torch gives a dense tensor.

    Its memory is the number of rows, or of columns if all rows are taken, times N. Of lazy values
    only the rows that are asked for are computed, unless computing all takes less memory.
    """
    batch, head, row, column = indices
    lists = [isinstance(index, Tensor) for index in indices]
    if lists[3] and any(lists[:3]):
        return _paired(source, geometry, indices)
    if isinstance(row, slice) and row == _FULL:
        flipped = _transposed(source, geometry)
        block = dense_block(flipped, geometry.transposed(), (batch, head, column, _FULL))
        return block if is_int(column) else block.mT
    entries = _entries(source, geometry, (batch, head, row))
    pixels = _coordinate(2, source, geometry, (batch, head, row, 0))
    if isinstance(column, slice):
        return _dense(entries, pixels, geometry)[..., column]
    keys = torch.arange(geometry.pixels, device=source.device)[column]
    place, stored = pattern.place(geometry, pixels[..., None], keys)
    place, stored = (x.broadcast_to(*entries.shape[:-1], x.shape[-1]) for x in (place, stored))
    block = entries.gather(-1, place).where(stored, 0)
    return block.squeeze(-1) if is_int(column) else block


def _paired(source: Tensor | LazyValues, geometry: Geometry, indices: Indices) -> Tensor:
    """The block of a list of columns that pairs up with other lists, entry by entry."""
    batch, head, row, column = (
        _coordinate(dim, source, geometry, indices) for dim in range(len(indices))
    )
    place, stored = pattern.place(geometry, row, column)
    groups = batch * source.shape[1] + head
    if isinstance(source, LazyValues) and _some_rows(source, geometry, groups, row):
        entries = source.rows(groups, row)
        places = place.expand(entries.shape[:-1])[..., None]
        entries = entries.gather(-1, places).squeeze(-1)
    else:
        entries = _rows(_computed(source), geometry)[batch, head, row, place]
    return entries.where(stored, 0)


def _entries(
    source: Tensor | LazyValues, geometry: Geometry, indices: tuple[Index, Index, Index]
) -> Tensor:
    """The entries ``(*, K)`` of the rows at the indices of batch, head and row."""
    if isinstance(source, LazyValues):
        batch, head, row = (
            _coordinate(dim, source, geometry, (*indices, 0)) for dim in range(len(indices))
        )
        groups = batch * source.shape[1] + head
        if _some_rows(source, geometry, groups, row):
            return source.rows(groups, row)
    return _rows(_computed(source), geometry)[indices]


def _some_rows(source: LazyValues, geometry: Geometry, groups: Tensor, pixels: Tensor) -> bool:
    """Whether computing these rows takes less memory than computing all."""
    rows = (groups + pixels).numel()
    return rows * source.row_cost <= source.shape[0] * source.shape[1] * geometry.pixels


def _transposed(source: Tensor | LazyValues, geometry: Geometry) -> Tensor | LazyValues:
    parent = transpose_source(source)
    return TransposedValues(_computed(source), geometry) if parent is None else parent


def _computed(source: Tensor | LazyValues) -> Tensor:
    return source.get() if isinstance(source, LazyValues) else source


def _rows(values: Tensor, geometry: Geometry) -> Tensor:
    return values.reshape(*values.shape[:2], geometry.pixels, geometry.nnz_per_row)


def _coordinate(
    dim: int, source: Tensor | LazyValues, geometry: Geometry, indices: Indices
) -> Tensor:
    """One coordinate of every element that the indices take, of size 1 where it is the same.

    torch itself arranges the dims: they are those of a dense matrix at these indices.
    """
    sizes = (*source.shape[:2], geometry.pixels, geometry.pixels)
    own = [1] * len(sizes)
    own[dim] = sizes[dim]
    coordinates = torch.arange(sizes[dim], device=source.device).view(own)
    result: Tensor = coordinates[
        tuple(index if at == dim else _first(index) for at, index in enumerate(indices))
    ]
    return result


def _first(index: Index) -> Index:
    """An index of the same kind into a dim of size 1."""
    if isinstance(index, Tensor):
        return torch.zeros_like(index)
    return _FULL if isinstance(index, slice) else 0


def _dense(entries: Tensor, pixels: Tensor, geometry: Geometry) -> Tensor:
    """Dense rows ``(*, N)`` of the entries ``(*, K)`` in the rows of the pixels."""
    columns, present = pattern.columns(geometry, pixels), pattern.present(geometry, pixels)
    if present is None:
        return _scattered(entries, columns, geometry)
    # Absent entries have the column of another one, to which they add zero.
    entries = entries.where(present, 0)
    dense = entries.new_zeros(*entries.shape[:-1], geometry.pixels)
    return dense.scatter_add(-1, columns.expand(entries.shape), entries)


def _scattered(entries: Tensor, columns: Tensor, geometry: Geometry) -> Tensor:
    """Dense rows ``(*, N)`` of entries ``(*, K)`` at the columns, which broadcast to them."""
    dense = entries.new_zeros(*entries.shape[:-1], geometry.pixels)
    return dense.scatter(-1, columns.expand(entries.shape), entries)
