"""Parts of the sparsity pattern, without its index tensors: rows, entries, cells of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circulant_attention.geometry import Geometry

Interval = tuple[Any, Any]
"""The first and the last of consecutive pixels: two arrays of ints."""


def columns(geometry: Geometry, pixels: Tensor) -> Tensor:
    """The columns ``(*, K)`` of the stored entries in the rows ``pixels (*)``, ascending."""
    result = torch.zeros_like(pixels)[..., None]
    centres = _coordinates(geometry, pixels)
    for centre, size, width in zip(centres, geometry.spatial_size, geometry.window, strict=True):
        offsets = torch.arange(width, device=pixels.device) - width // 2
        neighbours = (centre[..., None] + offsets).remainder(size).sort(-1).values
        result = (result[..., :, None] * size + neighbours[..., None, :]).flatten(-2)
    return result


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
    for (row, column), size, width in zip(
        pairs, geometry.spatial_size, geometry.window, strict=True
    ):
        first = (row - width // 2).remainder(size)
        stored = stored & ((column - first).remainder(size) < width)
        # Neighbours across the upper border have the smallest columns and come first.
        across = (first + width - size).clamp(min=0)
        rank = torch.where(column < across, column, column - first + across)
        number = number * width + rank
    return number.where(stored, 0), stored


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
    found = _meet(geometry.spatial_size, geometry.window, rows, columns)
    nonempty: np.ndarray[Any, Any] = (rows[0] <= rows[1]) & (columns[0] <= columns[1]) & found
    return nonempty


def _meet(
    sizes: Sequence[int], widths: Sequence[int], rows: Interval, columns: Interval
) -> np.ndarray[Any, Any]:
    """:func:`meet` of intervals that are not empty."""
    if len(sizes) == 1:
        return _near(sizes[0], widths[0], rows, columns)
    found: Any = False
    for row, inner_rows in _parts(prod(sizes[1:]), rows):
        for column, inner_columns in _parts(prod(sizes[1:]), columns):
            pair = _near(sizes[0], widths[0], row, column)
            # A part without inner interval has all pixels of the inner dims.
            if inner_rows is not None and inner_columns is not None and pair.any():
                pair = pair & _meet(sizes[1:], widths[1:], inner_rows, inner_columns)
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


def _near(size: int, width: int, rows: Interval, columns: Interval) -> np.ndarray[Any, Any]:
    """Whether some points of two intervals on a circle are neighbours; False if one is empty."""
    ahead, behind = columns[0] - rows[1], rows[0] - columns[1]
    reach = width // 2
    near = (ahead <= reach) & (behind <= reach)
    near = near | (ahead <= reach - size) | (behind <= reach - size)
    result: np.ndarray[Any, Any] = near & (rows[0] <= rows[1]) & (columns[0] <= columns[1])
    return result
