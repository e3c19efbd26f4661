"""
Missing data, filled in
=======================

The brightness of a photograph is known everywhere, its colour at one pixel in fifty. A
mask leaves the other pixels out of the keys, and a bias that falls with the distance
prefers near ones: each pixel takes its colour from known pixels that are as bright.
"""

import torch
from matplotlib import pyplot
from scipy.interpolate import griddata
from skimage import data
from torch.nn.functional import avg_pool2d

from circulant_attention import DistanceSimilarity, Window, circulant_attention

torch.manual_seed(0)
photograph = torch.from_numpy(data.coffee()).float().movedim(-1, 0)[None] / 255
photograph = avg_pool2d(photograph, 4)
grey = photograph.mean(1, keepdim=True)
known = torch.rand(1, *photograph.shape[2:]) < 0.02
# Any finite number will do where the colour is missing.
colour = (photograph - grey).where(known[:, None], 0)

# %%
# Scores are :math:`-|g_i - g_j|^2 / (2 h^2)` of the brightness g, with a bias
# :math:`-|o|^2 / (2 \rho^2)` of each offset o. ``key_mask`` is True where a key takes
# part. The window sees 41 x 41 pixels, and ends at the borders of the photograph.
brightness, distance, reach = 0.06, 6.0, 20
offset = torch.arange(-reach, reach + 1.0)
bias = -(offset[:, None] ** 2 + offset**2) / (2 * distance**2)
features = grey / brightness


def fill(window, **terms):
    y, A = circulant_attention(
        DistanceSimilarity(),
        features,
        features,
        colour,
        window,
        key_mask=known,
        **terms,
    )
    return grey + y, A


whole = Window(2 * reach + 1, boundary="truncated")
filled, A = fill(whole, bias=bias[None])
unbiased, _ = fill(whole)

# %%
# In a window of 7 x 7 pixels many rows have no key. Their weights are zeros, and so is
# their colour.
small = Window(7, boundary="truncated")
part, B = fill(small, bias=bias[None, reach - 3 : reach + 4, reach - 3 : reach + 4])
print(f"rows without a key: {(B.sum(-1) == 0).float().mean():.1%}")

# %%
# Beside the colour of the nearest known pixel, which knows nothing of edges.
points = known[0].nonzero().numpy()
values = (colour[0].movedim(0, -1)[known[0]]).numpy()
grid = torch.ones_like(known[0]).nonzero().numpy()
nearest = torch.from_numpy(griddata(points, values, grid, method="nearest"))
nearest = grey + nearest.mT.reshape(photograph.shape)

panels = {
    "photograph": photograph,
    "known": grey + colour.where(known[:, None], 0),
    "nearest known pixel": nearest,
    "window of 7 x 7": part,
    "without the bias": unbiased,
    "with the bias": filled,
}
figure, axes = pyplot.subplots(2, 3, figsize=(7.5, 3.9), layout="constrained")
for ax, (name, image) in zip(axes.flat, panels.items(), strict=True):
    ax.imshow(image[0].movedim(0, -1).clamp(0, 1))
    error = (image - photograph).square().mean()
    ratio = "" if name in ("photograph", "known") else f": {-10 * error.log10():.1f} dB"
    ax.set(xticks=[], yticks=[], title=name + ratio)
