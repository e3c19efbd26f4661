"""Which columns each row stores: once by the definition, once by the Julia package's rule."""

from __future__ import annotations

import functools
import math

import numpy as np

Sizes = tuple[int, ...]


def window_per_dim(window: int | Sizes, spatial_size: Sizes) -> Sizes:
    """Write a window as one odd number per spatial dim."""
    return (window,) * len(spatial_size) if isinstance(window, int) else window


def cartesian_index(number: int, spatial_size: Sizes) -> Sizes:
    """Give the index of a pixel, from one in each dim; the first dim runs fastest."""
    rest = number - 1
    index = []
    for size in spatial_size:
        index.append(rest % size + 1)
        rest //= size
    return tuple(index)


def pixel_number(index: Sizes, spatial_size: Sizes) -> int:
    """Give the number of a pixel, ``h + H * (w - 1)`` in two dims: undoes `cartesian_index`."""
    number, stride = 1, 1
    for position, size in zip(index, spatial_size, strict=True):
        number += stride * (position - 1)
        stride *= size
    return number


@functools.cache
def row_columns(row: int, window: int | Sizes, spatial_size: Sizes) -> np.ndarray:
    """Give the columns stored in a row: the pixels of the circular window around it, ascending."""
    centre = cartesian_index(row, spatial_size)
    numbers, stride = np.ones(1, dtype=np.int32), 1
    for position, size, w in zip(
        centre, spatial_size, window_per_dim(window, spatial_size), strict=True
    ):
        neighbours = (position + np.arange(-(w // 2), w // 2 + 1) - 1) % size
        # Every pixel so far with every neighbour along this dim; see `pixel_number`.
        numbers = np.add.outer(numbers, stride * neighbours).ravel()
        stride *= size
    return np.sort(numbers).astype(np.int32)


@functools.cache
def circulant_pattern(window: int | Sizes, spatial_size: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Give ``rowPtr (N+1)`` and ``colVal (N*K)`` of one circulant matrix, counting from one."""
    pixels = math.prod(spatial_size)
    per_row = math.prod(window_per_dim(window, spatial_size))
    row_ptr = np.array([1 + per_row * row for row in range(pixels + 1)], dtype=np.int32)
    col_val = np.concatenate(
        [row_columns(row, window, spatial_size) for row in range(1, pixels + 1)]
    )
    return row_ptr, col_val


def rotated_offset(slot: int, position: int, size: int, window: int) -> int:
    """Give the offset that Julia's rule puts into a slot of a window, along one dim.

    Away from the boundary slot 1 holds the offset -p. Within p pixels of the first pixel the slots
    turn left, within p pixels of the last one right, by as many slots as the window reaches over.
    """
    p = window // 2
    turned = slot - 1
    if position <= p:
        turned += p + 1 - position
    elif position > size - p:
        turned += size - p - position
    return turned % window - p


def cartesian_circulant(entry: int, spatial_size: Sizes, window: int) -> tuple[int, int]:
    """Give (column, row) of a stored entry by the rule of the Julia package, in one or two dims."""
    if len(spatial_size) not in (1, 2):
        raise ValueError(f"the Julia package knows 1 or 2 spatial dims, not {len(spatial_size)}")
    slots_per_dim = (window,) * len(spatial_size)
    row, slot_number = divmod(entry - 1, math.prod(slots_per_dim))
    row, slots = row + 1, cartesian_index(slot_number + 1, slots_per_dim)
    column = []
    for slot, position, size in zip(
        slots, cartesian_index(row, spatial_size), spatial_size, strict=True
    ):
        offset = rotated_offset(slot, position, size, window)
        column.append((position + offset - 1) % size + 1)
    return pixel_number(tuple(column), spatial_size), row
