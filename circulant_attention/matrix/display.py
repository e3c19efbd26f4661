"""How a Circulant is shown: one line, and Julia's Braille picture of its sparsity."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry

if TYPE_CHECKING:
    from circulant_attention.matrix.circulant import Circulant

# Dots of a cell, 4 rows by 2 columns, as bits of the Unicode block at U+2800.
_DOTS = torch.tensor([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_CELL_ROWS, _CELL_COLUMNS = _DOTS.shape
_BLANK = 0x2800
# Entries looked at together: bounds the memory of a picture whatever the size of the matrix.
_CHUNK = 1 << 22


def summary(a: Circulant) -> str:
    """One line: dtype, kernel length, spatial size, shape, stored entries, device, gradient."""
    window = a.window[0] if len(set(a.window)) == 1 else a.window
    grad = ", requires_grad=True" if a.requires_grad else ""
    return (
        f"Circulant({str(a.dtype).removeprefix('torch.')}, kernel-length {window}, "
        f"spatial-size {a.spatial_size}, shape {tuple(a.shape)}, {a.nnz} stored entries, "
        f"{a.device}{grad})"
    )


def picture(a: Circulant, *, max_slices: int = 3, max_height: int = 19, max_width: int = 40) -> str:
    """The summary, and a picture of the sparsity of the first (batch, head) slices.

    Args:
        a: What to show.
        max_slices: How many slices are shown before an ellipsis.
        max_height: Lines of a picture at most.
        max_width: Cells of a picture's line at most.

    Returns:
        Several lines of text.
    """
    batch, heads = a.shape[:2]
    lines = [summary(a)]
    if batch * heads:
        drawn = braille(a.geometry, max_height=max_height, max_width=max_width)
        slices = itertools.product(range(batch), range(heads))
        for b, h in itertools.islice(slices, max_slices):
            lines += [f"[{b}, {h}, :, :] =", drawn]
        if batch * heads > max_slices:
            lines.append("⋮")
    return "\n".join(lines)


def braille(geometry: Geometry, *, max_height: int, max_width: int) -> str:
    """The sparsity pattern as a bracketed grid of Braille cells.

    The rule of Julia's SparseArrays: a matrix larger than the picture is shrunk, keeping its
    aspect ratio, and each stored entry sets the dot that it falls on.

    Args:
        geometry: The pattern.
        max_height: Lines at most.
        max_width: Cells of a line at most, without the brackets.

    Returns:
        The lines of the picture.
    """
    n = geometry.pixels
    dots = n
    if n > _CELL_ROWS * max_height or n > _CELL_COLUMNS * max_width:
        dots = int(min(_CELL_COLUMNS * max_width / n, _CELL_ROWS * max_height / n) * n)
    # Room for the four corners of the bracket.
    height, width = max(dots, 2 * _CELL_ROWS), max(dots, 2 * _CELL_COLUMNS)
    grid = torch.zeros(-(-height // _CELL_ROWS), -(-width // _CELL_COLUMNS), dtype=torch.long)
    is_set = torch.zeros(height, width, dtype=torch.bool)
    for rows, columns in _entries(geometry):
        is_set[_dot(rows, height, n), _dot(columns, width, n)] = True
    row, column = is_set.nonzero(as_tuple=True)
    bits = _DOTS[row % _CELL_ROWS, column % _CELL_COLUMNS]
    grid.index_put_((row // _CELL_ROWS, column // _CELL_COLUMNS), bits, accumulate=True)
    return "\n".join(_bracketed(grid))


def _dot(index: Tensor, dots: int, n: int) -> Tensor:
    scale = max(1, dots - 1) / max(1, n - 1)
    # Rounded from one on, as Julia numbers them: halves go to the even number.
    return (index.double() * scale + 1).round().long() - 1


def _entries(geometry: Geometry) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of the stored entries, some rows at a time."""
    step = max(1, _CHUNK // geometry.offsets)
    for start in range(0, geometry.pixels, step):
        rows = torch.arange(start, min(start + step, geometry.pixels))
        columns = torch.zeros(len(rows), 1, dtype=torch.long)
        coordinates = torch.unravel_index(rows, geometry.spatial_size)
        for centre, size, width in zip(
            coordinates, geometry.spatial_size, geometry.window, strict=True
        ):
            offset = torch.arange(width) - width // 2
            neighbour = (centre[:, None] + offset).remainder(size)
            columns = (columns[:, :, None] * size + neighbour[:, None, :]).flatten(1)
        yield rows[:, None].expand_as(columns), columns


def _bracketed(grid: Tensor) -> Iterator[str]:
    last = len(grid) - 1
    for at, cells in enumerate(grid.tolist()):
        left, right = ("⎡", "⎤") if at == 0 else ("⎣", "⎦") if at == last else ("⎢", "⎥")
        yield left + "".join(chr(_BLANK + bits) for bits in cells) + right
