"""Tiles of a grid that wraps: the block to compute for each tile, and the best size of a tile.

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
    """The extent of a tile in one dim, with its halo.

    Attributes:
        start: First position of its block, half a window before the tile.
        stop: One past the last position of the block. Positions beyond the borders wrap.
        inner: The positions of the tile in the block.
    """

    start: int
    stop: int
    inner: slice


def spans(size: int, tile: int, halo: int) -> list[Span]:
    """The tiles of one dim, in order.

    Args:
        size: The size of the dim.
        tile: The size of a tile; the last one may be smaller.
        halo: Half a window.

    Returns:
        Their spans. The block of a tile is the whole dim if the halo reaches around it.
    """
    # A loop over a range would fix the size of a compiled graph.
    if tile >= size:
        return [Span(0, size, slice(0, size))]
    result = []
    for start in range(0, size, tile):
        stop = min(start + tile, size)
        whole = _block(stop - start, size, halo) == size
        result.append(Span(0, size, slice(start, stop)) if whole else span(start, stop, halo))
    return result


def span(start: int, stop: int, halo: int) -> Span:
    """The span of the tile from start to stop with its halo, even if that is the whole dim."""
    return Span(start - halo, stop + halo, slice(halo, halo + stop - start))


def take(image: Tensor, rows: Span, columns: Span, margin: int = 0) -> Tensor:
    """The block of an image ``(..., H, W)``, with more pixels around it if there is a margin."""
    for dim, extent in ((-2, rows), (-1, columns)):
        start, stop = extent.start - margin, extent.stop + margin
        size = image.shape[dim]
        if (start, stop) != (0, size):
            positions = torch.arange(start, stop, device=image.device)
            image = image.index_select(dim, positions.remainder(size))
    return image


def best_tile(size: tuple[int, int], halo: int, pixels: int) -> tuple[int, int]:
    """The cheapest tile whose block has at most ``pixels`` pixels.

    Args:
        size: The sizes of the grid.
        halo: Half a window.
        pixels: Maximum pixels per block.

    Returns:
        Rows and columns; a single pixel if no block is small enough.
    """
    height, width = size
    if height * width <= pixels:
        return size
    best: tuple[int, int, int] | None = None
    for down in range(1, height + 1):
        rows = -(-height // down)
        allowed = pixels // _block(rows, height, halo)
        columns = width if allowed >= width else allowed - 2 * halo
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
    """The size of a tile's block in one dim."""
    return min(tile + 2 * halo, size)
