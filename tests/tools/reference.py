"""Circulant attention written out densely in float64: the independent witness of the tests.

Neighbours are found by looking at every pair of pixels, so nothing here knows of CSR order,
rotation or offsets.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def mask(spatial_size: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """Which (row, column) pairs are neighbours, ``(N, N)`` bool."""
    points = torch.tensor(list(itertools.product(*map(range, spatial_size))), dtype=torch.int32)
    near = torch.ones(len(points), len(points), dtype=torch.bool)
    for at, size, width in zip(points.T, spatial_size, window, strict=True):
        apart = (at[:, None] - at).abs()
        near &= torch.minimum(apart, size - apart) <= width // 2
    return near


def widths(window: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """One width per dim."""
    return (window,) * dims if isinstance(window, int) else tuple(window)


def similarity(name: str, x: Tensor, y: Tensor, window: int | tuple[int, ...]) -> Tensor:
    """Dense ``(B, N, N)`` similarities of ``(B, C, *spatial)``, zero outside the window."""
    near = mask(tuple(x.shape[2:]), widths(window, x.dim() - 2)).to(x.device)
    x, y = x.flatten(2), y.flatten(2)
    if name == "dot":
        full = torch.einsum("bci,bcj->bij", x, y.conj()).real
    else:
        difference = x[:, :, :, None] - y[:, :, None, :]
        full = -0.5 * (difference * difference.conj()).real.sum(1)
    return torch.where(near, full, 0)


def adjacency(name: str, x: Tensor, y: Tensor, window: int | tuple[int, ...]) -> Tensor:
    """Dense row softmax over the window, ``(B, N, N)``."""
    near = mask(tuple(x.shape[2:]), widths(window, x.dim() - 2)).to(x.device)
    scores = similarity(name, x, y, window)
    return torch.where(near, scores, -torch.inf).softmax(-1)


def apply(matrix: Tensor, x: Tensor) -> Tensor:
    """``(B, N, N)`` applied to ``(B, C, *spatial)``."""
    if x.is_complex() or matrix.is_complex():
        dtype = torch.promote_types(matrix.dtype, x.dtype)
        matrix, x = matrix.to(dtype), x.to(dtype)
    return torch.einsum("bij,bcj->bci", matrix, x.flatten(2)).reshape(x.shape)


def attention(
    name: str, q: Tensor, k: Tensor, v: Tensor, window: int | tuple[int, ...], heads: int = 1
) -> tuple[Tensor, Tensor]:
    """``y (B, C, *spatial)`` and dense ``A (B, heads, N, N)``."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1] // heads, *x.shape[2:])

    scale = (q.shape[1] // heads) ** -0.25
    matrix = adjacency(name, split(q) * scale, split(k) * scale, window)
    y = apply(matrix, split(v)).reshape(v.shape)
    return y, matrix.reshape(q.shape[0], heads, *matrix.shape[1:])
