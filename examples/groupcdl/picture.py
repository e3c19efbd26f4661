"""Draws docs/images/groupcdl.png: a photograph with noise, denoised, and the groups of two pixels.

python -m examples.groupcdl.picture trained_nets/GroupCDL-25
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data
from torch import Tensor

from circulant_attention import Circulant, kernel_length
from examples.groupcdl import checkpoint
from examples.groupcdl.images import add_noise, psnr
from examples.groupcdl.network import GroupCDL, Identity

SIGMA = 25 / 255
CORNER, SIZE = (80, 150), 192  # the part of the photograph
# Pixels of the codes (row, column): on the camera and on the coat.
PIXELS = {"#ffb000": (38, 60), "#00c2c7": (71, 26)}
TARGET = Path(__file__).parents[2] / "docs" / "images" / "groupcdl.png"


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m examples.groupcdl.picture")
    parser.add_argument("checkpoint", type=Path, help="a folder with net.bson and config.yaml")
    parser.add_argument("--output", type=Path, default=TARGET, help="the file (%(default)s)")
    options = parser.parse_args()
    net = checkpoint.load(options.checkpoint)
    row, column = CORNER
    part = data.camera()[row : row + SIZE, column : column + SIZE]
    clean = torch.tensor(part, dtype=torch.float32)[None, None] / 255
    noisy = add_noise(clean, SIGMA, 0, "camera")
    denoised, matrix = run(net, noisy)
    figure, axes = pyplot.subplots(1, 4, figsize=(10, 2.75), layout="constrained")
    for ax, title, x in (
        (axes[0], f"noisy, {psnr(noisy, clean):.2f} dB", noisy),
        (axes[1], f"GroupCDL, {psnr(denoised, clean):.2f} dB", denoised),
    ):
        ax.imshow(x[0, 0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=title)
    stride = net.config.s
    for ax, (colour, pixel) in zip(axes[2:], PIXELS.items(), strict=True):
        mark_window(axes[1], pixel, net.config.nlss_windowsize, stride, colour)
        draw_weights(ax, matrix, pixel, colour)
    figure.savefig(options.output, dpi=100)
    pyplot.close(figure)
    # 256 colours are enough, and a third of the bytes.
    Image.open(options.output).convert("RGB").quantize(256).save(options.output, optimize=True)


@torch.no_grad()
def run(net: GroupCDL, noisy: Tensor) -> tuple[Tensor, Circulant]:
    """The image, and the last matrix of the network."""
    y, _, _ = net.preprocess(noisy)
    _, matrix = net.encode(y, torch.tensor(SIGMA), Identity())
    return net(noisy, SIGMA), matrix


def mark_window(ax: Axes, pixel: tuple[int, int], window: int, stride: int, colour: str) -> None:
    """Frame the window of a pixel of the codes on the image."""
    row, column = (stride * (at - window // 2) - 0.5 for at in pixel)
    side = stride * window
    ax.add_patch(Rectangle((column, row), side, side, fill=False, color=colour, linewidth=1.5))


def draw_weights(ax: Axes, matrix: Circulant, pixel: tuple[int, int], colour: str) -> None:
    """The row of a pixel in its window; colours follow the square root of the weights."""
    image = matrix.window_image(pixel, ax=ax).images[-1]
    image.set_norm(PowerNorm(0.5))
    radius = kernel_length(matrix) // 2
    row, column = pixel
    ax.set(
        xlim=(column - radius - 0.5, column + radius + 0.5),
        ylim=(row + radius + 0.5, row - radius - 0.5),
        **{"xticks": [], "yticks": [], "xlabel": "", "ylabel": ""},
        title=f"largest weight {np.nanmax(image.get_array()):.3f}",
    )
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=2)


if __name__ == "__main__":
    main()
