"""
Sparsity in one, two and three dims
===================================

Which entries a :class:`~circulant_attention.Circulant` stores: one row per pixel, one
entry per pixel of the window. The pattern of a grid of two dims is a band of bands,
that of three dims a band of those; the far corners are where windows wrap.
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
# All three have 60 rows. A row has 3, 9 and 27 entries, so the matrices fill up: what
# is sparse is a large grid. Column 0 of every picture is pixel 0, which is a neighbour
# of the last pixel in every one of them.
figure, axes = pyplot.subplots(1, 3, figsize=(8.5, 3.6), layout="constrained")
for ax, (name, A) in zip(axes, matrices.items(), strict=True):
    A.spy(ax=ax)
    ax.set_title(f"{name}\n{A.geometry.nnz_per_row} entries in a row")

# %%
# Longer windows, and one per dim: where the window is as long as the grid in a dim, the
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
