"""The picture: noisy, denoised, theirs, and where three pixels look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 640
"""Rows and columns of an image that are shown at most: noise is seen pixel by pixel."""

_COLOURS = ("#ffb000", "#00c2c7", "#ff4f81")
_DPI = 150
# The square of a slope from which on it counts as one: a twentieth of the range.
_STEEP = 0.05**2
_PANEL = 4.4


@dataclass(frozen=True)
class Panel:
    """An image ``(C, H, W)`` and what is written above it."""

    title: str
    pixels: Tensor


@dataclass(frozen=True)
class Mark:
    """A pixel and the weights ``(window, window)`` of its window, the pixel in the middle."""

    kind: str
    pixel: tuple[int, int]
    weights: Tensor


def shown_part(height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns in the middle of an image that the picture shows."""
    top, left = max(0, height - SHOWN) // 2, max(0, width - SHOWN) // 2
    return slice(top, min(height, top + SHOWN)), slice(left, min(width, left + SHOWN))


def telling_pixels(pixels: Tensor, window: int) -> dict[str, tuple[int, int]]:
    """A pixel in a flat place, one on an edge and one in texture, among those that are shown.

    Where it is flat the slopes are small all over the window. On an edge they are large and point
    the same way. In texture they are large all over the window and point all ways.

    Args:
        pixels: The image ``(C, H, W)`` without noise.
        window: The length of the window.

    Returns:
        Row and column of the pixel for "flat", "edge" and "texture".
    """
    from skimage import filters

    gaussian: Any = filters.gaussian  # without type annotations of its own
    rows, columns = shown_part(*pixels.shape[1:])
    grey = pixels[:, rows, columns].mean(0).double().numpy()

    def mean(image: Any) -> Any:
        """Over the window, of which a quarter is the standard deviation."""
        return gaussian(image, window / 4, mode="wrap")

    down, right = (np.roll(grey, -1, dim) - np.roll(grey, 1, dim) for dim in (0, 1))
    steepness = down**2 + right**2
    alike = mean(down) ** 2 + mean(right) ** 2
    everywhere = np.exp(mean(np.log(steepness + _STEEP)))
    evenly = everywhere / (mean(steepness) + _STEEP)
    # The structure tensor's determinant over its largest for this trace: 1 if no way is preferred.
    determinant = mean(down**2) * mean(right**2) - mean(down * right) ** 2
    all_ways = 4 * determinant / (mean(steepness) ** 2 + _STEEP**2)
    # Noise is best seen in the middle of the range.
    glare = (mean(grey) - 0.5) ** 2
    measures = {
        "flat": -mean(steepness) - _STEEP * glare,
        "edge": steepness * alike,
        "texture": evenly * all_ways * everywhere / (everywhere + 4 * _STEEP),
    }
    # Windows that do not wrap are easier to look at, and so are windows apart from each other; but
    # not every image has room for that.
    allowed = np.zeros(grey.shape, bool)
    allowed[tuple(slice(min(window // 2, (n - 1) // 2), n - window // 2) for n in grey.shape)] = 1
    chosen = {}
    for kind, measure in measures.items():
        candidates = allowed if allowed.any() else np.ones_like(allowed)
        at = np.unravel_index(np.argmax(np.where(candidates, measure, -np.inf)), grey.shape)
        row, column = int(at[0]), int(at[1])
        allowed[max(0, row - window) : row + window, max(0, column - window) : column + window] = 0
        chosen[kind] = row + rows.start, column + columns.start
    return chosen


def draw(title: str, panels: Sequence[Panel], marks: Sequence[Mark]) -> Figure:
    """Draws the three images above the windows of the three pixels.

    Args:
        title: The line above everything.
        panels: The images; the first one is what the weights are made from.
        marks: The pixels.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    rows, columns = shown_part(*panels[0].pixels.shape[1:])
    aspect = (rows.stop - rows.start) / (columns.stop - columns.start)
    heights = _PANEL * min(max(aspect, 0.4), 1.6) + 0.2, _PANEL / 2 + 0.3
    figure = Figure(figsize=(len(panels) * _PANEL, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    extent = (columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5)
    for place, panel in enumerate(panels):
        axes = upper.add_subplot(1, len(panels), place + 1)
        _show(axes, _displayable(panel.pixels[:, rows, columns]), panel.title, extent)
        for mark, colour in zip(marks, _COLOURS, strict=True):
            _outline(axes, mark, colour)
    for place, mark in enumerate(marks):
        left = lower.add_subplot(1, 2 * len(marks), 2 * place + 1)
        right = lower.add_subplot(1, 2 * len(marks), 2 * place + 2)
        _draw_mark((left, right), panels[0].pixels, mark, _COLOURS[place])
    return figure


def _draw_mark(pair: tuple[Axes, Axes], pixels: Tensor, mark: Mark, colour: str) -> None:
    """What lies in the window of a pixel, and how much attention it gets."""
    window = len(mark.weights)
    around = torch.arange(window) - window // 2
    for dim, at in zip((1, 2), mark.pixel, strict=True):
        pixels = pixels.index_select(dim, (at + around).remainder(pixels.shape[dim]))
    share = 100 * float(mark.weights.max())
    left, right = pair
    _show(left, _displayable(pixels), f"{mark.kind}: its window")
    _show(
        right,
        mark.weights.cpu().numpy(),
        f"weights, up to {share:.2g} %",
        cmap="inferno",
        vmax=None,
    )
    for axes in pair:
        axes.plot(window // 2, window // 2, "s", color="none", markeredgecolor=colour)
        for spine in axes.spines.values():
            spine.set(visible=True, color=colour, linewidth=2.5)


def _outline(axes: Axes, mark: Mark, colour: str) -> None:
    """The window of a pixel, where the image shows it."""
    from matplotlib.patches import Rectangle

    window = len(mark.weights)
    row, column = (at - window // 2 - 0.5 for at in mark.pixel)
    axes.add_patch(Rectangle((column, row), window, window, fill=False, color=colour, lw=1.8))


def _show(
    axes: Axes,
    image: Any,
    title: str,
    extent: Any = None,
    *,
    cmap: str = "gray",
    vmax: float | None = 1,
) -> None:
    axes.imshow(image, extent=extent, cmap=cmap, vmin=0, vmax=vmax)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _displayable(pixels: Tensor) -> Any:
    """``(C, H, W)`` as matplotlib wants it: within its range, colour last."""
    pixels = pixels.clamp(0, 1).movedim(0, -1)
    return (pixels[..., 0] if pixels.shape[-1] == 1 else pixels).cpu().numpy()


def save(figure: Figure, file: IO[bytes], format: str) -> None:
    """Writes a figure.

    Args:
        figure: The figure.
        file: Where to.
        format: A format that matplotlib knows, such as "png".
    """
    figure.savefig(file, format=format, dpi=_DPI)
