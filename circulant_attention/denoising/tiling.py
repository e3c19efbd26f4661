"""Tiles of an image: the pixels that each of them needs, and the best size of a tile.

A tile with half a window around it has all keys of its pixels: it is a valid problem of the native
ops, with its pixels as the queries. At a border that truncates windows keys are absent: there the
tile is a truncated problem with the halo among its queries, which is cropped. In tiles of hundreds
of pixels that takes no longer: absent keys are skipped, and where both dims are truncated the
queries are the keys, without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circulant_attention.ops.windows import CIRCULAR, TRUNCATED, VALID


@dataclass(frozen=True)
class Span:
    """The extent of a tile in one dim, with its halo.

    Attributes:
        start: First position of its block, which holds the keys.
        stop: One past the last position of the block. Positions may lie beyond the borders.
        inner: The positions of the tile in the block.
        boundary: That of the window on the block, as the native ops number it.
    """

    start: int
    stop: int
    inner: slice
    boundary: int

    def moved(self, distance: int) -> Span:
        """The same tile of an image that begins ``distance`` earlier."""
        return replace(self, start=self.start + distance, stop=self.stop + distance)

    @property
    def queries(self) -> slice:
        """The positions of the queries in the block."""
        return self.inner if self.boundary == VALID else slice(None)

    @property
    def crop(self) -> slice:
        """The positions of the tile in the result."""
        return slice(None) if self.boundary == VALID else self.inner


def spans(size: int, tile: int, halo: int, boundary: int) -> list[Span]:
    """The tiles of one dim, in order.

    Args:
        size: The size of the dim.
        tile: The size of a tile; the last one may be smaller.
        halo: Half a window.
        boundary: Of the image: ``CIRCULAR`` or ``TRUNCATED``.

    Returns:
        Their spans.
    """
    # A loop over a range would fix the size of a compiled graph.
    if tile >= size:
        return [Span(0, size, slice(0, size), boundary)]
    return spans_of_part(size, slice(0, size), tile, halo, boundary)


def spans_of_part(size: int, part: slice, tile: int, halo: int, boundary: int) -> list[Span]:
    """The tiles of a part of one dim, as for :func:`spans`."""
    result = []
    for start in range(part.start, part.stop, tile):
        stop = min(start + tile, part.stop)
        first, last = start - halo, stop + halo
        if boundary == CIRCULAR or (first >= 0 and last <= size):
            boundary_of_block = VALID
        else:
            first, last, boundary_of_block = max(first, 0), min(last, size), TRUNCATED
        result.append(Span(first, last, slice(start - first, stop - first), boundary_of_block))
    return result


def take(
    image: Tensor, rows: Span, columns: Span, border: tuple[int, int], margin: int = 0
) -> Tensor:
    """The block of an image ``(..., H, W)``, with more pixels around it if there is a margin.

    Beyond its borders, of rows and of columns, an image repeats if they are circular, and is
    mirrored otherwise.
    """
    for dim, extent, boundary in ((-2, rows, border[0]), (-1, columns, border[1])):
        start, stop = extent.start - margin, extent.stop + margin
        size = image.shape[dim]
        if (start, stop) != (0, size):
            positions = torch.arange(start, stop, device=image.device)
            period = size if boundary == CIRCULAR else max(1, 2 * (size - 1))
            positions = positions.remainder(period)
            if boundary != CIRCULAR:
                positions = torch.minimum(positions, period - positions)
            image = image.index_select(dim, positions)
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
    """The largest size of a tile's block in one dim."""
    return size if tile >= size else tile + 2 * halo
