"""Pictures of a Circulant: where its entries are stored, and what one pixel attends to.

Only the functions that draw import matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.checks import is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import indexing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Maximum cells of a sparsity picture per side: more than a screen shows.
_CELLS = 512
# Entries drawn at a time: bounds the memory of a picture for any size of the matrix.
_CHUNK = 1 << 22
_MARK = "#ff3b6b"


def axes(ax: Axes | None) -> Axes:
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


def check_matrix(shape: torch.Size, head: object, batch: object) -> None:
    """Raises unless ``head`` and ``batch`` number a matrix of a Circulant of this shape."""
    for name, at, size in (("head", head, shape[1]), ("batch", batch, shape[0])):
        if not is_int(at):
            raise TypeError(f"expected {name} to be an int, got {type(at).__name__}")
        if not 0 <= at < size:
            raise ValueError(f"expected {name} from 0 to {size - 1}, got {at}")


def checked_position(pixel: int | Sequence[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The position of a pixel given by its number or by its position; raises unless it exists."""
    if is_int(pixel):
        pixels = torch.Size(sizes).numel()
        if not 0 <= pixel < pixels:
            raise ValueError(f"expected pixel from 0 to {pixels - 1}, got {pixel}")
        return tuple(int(at) for at in torch.unravel_index(torch.tensor(int(pixel)), sizes))
    if not isinstance(pixel, Sequence) or not all(is_int(at) for at in pixel):
        raise TypeError(f"expected pixel to be an int or one int per spatial dim, got {pixel!r}")
    if len(pixel) != len(sizes) or any(not 0 <= i < n for i, n in zip(pixel, sizes, strict=False)):
        raise ValueError(f"expected pixel in a grid of size {sizes}, got {tuple(pixel)}")
    return tuple(int(at) for at in pixel)


def spy(rows: Tensor, geometry: Geometry, title: str, ax: Axes) -> Axes:
    """Draws the entries ``(N, K)`` of one matrix; see :meth:`Circulant.spy`."""
    n = geometry.pixels
    ax.imshow(
        _largest_magnitudes(rows, geometry).numpy(),
        extent=(-0.5, n - 0.5, n - 0.5, -0.5),
        interpolation="nearest",
    )
    ax.set_title(title)
    ax.set_xlabel("column: key pixel")
    ax.set_ylabel("row: query pixel")
    return ax


def window_image(
    row: Tensor, geometry: Geometry, position: tuple[int, ...], title: str, ax: Axes
) -> Axes:
    """Draws the row ``(K,)`` of the pixel at ``position``; see :meth:`Circulant.window_image`."""
    weights = _row_on_grid(row, geometry, position)
    ax.set_title(f"{title}, row of pixel {', '.join(map(str, position))}")
    if weights.dim() == 1:
        ax.bar(range(len(weights)), weights.nan_to_num().numpy(), width=1.0)
        ax.axvline(position[0], color=_MARK, linestyle=":")
        ax.set_xlabel("pixel")
        return ax
    # A volume is shown by the slice of the pixel.
    plane = weights[position[0]] if weights.dim() == 3 else weights
    # NaN, outside of the window, is transparent.
    ax.imshow(plane.numpy(), interpolation="nearest")
    ax.plot(position[-1], position[-2], "s", color="none", markeredgecolor=_MARK, markersize=7)
    ax.set_xlabel("column of the grid")
    ax.set_ylabel("row of the grid")
    return ax


def _row_on_grid(row: Tensor, geometry: Geometry, position: tuple[int, ...]) -> Tensor:
    """The entries of a pixel's row in the shape of the grid, NaN outside of its window."""
    number = indexing.pixel_number(position, geometry.spatial_size)
    columns = geometry.col_indices("cpu").view(-1, geometry.nnz_per_row)[number]
    grid = torch.full((geometry.pixels,), torch.nan)
    grid[columns.long()] = _shown(row)
    return grid.reshape(geometry.spatial_size)


def _shown(entries: Tensor) -> Tensor:
    """Real float32 entries on the CPU, of complex ones the magnitudes."""
    entries = entries.detach()
    return (entries.abs() if entries.is_complex() else entries).float().cpu()


def _largest_magnitudes(rows: Tensor, geometry: Geometry) -> Tensor:
    """The largest magnitude in every cell of the picture, NaN where nothing is stored."""
    n = geometry.pixels
    side = min(n, _CELLS)
    cells = torch.full((side * side,), -torch.inf)
    columns = geometry.col_indices("cpu").view(n, geometry.nnz_per_row)
    step = max(1, _CHUNK // geometry.nnz_per_row)
    for start in range(0, n, step):
        stop = min(start + step, n)
        row = torch.arange(start, stop)[:, None] * side // n
        column = columns[start:stop].long() * side // n
        entries = _shown(rows[start:stop]).abs()
        cells.scatter_reduce_(0, (row * side + column).flatten(), entries.flatten(), "amax")
    return cells.masked_fill(cells.isneginf(), torch.nan).view(side, side)
