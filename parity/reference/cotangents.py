"""Cotangents, each by the formula of its own derivative rule.

A cotangent of a real number L with respect to a complex z is dL/dRe(z) + i dL/dIm(z), in ChainRules
as in torch. Where an argument is real, its cotangent is the real part.
"""

from __future__ import annotations

import math

import numpy as np

from .array import Circulant, scale
from .attention import apply, circulant_transposed_attention, per_group, splitheads
from .pattern import Sizes
from .similarity import (
    DotSimilarity,
    Similarity,
    as_pixels,
    circulant_adjacency,
    circulant_similarity,
    softmax,
)


def project(cotangent: np.ndarray, primal: np.ndarray) -> np.ndarray:
    """Take the real part where the argument is real."""
    return cotangent if np.iscomplexobj(primal) else np.real(cotangent)


def similarity(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, ds: Circulant
) -> tuple[np.ndarray, np.ndarray]:
    """Give the cotangents of x and y for the real cotangent ``ds`` of their similarity.

    Dot: ``dx[i] = sum_j dS[i, j] y[j]`` and ``dy[j] = sum_i dS[i, j] x[i]``.
    Distance: ``y[j] - x[i]`` stands in place of ``y[j]``, and ``x[i] - y[j]`` in place of ``x[i]``.
    """
    xs, ys, weights = as_pixels(x), as_pixels(y), per_group(ds)
    dx, dy = np.zeros_like(xs), np.zeros_like(ys)
    for row in range(1, ds.pixels + 1):
        i, js = row - 1, ds.columns(row) - 1
        weight = weights[ds.stored(row)][:, None, :]
        if isinstance(simfun, DotSimilarity):
            dx[i] = np.sum(weight * ys[js], axis=0)
            dy[js] += weight * xs[i]
        else:
            dx[i] = np.sum(weight * (ys[js] - xs[i]), axis=0)
            dy[js] += weight * (xs[i] - ys[js])
    return dx.reshape(x.shape, order="F"), dy.reshape(y.shape, order="F")


def attention(a: Circulant, x: np.ndarray, dy: np.ndarray) -> tuple[Circulant, np.ndarray]:
    """Give the cotangents of A and x for ``y = A x``.

    ``dA[i, j] = sum_c dy[c, i] conj(x[c, j])`` and ``dx[j] = sum_i conj(A[i, j]) dy[i]``.
    """
    da = project(_outer(a, dy, x), a.nzVal)
    dx = circulant_transposed_attention(a.like(np.conj(a.nzVal)), dy)
    return a.like(da), project(dx, x)


def transposed_attention(
    a: Circulant, x: np.ndarray, dy: np.ndarray
) -> tuple[Circulant, np.ndarray]:
    """Give the cotangents of A and x for ``y[j] = sum_i A[i, j] x[i]``.

    ``dA[i, j] = sum_c conj(x[c, i]) dy[c, j]`` and ``dx[i] = sum_j conj(A[i, j]) dy[j]``.
    """
    da = project(np.conj(_outer(a, x, dy)), a.nzVal)
    dx = apply(a.like(np.conj(a.nzVal)), dy)
    return a.like(da), project(dx, x)


def _outer(a: Circulant, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Give ``sum_c left[c, i] conj(right[c, j])`` on the pattern of A, shaped as its ``nzVal``."""
    lefts, rights = as_pixels(left), as_pixels(right)
    dtype = np.result_type(left, right)
    outer = np.zeros((a.nzVal.shape[0], lefts.shape[2]), dtype=dtype, order="F")
    for row in range(1, a.pixels + 1):
        products = lefts[row - 1] * np.conj(rights[a.columns(row) - 1])
        outer[a.stored(row)] = np.sum(products, axis=1)
    return outer.reshape(a.nzVal.shape, order="F")


def mh_attention(a: Circulant, x: np.ndarray, dy: np.ndarray) -> tuple[Circulant, np.ndarray]:
    """Give the cotangents of A and x for the multi-head ``y = A x``."""
    nheads = a.size[2]
    da, dx = attention(a, splitheads(x, nheads), splitheads(dy, nheads))
    return da, dx.reshape(x.shape, order="F")


def mh_transposed_attention(
    a: Circulant, x: np.ndarray, dy: np.ndarray
) -> tuple[Circulant, np.ndarray]:
    """Give the cotangents of A and x for the multi-head transposed product."""
    nheads = a.size[2]
    da, dx = transposed_attention(a, splitheads(x, nheads), splitheads(dy, nheads))
    return da, dx.reshape(x.shape, order="F")


def row_softmax(y: Circulant, dy: Circulant) -> Circulant:
    """Give the cotangent of X for ``Y = softmax(X)``: ``Y (dY - sum over the row of Y dY)``."""
    dx = np.empty_like(y.nzVal)
    for row in range(1, y.pixels + 1):
        weights, incoming = y.nzVal[y.stored(row)], dy.nzVal[y.stored(row)]
        dx[y.stored(row)] = weights * (incoming - np.sum(weights * incoming, axis=0))
    return y.like(dx)


def scaling(c: np.ndarray, a: Circulant, db: Circulant) -> tuple[np.ndarray, Circulant]:
    """Give the cotangents of c and A for ``B = c A``, summed over whatever was broadcast."""
    dc = np.sum(np.conj(a.nzVal) * db.nzVal, axis=0, keepdims=True)
    dc = _sum_to(dc, c.shape[1:])[None]
    da = _sum_to(scale(np.conj(c), db).nzVal, a.nzVal.shape)
    return project(dc, c), a.like(project(da, a.nzVal))


def _sum_to(values: np.ndarray, shape: Sizes) -> np.ndarray:
    """Sum over the dims that have the size one in ``shape``."""
    return np.sum(values, axis=tuple(d for d, s in enumerate(shape) if s == 1), keepdims=True)


def adjacency(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, window: int | Sizes, da: Circulant
) -> tuple[np.ndarray, np.ndarray]:
    """Give the cotangents of x and y for ``A = softmax(similarity(x, y))``."""
    ds = row_softmax(softmax(circulant_similarity(simfun, x, y, window)), da)
    return similarity(simfun, x, y, ds)


def mh_adjacency(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, window: int | Sizes, da: Circulant
) -> tuple[np.ndarray, np.ndarray]:
    """Give the cotangents of x and y for the adjacency of each group of channels."""
    nheads = da.size[2]
    grouped = da.like(da.nzVal.reshape(da.nzVal.shape[0], 1, -1, order="F"))
    dx, dy = adjacency(simfun, splitheads(x, nheads), splitheads(y, nheads), window, grouped)
    return dx.reshape(x.shape, order="F"), dy.reshape(y.shape, order="F")


def attention_of_qkv(
    simfun: Similarity,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    window: int | Sizes,
    dy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the cotangents of q, k and v for the output of ``circulant_attention``."""
    root = math.sqrt(math.sqrt(k.shape[-2]))
    a = circulant_adjacency(simfun, q / root, k / root, window)
    da, dv = attention(a, v, dy)
    dq, dk = adjacency(simfun, q / root, k / root, window, da)
    return dq / root, dk / root, dv


def mh_attention_of_qkv(
    simfun: Similarity,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    window: int | Sizes,
    nheads: int,
    dy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the cotangents of q, k and v for the output of ``circulant_mh_attention``."""
    split = [splitheads(array, nheads) for array in (q, k, v, dy)]
    dq, dk, dv = attention_of_qkv(simfun, *split[:3], window, split[3])
    return (
        dq.reshape(q.shape, order="F"),
        dk.reshape(k.shape, order="F"),
        dv.reshape(v.shape, order="F"),
    )
