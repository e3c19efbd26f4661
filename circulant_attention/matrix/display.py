"""Text of a Circulant: one line, Julia's Braille picture of its sparsity, a notebook's table."""

from __future__ import annotations

import html
import itertools
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from circulant_attention.geometry import Geometry
from circulant_attention.matrix import pattern

if TYPE_CHECKING:
    from circulant_attention.matrix.tensor_like import TensorLike

# Dots of a cell, 4 rows by 2 columns, as bits of the Unicode block at U+2800.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_CELL_ROWS, _CELL_COLUMNS = _DOTS.shape
_BLANK = 0x2800


def summary(a: TensorLike) -> str:
    """One line: dtype, kernel length, spatial size, shape, stored entries, device, gradient."""
    window, sizes = _window(a.geometry), a.geometry.spatial_size
    grad = ", requires_grad=True" if a.requires_grad else ""
    return (
        f"Circulant({str(a.dtype).removeprefix('torch.')}, {window}, "
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
    ratio, and each stored entry sets the dot at its place. No tensors are made: the picture is the
    same under every mode and default device of torch.

    Args:
        geometry: The pattern.
        max_height: Maximum lines.
        max_width: Maximum cells of a line, without the brackets.

    Returns:
        The lines of the picture.
    """
    n = int(geometry.pixels)
    dots = n
    if n > _CELL_ROWS * max_height or n > _CELL_COLUMNS * max_width:
        dots = int(min(_CELL_COLUMNS * max_width / n, _CELL_ROWS * max_height / n) * n)
    # Room for the four corners of the bracket.
    height, width = max(dots, 2 * _CELL_ROWS), max(dots, 2 * _CELL_COLUMNS)
    rows, columns = _pixels_of_dots(height, n), _pixels_of_dots(width, n)
    row, column = pattern.meet(geometry, tuple(rows[..., None]), tuple(columns)).nonzero()
    cells = np.zeros((-(-height // _CELL_ROWS), -(-width // _CELL_COLUMNS)), dtype=np.int64)
    bits = _DOTS[row % _CELL_ROWS, column % _CELL_COLUMNS]
    np.bitwise_or.at(cells, (row // _CELL_ROWS, column // _CELL_COLUMNS), bits)
    return "\n".join(_bracketed(cells))


def card(a: TensorLike) -> str:
    """HTML for notebooks: a table of facts, and a Braille picture to unfold."""
    facts = {
        "shape": tuple(a.shape),
        "dtype": str(a.dtype).removeprefix("torch."),
        "spatial size": a.geometry.spatial_size,
        **_window_facts(a.geometry),
        "stored entries": f"{a.nnz:,} ({_in_a_row(a.geometry)} of {a.geometry.pixels:,} in a row)",
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
    lengths = geometry.lengths
    return lengths[0] if len(set(lengths)) == 1 else lengths


def _window(geometry: Geometry) -> str:
    if geometry.general is None:
        return f"kernel-length {_kernel_length(geometry)}"
    return repr(geometry.window)


def _window_facts(geometry: Geometry) -> dict[str, Any]:
    facts: dict[str, Any] = {"kernel length": _kernel_length(geometry)}
    return facts if geometry.general is None else {**facts, "window": geometry.window}


def _in_a_row(geometry: Geometry) -> str:
    return f"{'up to ' if geometry.truncated else ''}{geometry.nnz_per_row}"


def _pixels_of_dots(dots: int, n: int) -> np.ndarray[Any, Any]:
    """The first and the last pixel that fall on each dot, ``(2, dots)``."""
    scale = max(1, dots - 1) / max(1, n - 1)

    def dot(pixel: int) -> int:
        # Rounded from one on, as Julia numbers them: halves go to the even number.
        return round(pixel * scale + 1) - 1

    starts = np.array([bisect_left(range(n), at, key=dot) for at in range(dots + 1)])
    return np.stack([starts[:-1], starts[1:] - 1])


def _bracketed(grid: np.ndarray[Any, Any]) -> Iterator[str]:
    last = len(grid) - 1
    for at, cells in enumerate(grid.tolist()):
        left, right = ("⎡", "⎤") if at == 0 else ("⎣", "⎦") if at == last else ("⎢", "⎥")
        yield left + "".join(chr(_BLANK + bits) for bits in cells) + right
