"""
What one pixel attends to
=========================

A row of the attention matrix, laid out on the grid, shows the weights of one pixel.
Here: a pixel in a flat region, one on an edge and one in texture, by the distance of
patches and by their dot product. The largest weight is in brackets.
"""

import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from skimage import data

from circulant_attention import DistanceSimilarity, DotSimilarity, circulant_adjacency
from circulant_attention.denoising import patches

photograph = torch.from_numpy(data.camera()[90:258, 300:500]).float() / 255
window, patch = 25, 5
pixels = {"flat": (30, 40), "edge": (76, 111), "texture": (84, 168)}

# %%
# Features are patches. For the dot product, the mean and most of the contrast are
# removed, so that it compares shape instead of brightness and contrast.
features = patches(photograph[None, None], patch)
distance = circulant_adjacency(DistanceSimilarity(), 4 * features, 4 * features, window)
shapes = features - features.mean(1, keepdim=True)
shapes = 3 * shapes / (shapes.norm(dim=1, keepdim=True) + 0.1)
dot = circulant_adjacency(DotSimilarity(), shapes, shapes, window)

# %%
# Left: the photograph, the three windows, and the weights by distance, each scaled to
# its largest. Right: the contents of the windows.
colours = ["#ffb000", "#00c2c7", "#ff4f81"]
figure = pyplot.figure(figsize=(9.5, 5.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.3])
ax = left.subplots()
ax.imshow(photograph, cmap="gray")
ax.set(xticks=[], yticks=[], title="the photograph")
axes = right.subplots(3, 3)
for column, ((name, pixel), colour) in enumerate(
    zip(pixels.items(), colours, strict=True)
):
    row, col = pixel
    corner = (col - window / 2, row - window / 2)
    weights = distance.rows[0, 0, row * photograph.shape[1] + col]
    tint = torch.tensor(to_rgb(colour)).expand(window, window, 3)
    strength = 0.8 * (weights / weights.max()).reshape(window, window, 1)
    ax.imshow(
        torch.cat([tint, strength], 2),
        extent=(corner[0], corner[0] + window, corner[1] + window, corner[1]),
    )
    ax.set(
        xlim=(-0.5, photograph.shape[1] - 0.5), ylim=(photograph.shape[0] - 0.5, -0.5)
    )
    ax.add_patch(
        Rectangle(corner, window, window, fill=False, color=colour, linewidth=2)
    )
    ax.text(corner[0], corner[1] - 2, name, color=colour, weight="bold")
    limits = {
        "xlim": (col - window / 2, col + window / 2),
        "ylim": (row + window / 2, row - window / 2),
        "xticks": [],
        "yticks": [],
        "xlabel": "",
        "ylabel": "",
    }
    axes[0, column].imshow(photograph, cmap="gray", vmin=0, vmax=1)
    axes[0, column].set(**limits, title=name)
    for below, (A, label) in enumerate(
        [(distance, "distance"), (dot, "dot product")], start=1
    ):
        A.window_image(pixel, ax=axes[below, column])
        largest = A.rows[0, 0, row * photograph.shape[1] + col].max()
        axes[below, column].set(
            **limits, title=f"{label} ({100 * float(largest):.1f} %)"
        )
    for panel in axes[:, column]:
        for spine in panel.spines.values():
            spine.set(color=colour, linewidth=2)
