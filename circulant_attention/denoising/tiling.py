"""Tiles of a grid whose borders wrap: what must be computed for each, and how large they should be.

A tile with half a window around it is a circulant problem of its own, on a smaller grid. Its
windows wrap at the wrong places, but only in the rows of pixels nearer than half a window to its
borders: those of the tile itself are the rows of the whole problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """The extent of a tile in one dim, with what is computed around it.

    Attributes:
        start: First position of its block, which begins half a window before the tile.
        stop: One past the last position of the block. Positions beyond the borders wrap.
        margin: How far beyond the block its features look; 0 for a block that is the whole dim,
            where they wrap.
        inner: Where in the block the tile is.
    """

    start: int
    stop: int
    margin: int
    inner: slice


def spans(size: int, tile: int, halo: int, margin: int) -> list[Span]:
    """The tiles of one dim, in order.

    Args:
        size: The size of the dim.
        tile: The size of a tile; the last one may be smaller.
        halo: Half a window.
        margin: How far features look.

    Returns:
        Their spans. A tile whose halo would reach round the whole dim has all of it as its block.
    """
    result = []
    for start in range(0, size, tile):
        stop = min(start + tile, size)
        whole = _block(stop - start, size, halo) == size
        result.append(
            Span(0, size, 0, slice(start, stop)) if whole else padded(start, stop, halo, margin)
        )
    return result


def padded(start: int, stop: int, halo: int, margin: int) -> Span:
    """The span from start to stop with its halo, even where that reaches round the whole dim."""
    return Span(start - halo, stop + halo, margin, slice(halo, halo + stop - start))


def take(image: Tensor, rows: Span, columns: Span, *, margin: bool = False) -> Tensor:
    """The block of an image ``(..., H, W)``, with the margin around it on request."""
    for dim, span in ((-2, rows), (-1, columns)):
        around = span.margin if margin else 0
        start, stop = span.start - around, span.stop + around
        size = image.shape[dim]
        if (start, stop) != (0, size):
            positions = torch.arange(start, stop, device=image.device)
            image = image.index_select(dim, positions.remainder(size))
    return image


def best_tile(size: tuple[int, int], halo: int, pixels: int) -> tuple[int, int]:
    """The tile that costs least, among those whose blocks have so many pixels at most.

    Args:
        size: The sizes of the grid.
        halo: Half a window.
        pixels: The room that there is.

    Returns:
        Rows and columns; a single pixel if none has room.
    """
    height, width = size
    best: tuple[int, int, int] | None = None
    for down in range(1, height + 1):
        rows = -(-height // down)
        room = pixels // _block(rows, height, halo)
        columns = width if room >= width else room - 2 * halo
        if columns < 1:
            continue
        across = -(-width // columns)
        columns = -(-width // across)
        computed = down * _block(rows, height, halo) * across * _block(columns, width, halo)
        if best is None or computed < best[0]:
            best = computed, rows, columns
        if across == 1:
            break
    return (1, 1) if best is None else best[1:]


def _block(tile: int, size: int, halo: int) -> int:
    """How many pixels of a dim are computed for a tile."""
    return min(tile + 2 * halo, size)
