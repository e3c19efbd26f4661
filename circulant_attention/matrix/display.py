"""Text of a Circulant: one line, Julia's Braille picture of its sparsity, a notebook's table."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry

if TYPE_CHECKING:
    from circulant_attention.matrix.tensor_like import TensorLike

# Dots of a cell, 4 rows by 2 columns, as bits of the Unicode block at U+2800.
_DOTS = torch.tensor([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_CELL_ROWS, _CELL_COLUMNS = _DOTS.shape
_BLANK = 0x2800
# Entries marked at a time: bounds the memory of a picture for any size of the matrix.
_CHUNK = 1 << 22


def summary(a: TensorLike) -> str:
    """One line: dtype, kernel length, spatial size, shape, stored entries, device, gradient."""
    window, sizes = _kernel_length(a.geometry), a.geometry.spatial_size
    grad = ", requires_grad=True" if a.requires_grad else ""
    return (
        f"Circulant({str(a.dtype).removeprefix('torch.')}, kernel-length {window}, "
        f"spatial-size {sizes}, shape {tuple(a.shape)}, {a.nnz} stored entries, "
        f"{a.device}{grad})"
    )


def picture(
    a: TensorLike, *, max_slices: int = 3, max_height: int = 19, max_width: int = 40
) -> str:
    """The summary, and a picture of the sparsity of the first (batch, head) slices.

    Args:
        a: The Circulant.
        max_slices: The number of slices before an ellipsis.
        max_height: Maximum lines of a picture.
        max_width: Maximum cells of a line.

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

    The rule of Julia's SparseArrays: a matrix larger than the picture is shrunk with its aspect
    ratio, and each stored entry sets the dot at its place.

    Args:
        geometry: The pattern.
        max_height: Maximum lines.
        max_width: Maximum cells of a line, without the brackets.

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


def card(a: TensorLike) -> str:
    """HTML for notebooks: a table of facts, and a Braille picture to unfold."""
    facts = {
        "shape": tuple(a.shape),
        "dtype": str(a.dtype).removeprefix("torch."),
        "spatial size": a.geometry.spatial_size,
        "kernel length": _kernel_length(a.geometry),
        "stored entries": f"{a.nnz:,} ({a.geometry.nnz_per_row} of {a.geometry.pixels:,} in a row)",
        "device": a.device,
        "requires grad": a.requires_grad,
    }
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(fact))}</td></tr>'
        for name, fact in facts.items()
    )
    drawn = picture(a, max_slices=1).partition("\n")[2]
    return (
        f"<div><b>Circulant</b><table>{rows}</table><details><summary>sparsity</summary>"
        f'<pre style="line-height:1.1">{html.escape(drawn)}</pre></details></div>'
    )


def _kernel_length(geometry: Geometry) -> int | tuple[int, ...]:
    """The window as Julia shows it: one int if all dims agree."""
    window = geometry.window
    return window[0] if len(set(window)) == 1 else window


def _dot(index: Tensor, dots: int, n: int) -> Tensor:
    scale = max(1, dots - 1) / max(1, n - 1)
    # Rounded from one on, as Julia numbers them: halves go to the even number.
    return (index.double() * scale + 1).round().long() - 1


def _entries(geometry: Geometry) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of the stored entries, some rows at a time."""
    step = max(1, _CHUNK // geometry.nnz_per_row)
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
