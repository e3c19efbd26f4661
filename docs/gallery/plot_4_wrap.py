"""
A map that wraps
================

The left and the right border of a world map are the same meridian. Zero padding leaves
a seam there; circulant attention has no border.
"""

import torch
from matplotlib import pyplot
from torch.nn.functional import pad

from circulant_attention import DistanceSimilarity, circulant_adjacency
from circulant_attention.denoising import patches

# %%
# A random world: waves that are periodic in longitude, long waves strongest. Noise is
# added to the heights.
torch.manual_seed(7)
rows, columns = 96, 192
frequency = torch.hypot(
    torch.fft.fftfreq(2 * rows)[:, None] * 2 * rows,
    torch.fft.rfftfreq(columns) * columns,
)
waves = torch.fft.rfft2(torch.randn(2 * rows, columns)) / frequency.clamp(min=2) ** 1.8
world = torch.fft.irfft2(waves)[:rows]  # half of a torus, so that top and bottom differ
world = (world - world.mean()) / world.std() + 0.4
sigma = 0.5
noisy = (world + sigma * torch.randn(world.shape))[None, None]

# %%
# Attention by patches in a window of 15 x 15. The poles do not wrap, so rows are padded
# by reflection in both cases. Columns are padded with zeros in one case only.
window, patch, half = 15, 5, 15 // 2


def denoise(image):
    features = patches(image, patch) / (3.5 * sigma)
    return circulant_adjacency(DistanceSimilarity(), features, features, window) @ image


reflected = pad(noisy, (0, 0, half, half), mode="reflect")
circulant = denoise(reflected)[0, 0, half:-half]
padded = denoise(pad(reflected, (half + patch, half + patch)))[0, 0, half:-half]
padded = padded[:, half + patch : -half - patch]

# %%
# The map, rotated so that the seam is in the middle. The curves are the root mean
# square errors along meridians.
images = {"the truth": world, "zero padding": padded, "circulant": circulant}
figure = pyplot.figure(figsize=(7.5, 7.6), layout="constrained")
axes = figure.subplot_mosaic(
    [["noisy"] * 3, list(images), ["error"] * 3], height_ratios=[3, 3, 1.5]
)
axes["noisy"].imshow(noisy[0, 0], cmap="terrain", vmin=-2.5, vmax=3)
axes["noisy"].set(
    xticks=[], yticks=[], title="heights as measured: left and right meet"
)
for name, image in images.items():
    turned = image.roll(columns // 2, 1)
    near = turned[:, columns // 2 - 48 : columns // 2 + 48]
    axes[name].imshow(near, cmap="terrain", vmin=-2.5, vmax=3)
    axes[name].plot([47.5, 47.5], [0, 3], "k", linewidth=1)
    axes[name].set(xticks=[], yticks=[], title=name)
    if image is not world:
        error = (turned - world.roll(columns // 2, 1)).square().mean(0).sqrt()
        axes["error"].plot(torch.linspace(0, 360, columns), error, label=name)
axes["error"].set(xlim=(0, 360), ylim=(0, None), xlabel="degrees east", ylabel="error")
axes["error"].legend(loc="upper left")
