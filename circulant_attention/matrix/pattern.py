"""Parts of the sparsity pattern, without its index tensors: rows, entries, cells of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circulant_attention.geometry import Geometry, neighbours, offset_numbers
from circulant_attention.window import WindowDim

Interval = tuple[Any, Any]
"""The first and the last of consecutive pixels: two arrays of ints."""


def columns(geometry: Geometry, pixels: Tensor) -> Tensor:
    """The columns ``(*, K)`` of the slots in the rows ``pixels (*)``.

    Those of the stored entries ascend. The column of an absent entry is that of one that is stored.
    """
    return _columns(geometry, pixels)[0]


def present(geometry: Geometry, pixels: Tensor) -> Tensor | None:
    """Whether each slot ``(*, K)`` in the rows ``pixels (*)`` has an entry; None if all have."""
    return _columns(geometry, pixels)[1] if geometry.truncated else None


def offsets(geometry: Geometry, pixels: Tensor) -> Tensor:
    """The numbers ``(*, K)`` of the offsets in the slots of the rows ``pixels (*)``."""
    result = torch.zeros_like(pixels)[..., None]
    centres = _coordinates(geometry, pixels)
    for centre, size, dim in zip(centres, geometry.spatial_size, geometry.dims, strict=True):
        own = offset_numbers(centre, size, dim)
        result = (result[..., :, None] * dim.length + own[..., None, :]).flatten(-2)
    return result


def _columns(geometry: Geometry, pixels: Tensor) -> tuple[Tensor, Tensor]:
    result = torch.zeros_like(pixels)[..., None]
    there = torch.ones_like(result, dtype=torch.bool)
    centres = _coordinates(geometry, pixels)
    for centre, size, dim in zip(centres, geometry.spatial_size, geometry.dims, strict=True):
        near, own = neighbours(centre, size, dim)
        result = (result[..., :, None] * size + near[..., None, :]).flatten(-2)
        there = (there[..., :, None] & own[..., None, :]).flatten(-2)
    return result, there


def place(geometry: Geometry, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Where the entries (row, column) are in their rows.

    Args:
        geometry: The pattern.
        rows: Pixels.
        columns: Pixels, broadcastable with ``rows``.

    Returns:
        Numbers from 0 to K - 1, and whether the entry is stored; where it is not, the number is 0.
    """
    number = torch.zeros_like(rows)
    stored = torch.ones_like(rows, dtype=torch.bool)
    pairs = zip(_coordinates(geometry, rows), _coordinates(geometry, columns), strict=True)
    for (row, column), size, dim in zip(pairs, geometry.spatial_size, geometry.dims, strict=True):
        # From the first neighbour in the order of the offsets.
        distance = column - row + dim.dilation * dim.before
        if dim.circular:
            distance = distance.remainder(size)
        stored = stored & (distance >= 0) & (distance < dim.span)
        stored = stored & (distance.remainder(dim.dilation) == 0)
        slot = distance.div(dim.dilation, rounding_mode="floor")
        if dim.circular:
            slot = (slot - _first_offset(row, size, dim)).remainder(dim.length)
        number = number * dim.length + slot
    return number.where(stored, 0), stored


def _first_offset(row: Tensor, size: int, dim: WindowDim) -> Tensor:
    """The offset, counted from the first one, of the neighbour with the lowest column."""
    left = (row - dim.dilation * dim.before).clamp(max=0).div(dim.dilation, rounding_mode="floor")
    # The neighbours up to the end of the circle come after those beyond it.
    until = (row - size).div(dim.dilation, rounding_mode="floor")
    beyond = row + dim.dilation * dim.after >= size
    return (-left).where(~beyond | (left < 0), dim.before - until)


def _coordinates(geometry: Geometry, pixels: Tensor) -> list[Tensor]:
    """The position of each pixel, one tensor per spatial dim."""
    coordinates = []
    for size in reversed(geometry.spatial_size):
        coordinates.append(pixels.remainder(size))
        pixels = pixels.div(size, rounding_mode="floor")
    return coordinates[::-1]


def meet(geometry: Geometry, rows: Interval, columns: Interval) -> np.ndarray[Any, Any]:
    """Whether an entry is stored in some row of an interval and some column of another.

    Intervals of row-major pixels are boxes per dim plus a partial box at each end, and the pattern
    is a product of bands, one per dim. So the cost is that of a few comparisons for each pair,
    however many pixels an interval has.

    Args:
        geometry: The pattern.
        rows: Intervals of pixels, empty where the last is less than the first.
        columns: The same, broadcastable with ``rows``.

    Returns:
        A bool for each pair.
    """
    found = _meet(geometry.spatial_size, geometry.dims, rows, columns)
    nonempty: np.ndarray[Any, Any] = (rows[0] <= rows[1]) & (columns[0] <= columns[1]) & found
    return nonempty


def _meet(
    sizes: Sequence[int], dims: Sequence[WindowDim], rows: Interval, columns: Interval
) -> np.ndarray[Any, Any]:
    """:func:`meet` of intervals that are not empty."""
    if len(sizes) == 1:
        return _near(sizes[0], dims[0], rows, columns)
    found: Any = False
    for row, inner_rows in _parts(prod(sizes[1:]), rows):
        for column, inner_columns in _parts(prod(sizes[1:]), columns):
            pair = _near(sizes[0], dims[0], row, column)
            # A part without inner interval has all pixels of the inner dims.
            if inner_rows is not None and inner_columns is not None and pair.any():
                pair = pair & _meet(sizes[1:], dims[1:], inner_rows, inner_columns)
            found = found | pair
    result: np.ndarray[Any, Any] = found
    return result


def _parts(block: int, pixels: Interval) -> list[tuple[Interval, Interval | None]]:
    """Intervals of pixels cut into intervals of the first dim, with those of the inner dims.

    ``block`` is the number of pixels of the inner dims.
    """
    (first, first_inner), (last, last_inner) = (np.divmod(end, block) for end in pixels)
    single = first == last
    return [
        ((first, first), (first_inner, np.where(single, last_inner, block - 1))),
        ((first + 1, last - 1), None),
        ((last, last - single), (0 * last_inner, last_inner)),
    ]


def _near(size: int, dim: WindowDim, rows: Interval, columns: Interval) -> np.ndarray[Any, Any]:
    """Whether some points of two intervals are neighbours; False if one is empty."""
    near: Any = False
    for turn in (-size, 0, size) if dim.circular else (0,):
        # The offsets from the last row to the first column, and from the first to the last.
        first = -((rows[1] - columns[0] + turn) // dim.dilation)
        last = (columns[1] - rows[0] - turn) // dim.dilation
        near = near | (np.maximum(first, -dim.before) <= np.minimum(last, dim.after))
    result: np.ndarray[Any, Any] = near & (rows[0] <= rows[1]) & (columns[0] <= columns[1])
    return result
