"""
Sparsity in one, two and three dims
===================================

The entries that a :class:`~circulant_attention.Circulant` stores: one row per pixel,
one entry per pixel of the window. In one dim the pattern is a band, in two a band of
bands, in three a band of bands of bands. The far corners are where windows wrap.
"""

from matplotlib import pyplot

from circulant_attention import Circulant

grids = {
    "signal of 60": (60,),
    "image of 6 x 10": (6, 10),
    "volume of 3 x 4 x 5": (3, 4, 5),
}
matrices = {name: Circulant(3, (1, 1, *size)) for name, size in grids.items()}
print(matrices["image of 6 x 10"])

# %%
# All three have 60 rows, with 3, 9 and 27 entries. So the matrices fill up; larger
# grids are sparser. Column 0 is pixel 0, a neighbour of the last pixel in each.
figure, axes = pyplot.subplots(1, 3, figsize=(8.5, 3.6), layout="constrained")
for ax, (name, A) in zip(axes, matrices.items(), strict=True):
    A.spy(ax=ax)
    ax.set_title(f"{name}\n{A.geometry.nnz_per_row} entries in a row")

# %%
# Longer windows, and one per dim. Where the window is as long as the grid in a dim, the
# blocks of that dim are full.
windows = {
    "within grid rows": (1, 5),
    "within grid columns": (5, 1),
    "whole grid rows": (3, 9),
}
figure, axes = pyplot.subplots(1, 3, figsize=(8.5, 3.6), layout="constrained")
for ax, (name, window) in zip(axes, windows.items(), strict=True):
    Circulant(window, (1, 1, 7, 9)).spy(ax=ax)
    ax.set_title(f"image of 7 x 9, window {window}\n{name}")
