"""How far a correct computation in some dtype may lie from the exact one.

A sum of n products, in any order and with roundings of relative size eps, is off by at most
about ``n eps`` times the sum of the absolute products (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1). float16 and bfloat16 are summed in float32: there the long sums count with
float32's eps, and only what is stored between two steps with the coarse one.
"""

from __future__ import annotations

import math

import reference
import torch
from inputs import dense, exact
from torch import Tensor
from torch.testing import assert_close

from circulant_attention import Circulant

# Roundings beside those of the sum: conversions, a difference, a square, a factor one half.
_EXTRA = 8


def eps(dtype: torch.dtype) -> float:
    """The spacing of the numbers of ``dtype`` next to one."""
    return torch.finfo(dtype).eps


def eps_of_sums(dtype: torch.dtype) -> float:
    """The same for what sums are accumulated in."""
    return eps(torch.float32) if dtype in (torch.float16, torch.bfloat16) else eps(dtype)


def of_sum(terms: int, magnitude: Tensor, dtype: torch.dtype, *, stored: int = 1) -> float:
    """The error of sums of products.

    Args:
        terms: The number of real products in a sum.
        magnitude: The sums of the absolute products.
        dtype: What is computed in.
        stored: How many times a factor or the result is rounded to ``dtype``.
    """
    relative = (terms + _EXTRA) * eps_of_sums(dtype) + stored * eps(dtype)
    return relative * _largest(magnitude)


def of_similarity(
    name: str,
    x: Tensor,
    y: Tensor,
    window: int | tuple[int, ...],
    dtype: torch.dtype,
    *,
    stored: int = 1,
) -> float:
    """The error of the similarities of ``x`` and ``y``, which are exact.

    The absolute products are ``|x| |y|``, or for the distance at most ``(|x| + |y|)^2 / 2``, for a
    rounding of x or y changes their difference by that much.
    """
    sign = 1 if name == "dot" else -1
    magnitude = reference.similarity(name, x.abs(), sign * y.abs(), window).abs()
    return of_sum((2 if x.is_complex() else 1) * x.shape[1], magnitude, dtype, stored=stored)


def of_softmax(scores: Tensor, scores_error: float, dtype: torch.dtype) -> float:
    """The error, relative to each entry, of the row softmax of dense ``scores``.

    An error e of every score changes an entry by the factor ``exp(2 e)`` at most; exp amplifies the
    rounding of its argument, which spans twice the largest score; exponential, sum and quotient
    may each be stored.
    """
    amplified = (scores.shape[-1] + 2 * _largest(scores.abs()) + _EXTRA) * eps_of_sums(dtype)
    return math.expm1(2 * scores_error) + amplified + 3 * eps(dtype)


def of_attention(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | tuple[int, ...],
    dtype: torch.dtype,
    heads: int = 1,
) -> tuple[float, float]:
    """The errors of y and of A, as ``circulant_mh_attention`` computes them step by step.

    Args:
        name: The similarity.
        q: Exact queries.
        k: Exact keys.
        v: Exact values.
        window: The window.
        dtype: The real dtype that is computed in.
        heads: The number of heads.
    """

    def split(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1] // heads, *x.shape[2:])

    scale = (q.shape[1] // heads) ** -0.25
    queries, keys = split(q) * scale, split(k) * scale
    # q and k are rounded once more by the scaling.
    error = of_similarity(name, queries, keys, window, dtype, stored=3)
    scores = reference.similarity(name, queries, keys, window)
    relative = of_softmax(scores, error, dtype)
    matrix = reference.adjacency(name, queries, keys, window)
    magnitude = reference.apply(matrix, split(v).abs())
    y_error = of_sum(scores.shape[-1], magnitude, dtype) + relative * _largest(magnitude)
    return y_error, relative * _largest(matrix)


def check_attention(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | tuple[int, ...],
    y: Tensor,
    A: Circulant,
    heads: int = 1,
) -> None:
    """Compares y and A with attention in float64."""
    q, k, v = exact(q), exact(k), v.to(exact(y).dtype)
    expected, expected_dense = reference.attention(name, q, k, v, window, heads)
    _, bound = of_attention(name, q, k, v, window, A.dtype, heads)
    assert_close(exact(dense(A)), expected_dense, rtol=0, atol=bound)
    # y may be computed in a finer dtype than A, but inherits the error of A.
    coarse = max(A.dtype, y.dtype.to_real(), key=eps)
    bound, _ = of_attention(name, q, k, v, window, coarse, heads)
    assert_close(exact(y), expected, rtol=0, atol=bound)


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0
