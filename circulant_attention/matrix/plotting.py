"""Pictures of a Circulant: its sparsity and what one pixel attends to, and its card in notebooks.

matplotlib is needed by the functions that draw, and imported by nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.matrix.display import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from circulant_attention.matrix.circulant import Circulant

# Cells of a sparsity picture per side at most: more than a screen shows.
_CELLS = 512
# Entries looked at together: bounds the memory of a picture whatever the size of the matrix.
_CHUNK = 1 << 22
_MARK = "#ff3b6b"


def spy(a: Circulant, head: int, batch: int, ax: Axes | None) -> Axes:
    """Draws the stored entries of one matrix; see :meth:`Circulant.spy`."""
    head, batch = _lead(a, head, batch)
    ax = _axes(ax)
    n = a.geometry.pixels
    ax.imshow(
        _magnitudes(a, head, batch).numpy(),
        extent=(-0.5, n - 0.5, n - 0.5, -0.5),
        interpolation="nearest",
    )
    ax.set_title(f"A[{batch}, {head}]")
    ax.set_xlabel("column: key pixel")
    ax.set_ylabel("row: query pixel")
    return ax


def window_image(
    a: Circulant, pixel: int | Sequence[int], head: int, batch: int, ax: Axes | None
) -> Axes:
    """Draws one row of a matrix on its grid; see :meth:`Circulant.window_image`."""
    head, batch = _lead(a, head, batch)
    at = _coordinates(a, pixel)
    ax = _axes(ax)
    weights = _row_on_grid(a, at, head, batch)
    ax.set_title(f"A[{batch}, {head}], row of pixel {', '.join(map(str, at))}")
    if weights.dim() == 1:
        ax.bar(range(len(weights)), weights.nan_to_num().numpy(), width=1.0)
        ax.axvline(at[0], color=_MARK, linestyle=":")
        ax.set_xlabel("pixel")
        return ax
    # A volume is shown by the slice that the pixel lies in.
    plane = weights[at[0]] if weights.dim() == 3 else weights
    # What lies outside of the window is NaN, which is transparent.
    ax.imshow(plane.numpy(), interpolation="nearest")
    ax.plot(at[-1], at[-2], "s", color="none", markeredgecolor=_MARK, markersize=7)
    ax.set_xlabel("column of the grid")
    ax.set_ylabel("row of the grid")
    return ax


def card(a: Circulant) -> str:
    """What a notebook shows: a table of facts, and the Braille picture when unfolded."""
    window = a.window[0] if len(set(a.window)) == 1 else a.window
    facts = {
        "shape": tuple(a.shape),
        "dtype": str(a.dtype).removeprefix("torch."),
        "spatial size": a.spatial_size,
        "kernel length": window,
        "stored entries": f"{a.nnz:,} ({a.geometry.offsets} of {a.geometry.pixels:,} in a row)",
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


def _axes(ax: Axes | None) -> Axes:
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


def _lead(a: Circulant, head: int, batch: int) -> tuple[int, int]:
    for name, at, size in (("head", head, a.shape[1]), ("batch", batch, a.shape[0])):
        if not isinstance(at, int):
            raise TypeError(f"expected {name} to be an int, got {type(at).__name__}")
        if not 0 <= at < size:
            raise ValueError(f"expected {name} from 0 to {size - 1}, got {at}")
    return head, batch


def _coordinates(a: Circulant, pixel: int | Sequence[int]) -> tuple[int, ...]:
    """The position of a pixel that is given by its number or by its position."""
    sizes = a.spatial_size
    if isinstance(pixel, int):
        if not 0 <= pixel < a.geometry.pixels:
            raise ValueError(f"expected pixel from 0 to {a.geometry.pixels - 1}, got {pixel}")
        position = torch.unravel_index(torch.tensor(pixel), sizes)
        return tuple(int(at) for at in position)
    if not isinstance(pixel, Sequence) or not all(isinstance(at, int) for at in pixel):
        raise TypeError(f"expected pixel to be an int or one int per spatial dim, got {pixel!r}")
    if len(pixel) != len(sizes) or any(not 0 <= i < n for i, n in zip(pixel, sizes, strict=False)):
        raise ValueError(f"expected pixel in a grid of size {sizes}, got {tuple(pixel)}")
    return tuple(pixel)


def _row_on_grid(a: Circulant, at: tuple[int, ...], head: int, batch: int) -> Tensor:
    """The weights of a pixel's row in the shape of the grid, NaN outside of its window."""
    number = 0
    for position, size in zip(at, a.spatial_size, strict=True):
        number = number * size + position
    columns = a.geometry.col_indices(a.device).view(-1, a.geometry.offsets)[number]
    row = _shown(a.rows[batch, head, number])
    grid = torch.full((a.geometry.pixels,), torch.nan)
    grid[columns.long().cpu()] = row
    return grid.reshape(a.spatial_size)


def _shown(entries: Tensor) -> Tensor:
    entries = entries.detach()
    return (entries.abs() if entries.is_complex() else entries).float().cpu()


def _magnitudes(a: Circulant, head: int, batch: int) -> Tensor:
    """The largest magnitude in every cell of the picture, NaN where nothing is stored."""
    n, offsets = a.geometry.pixels, a.geometry.offsets
    side = min(n, _CELLS)
    cells = torch.full((side * side,), -torch.inf)
    columns = a.geometry.col_indices(a.device).view(n, offsets)
    step = max(1, _CHUNK // offsets)
    for start in range(0, n, step):
        stop = min(start + step, n)
        row = torch.arange(start, stop)[:, None] * side // n
        column = columns[start:stop].cpu().long() * side // n
        entries = _shown(a.rows[batch, head, start:stop]).abs()
        cells.scatter_reduce_(0, (row * side + column).flatten(), entries.flatten(), "amax")
    return cells.masked_fill(cells.isneginf(), torch.nan).view(side, side)
