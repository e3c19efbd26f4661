"""Pictures of a Circulant: where its entries are stored, and what one pixel attends to.

Only the functions that draw import matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from circulant_attention.checks import check_matrix, is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import pattern
from circulant_attention.matrix.lazy import LazyValues

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Maximum cells of a sparsity picture per side: more than a screen shows.
_CELLS = 512
# Entries of the largest matrix that is drawn from all of them, and not from some of its rows.
_ENTRIES = 1 << 22
# Entries drawn at a time: bounds the memory of a picture for any size of the matrix.
_CHUNK = 1 << 18
_MARK = "#ff3b6b"
_STORED = "#d9d9d9"


def _checked_position(pixel: int | Sequence[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The position of a pixel given by its number or by its position; raises unless it exists."""
    if is_int(pixel):
        pixels = torch.Size(sizes).numel()
        if not 0 <= pixel < pixels:
            raise ValueError(f"expected pixel from 0 to {pixels - 1}, got {pixel}")
        return tuple(int(at) for at in np.unravel_index(int(pixel), sizes))
    if not isinstance(pixel, Sequence) or not all(is_int(at) for at in pixel):
        raise TypeError(f"expected pixel to be an int or one int per spatial dim, got {pixel!r}")
    position = tuple(int(at) for at in pixel)
    if len(pixel) != len(sizes) or any(
        not 0 <= i < n for i, n in zip(position, sizes, strict=False)
    ):
        raise ValueError(f"expected pixel in a grid of size {sizes}, got {position}")
    return position


@torch.no_grad()
def spy(
    source: Tensor | LazyValues,
    geometry: Geometry,
    head: int,
    batch: int,
    ax: Axes | None,
) -> Axes:
    """Draws one matrix; see :meth:`Circulant.spy`."""
    check_matrix(source.shape, head, batch)
    n = geometry.pixels
    side = min(n, _CELLS)
    title = f"A[{batch}, {head}]"
    if geometry.nnz <= _ENTRIES:
        entries, pixels = _matrix(source, geometry, head, batch), np.arange(n)
        rows = ((entries[part], pixels[part]) for part in _parts(n, geometry))
    else:
        # The middle one of the rows that a row of cells stands for.
        pixels = (2 * np.arange(side) + 1) * n // (2 * side)
        title += f", {side} of {n} rows (gray: not read)"
        rows = (
            (_rows(source, geometry, head, batch, pixels[part]), pixels[part])
            for part in _parts(side, geometry)
        )
    cells = _largest_magnitudes(rows, geometry, side)
    ax = _axes(ax)
    extent = (-0.5, n - 0.5, n - 0.5, -0.5)
    if len(pixels) < n:
        from matplotlib.colors import ListedColormap

        stored = np.where(_stored(geometry, side), 1.0, np.nan)
        ax.imshow(stored, extent=extent, interpolation="nearest", cmap=ListedColormap([_STORED]))
    ax.imshow(cells, extent=extent, interpolation="nearest")
    ax.set_title(title)
    ax.set_xlabel("column: key pixel")
    ax.set_ylabel("row: query pixel")
    return ax


@torch.no_grad()
def window_image(
    source: Tensor | LazyValues,
    geometry: Geometry,
    pixel: int | Sequence[int],
    head: int,
    batch: int,
    ax: Axes | None,
) -> Axes:
    """Draws the row of a pixel; see :meth:`Circulant.window_image`."""
    check_matrix(source.shape, head, batch)
    position = _checked_position(pixel, geometry.spatial_size)
    number = int(np.ravel_multi_index(position, geometry.spatial_size))
    weights = _row_on_grid(source, geometry, head, batch, number)
    ax = _axes(ax)
    ax.set_title(f"A[{batch}, {head}], row of pixel {', '.join(map(str, position))}")
    if weights.ndim == 1:
        ax.bar(range(len(weights)), np.nan_to_num(weights), width=1.0)
        ax.axvline(position[0], color=_MARK, linestyle=":")
        ax.set_xlabel("pixel")
        return ax
    # A volume is shown by the slice of the pixel.
    plane = weights[position[0]] if weights.ndim == 3 else weights
    # NaN, outside of the window, is transparent.
    ax.imshow(plane, interpolation="nearest")
    ax.plot(position[-1], position[-2], "s", color="none", markeredgecolor=_MARK, markersize=7)
    ax.set_xlabel("column of the grid")
    ax.set_ylabel("row of the grid")
    return ax


def _row_on_grid(
    source: Tensor | LazyValues, geometry: Geometry, head: int, batch: int, number: int
) -> np.ndarray[Any, Any]:
    """The entries of a pixel's row in the shape of the grid, NaN outside of its window."""
    pixels = np.array([number])
    row = _rows(source, geometry, head, batch, pixels)
    grid = np.full(geometry.pixels, np.nan, dtype=np.float32)
    columns = pattern.columns(geometry, torch.from_numpy(pixels))
    present = pattern.present(geometry, torch.from_numpy(pixels))
    there = slice(None) if present is None else present.numpy()
    grid[columns.numpy()[there]] = _shown(row)[there]
    return grid.reshape(geometry.spatial_size)


def _axes(ax: Axes | None) -> Axes:
    """The axes to draw on: new ones for None."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which is not installed: "
            "pip install 'circulant-attention[plot]'"
        ) from error
    return pyplot.subplots()[1]


def _rows(
    source: Tensor | LazyValues,
    geometry: Geometry,
    head: int,
    batch: int,
    pixels: np.ndarray[Any, Any],
) -> Tensor:
    """The rows ``(P, K)`` of some pixels; of lazy values no others are computed."""
    on_device = torch.from_numpy(pixels).to(source.device)
    if isinstance(source, LazyValues):
        return source.rows(on_device.new_tensor(batch * source.shape[1] + head), on_device)
    matrix = source[batch, head].view(geometry.pixels, geometry.nnz_per_row)
    return matrix[on_device]


def _matrix(source: Tensor | LazyValues, geometry: Geometry, head: int, batch: int) -> Tensor:
    """The rows ``(N, K)`` of one matrix; of lazy values no other matrix is computed."""
    if isinstance(source, LazyValues):
        return source.matrix(batch * source.shape[1] + head)
    return source[batch, head].reshape(geometry.pixels, geometry.nnz_per_row)


def _shown(entries: Tensor) -> np.ndarray[Any, Any]:
    """Real float32 entries on the CPU, of complex ones the magnitudes."""
    entries = entries.detach()
    shown: np.ndarray[Any, Any] = (
        (entries.abs() if entries.is_complex() else entries).float().cpu().numpy()
    )
    return shown


def _parts(rows: int, geometry: Geometry) -> Iterator[slice]:
    step = max(1, _CHUNK // geometry.nnz_per_row)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _largest_magnitudes(
    rows: Iterator[tuple[Tensor, np.ndarray[Any, Any]]], geometry: Geometry, side: int
) -> np.ndarray[Any, Any]:
    """The largest magnitude in every cell of the picture, NaN where no row has an entry.

    ``rows``: some entries ``(P, K)`` at a time, with the pixels of their rows.
    """
    n = geometry.pixels
    cells = torch.full((side * side,), -torch.inf, device="cpu")
    for entries, pixels in rows:
        row = torch.from_numpy(pixels)
        column = pattern.columns(geometry, row) * side // n
        cell = (row * side // n)[:, None] * side + column
        magnitudes = torch.from_numpy(_shown(entries)).abs()
        cells.scatter_reduce_(0, cell.flatten(), magnitudes.flatten(), "amax")
    drawn: np.ndarray[Any, Any] = cells.masked_fill(cells.isneginf(), torch.nan).numpy()
    return drawn.reshape(side, side)


def _stored(geometry: Geometry, side: int) -> np.ndarray[Any, Any]:
    """Whether an entry is stored in each cell of the picture."""
    ends = -(-np.arange(side + 1) * geometry.pixels // side)
    first, last = ends[:-1], ends[1:] - 1
    return pattern.meet(geometry, (first[:, None], last[:, None]), (first, last))
