"""The figure: the noisy image, what became of it, and the weights of three pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

SHOWN = 640
"""The figure shows at most so many rows and columns, so that single pixels can be seen."""

_COLOURS = ("#ffb000", "#00c2c7", "#ff4f81")
_DPI = 150
_PANEL = 4.4


@dataclass(frozen=True)
class Mark:
    """A pixel and the weights ``(window, window)`` of its window, with the pixel in the middle."""

    name: str
    pixel: tuple[int, int]
    weights: Tensor


def shown_part(height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns in the middle of an image that the figure shows."""
    top, left = max(0, height - SHOWN) // 2, max(0, width - SHOWN) // 2
    return slice(top, min(height, top + SHOWN)), slice(left, min(width, left + SHOWN))


def draw(title: str, panels: dict[str, Tensor], marks: Sequence[Mark], format: str) -> bytes:
    """The content of a file with images above the windows of three of their pixels.

    The images are ``(C, H, W)``, from 0 (black) to 1 (white); the first one has the windows.
    """
    noisy = next(iter(panels.values()))
    rows, columns = shown_part(*noisy.shape[1:])
    aspect = (rows.stop - rows.start) / (columns.stop - columns.start)
    heights = _PANEL * min(max(aspect, 0.4), 1.6) + 0.2, _PANEL / 2 + 0.3
    figure = Figure(figsize=(len(panels) * _PANEL, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    extent = (columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5)
    for axes, (name, image) in zip(upper.subplots(1, len(panels)), panels.items(), strict=True):
        _show(axes, _displayable(image[:, rows, columns]), name, extent=extent)
        for mark, colour in zip(marks, _COLOURS, strict=True):
            window = len(mark.weights)
            row, column = (at - window // 2 - 0.5 for at in mark.pixel)
            outline = Rectangle((column, row), window, window, fill=False, color=colour, lw=1.8)
            axes.add_patch(outline)
    pairs = lower.subplots(1, 2 * len(marks)).reshape(-1, 2)
    for pair, mark, colour in zip(pairs, marks, _COLOURS, strict=True):
        _draw_mark(pair, noisy, mark, colour)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=_DPI)
    return buffer.getvalue()


def _draw_mark(pair: Sequence[Axes], pixels: Tensor, mark: Mark, colour: str) -> None:
    """The window of a pixel, and its weights."""
    window = len(mark.weights)
    around = torch.arange(window) - window // 2
    for dim, at in zip((1, 2), mark.pixel, strict=True):
        pixels = pixels.index_select(dim, (at + around).remainder(pixels.shape[dim]))
    share = 100 * float(mark.weights.max())
    left, right = pair
    _show(left, _displayable(pixels), f"{mark.name}: its window")
    title = f"weights, up to {share:.2g} %"
    _show(right, mark.weights.cpu().numpy(), title, cmap="inferno", vmax=None)
    for axes in pair:
        axes.plot(window // 2, window // 2, "s", color="none", markeredgecolor=colour)
        for spine in axes.spines.values():
            spine.set(visible=True, color=colour, linewidth=2.5)


def _show(axes: Axes, image: Any, title: str, **options: Any) -> None:
    settings: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, **options}
    axes.imshow(image, **settings)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _displayable(pixels: Tensor) -> Any:
    """``(C, H, W)`` as matplotlib takes it: between 0 and 1, channels last."""
    pixels = pixels.clamp(0, 1).movedim(0, -1)
    return (pixels[..., 0] if pixels.shape[-1] == 1 else pixels).cpu().numpy()
