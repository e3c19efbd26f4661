"""Applying circulant arrays to images: attention, transposed and adjoint, one head or many."""

from __future__ import annotations

import functools
import math
from typing import overload

import numpy as np

from .array import Circulant, reshape
from .pattern import Sizes
from .similarity import Similarity, as_pixels, circulant_adjacency


def per_group(a: Circulant) -> np.ndarray:
    """Give the stored entries with heads and batch as one dim, heads running fastest."""
    return a.nzVal.reshape(a.nzVal.shape[0], -1, order="F")


def apply(a: Circulant, x: np.ndarray) -> np.ndarray:
    """Give ``y[i] = sum_j A[i, j] x[j]`` for every channel."""
    values, xs = per_group(a), as_pixels(x)
    ys = np.zeros_like(xs, dtype=np.result_type(values, xs))
    for row in range(1, a.pixels + 1):
        weights = values[a.stored(row)][:, None, :]
        ys[row - 1] = np.sum(weights * xs[a.columns(row) - 1], axis=0)
    return ys.reshape(x.shape, order="F")


@overload
def circulant_attention(a: Circulant, x: np.ndarray, /) -> np.ndarray: ...
@overload
def circulant_attention(
    simfun: Similarity, q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | Sizes, /
) -> tuple[np.ndarray, Circulant]: ...
def circulant_attention(*args):
    """Apply a circulant array, or make the adjacency of q and k and apply it to v."""
    if len(args) == 2:
        return apply(*args)
    simfun, q, k, v, window = args
    root = math.sqrt(math.sqrt(k.shape[-2]))
    a = circulant_adjacency(simfun, q / root, k / root, window)
    return apply(a, v), a


def circulant_transposed_attention(a: Circulant, x: np.ndarray) -> np.ndarray:
    """Give ``y[j] = sum_i A[i, j] x[i]`` for every channel."""
    values, xs = per_group(a), as_pixels(x)
    ys = np.zeros_like(xs, dtype=np.result_type(values, xs))
    for row in range(1, a.pixels + 1):
        # The columns of one row differ from each other, so that += meets each of them once.
        ys[a.columns(row) - 1] += values[a.stored(row)][:, None, :] * xs[row - 1]
    return ys.reshape(x.shape, order="F")


def circulant_adjoint_attention(a: Circulant, x: np.ndarray) -> np.ndarray:
    """Give ``y[j] = sum_i conj(A[i, j]) x[i]`` for every channel."""
    return circulant_transposed_attention(a.like(np.conj(a.nzVal)), x)


def splitheads(x: np.ndarray, nheads: int) -> np.ndarray:
    """Move groups of neighbouring channels into the batch, the group running fastest there."""
    *spatial_size, channels, batch = x.shape
    return x.reshape(*spatial_size, channels // nheads, nheads * batch, order="F")


@overload
def circulant_mh_attention(a: Circulant, x: np.ndarray, /) -> np.ndarray: ...
@overload
def circulant_mh_attention(
    simfun: Similarity,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    window: int | Sizes,
    nheads: int,
    /,
) -> tuple[np.ndarray, Circulant]: ...
def circulant_mh_attention(*args):
    """Let head h act on the h-th group of channels."""
    if len(args) == 2:
        a, x = args
        return circulant_attention(a, splitheads(x, a.size[2])).reshape(x.shape, order="F")
    simfun, q, k, v, window, nheads = args
    split = functools.partial(splitheads, nheads=nheads)
    y, a = circulant_attention(simfun, split(q), split(k), split(v), window)
    return y.reshape(v.shape, order="F"), reshape(a, nheads, q.shape[-1])


def circulant_mh_transposed_attention(a: Circulant, x: np.ndarray) -> np.ndarray:
    """Let the transposed head h act on the h-th group of channels."""
    y = circulant_transposed_attention(a, splitheads(x, a.size[2]))
    return y.reshape(x.shape, order="F")


def circulant_mh_adjacency(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, window: int | Sizes, nheads: int
) -> Circulant:
    """Give one adjacency per group of channels, not scaled."""
    a = circulant_adjacency(simfun, splitheads(x, nheads), splitheads(y, nheads), window)
    return reshape(a, nheads, x.shape[-1])
