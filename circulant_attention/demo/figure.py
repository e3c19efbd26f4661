"""The figure: the noisy image, what became of it, and the weights of three pixels."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

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


class Mark(NamedTuple):
    """A pixel and the weights ``(window, window)`` of its window, with the pixel in the middle."""

    name: str
    pixel: tuple[int, int]
    weights: Tensor
    boundary: str


def shown_part(size: torch.Size) -> tuple[slice, slice]:
    """The rows and columns in the middle of an image ``(..., height, width)`` that are shown."""
    starts = [max(0, n - SHOWN) // 2 for n in size[-2:]]
    rows, columns = (slice(a, min(n, a + SHOWN)) for a, n in zip(starts, size[-2:], strict=True))
    return rows, columns


def draw(title: str, panels: dict[str, Tensor], marks: list[Mark], format: str) -> bytes:
    """The content of a file with images above the windows of three of their pixels.

    The images are ``(C, H, W)``, from 0 (black) to 1 (white); the first one has the windows.
    """
    noisy = next(iter(panels.values()))
    rows, columns = shown_part(noisy.shape)
    aspect = (rows.stop - rows.start) / (columns.stop - columns.start)
    heights = _PANEL * min(max(aspect, 0.4), 1.6) + 0.2, _PANEL / 2 + 0.3
    figure = Figure(figsize=(len(panels) * _PANEL, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    extent = (columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5)
    images = upper.subplots(1, len(panels))
    for axes, (name, image) in zip(images, panels.items(), strict=True):
        _show(axes, image[:, rows, columns], name, extent=extent)
    for i, (colour, mark) in enumerate(zip(_COLOURS, marks, strict=True)):
        name, at, weights, boundary = mark
        window = len(weights)
        corner = [n - window // 2 - 0.5 for n in at]
        for axes in images:
            box = Rectangle(
                (corner[1], corner[0]), window, window, fill=False, color=colour, lw=1.8
            )
            axes.add_patch(box)
        around = torch.arange(window) - window // 2
        near = [(n + around) % size for n, size in zip(at, noisy.shape[1:], strict=True)]
        seen = noisy[:, near[0][:, None], near[1]]
        if boundary == "truncated":
            there = [near_one == n + around for near_one, n in zip(near, at, strict=True)]
            seen = seen * (there[0][:, None] & there[1])
        left, right = (lower.add_subplot(1, 2 * len(marks), 2 * i + k) for k in (1, 2))
        _show(left, seen, f"{name}: its window")
        text = f"weights, up to {100 * float(weights.max()):.2g} %"
        _show(right, weights[None] / weights.max(), text, cmap="inferno")
        for axes in (left, right):
            axes.plot(window // 2, window // 2, "s", color="none", markeredgecolor=colour)
            axes.spines[:].set(visible=True, color=colour, linewidth=2.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=_DPI)
    return buffer.getvalue()


def _show(axes: Axes, pixels: Tensor, title: str, **options: Any) -> None:
    image = pixels.clamp(0, 1).movedim(0, -1).cpu().numpy()
    settings: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, **options}
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, **settings)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
