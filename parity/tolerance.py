"""How far two correct computations of the same number may lie apart.

A sum of n products computed in any order with unit roundoff u differs from the exact one by at most
about ``n u`` times the sum of the absolute products (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1). Both sides of a comparison round, hence ``n eps`` with eps = 2 u.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity import reference

# Roundings besides those of the sum: conversions, one scaling of each factor, one of the result.
EXTRA = 8


def eps_of(dtype: type) -> float:
    """Give the spacing of the numbers next to one."""
    return float(np.finfo(dtype).eps)


def of_sum(terms: int, magnitude: np.ndarray | float, dtype: type) -> np.ndarray | float:
    """Bound the error of a sum of products.

    Args:
        terms: how many products; a product of complex numbers counts as two.
        magnitude: the sum of the absolute products.
        dtype: what the package computed in.
    """
    factor = 2 if np.issubdtype(dtype, np.complexfloating) else 1
    return (factor * terms + EXTRA) * eps_of(dtype) * magnitude


def of_similarity(
    simfun: reference.DotSimilarity | reference.DistanceSimilarity,
    x: np.ndarray,
    y: np.ndarray,
    window: int | tuple[int, ...],
    dtype: type,
) -> np.ndarray:
    """Bound the error of every similarity.

    The absolute products are ``|x| |y|`` for the dot product. For the distance they are at most
    ``(|x| + |y|)^2 / 2``: a rounding of x or y, as by a scaling, changes x - y by that much.
    """
    if isinstance(simfun, reference.DotSimilarity):
        magnitude = reference.circulant_similarity(simfun, abs(x), abs(y), window).nzVal
    else:
        magnitude = -reference.circulant_similarity(simfun, abs(x), -abs(y), window).nzVal
    return of_sum(x.shape[-2], magnitude, dtype)


def of_softmax(
    similarity_error: np.ndarray | float, similarity: reference.Circulant, dtype: type
) -> float:
    """Bound the relative error of a softmax whose input is known up to ``similarity_error``.

    exp turns absolute errors into relative ones: that of the input and that of subtracting the
    maximum, in the entry and in the sum below it (a factor 2). The sum has K positive terms.
    """
    spread = 2 * float(np.max(np.abs(similarity.nzVal)))
    of_input = float(np.max(similarity_error)) + spread * eps_of(dtype)
    return 2 * of_input + of_sum(similarity.per_row, 1, dtype)


def of_product(
    apply: Callable[[reference.Circulant, np.ndarray], np.ndarray],
    a: reference.Circulant,
    x: np.ndarray,
    dtype: type,
    relative_error: float = 0.0,
) -> np.ndarray:
    """Bound the error of a matrix applied to an image, the entries being known relatively."""
    magnitude = apply(a.like(abs(a.nzVal)), abs(x))
    return of_sum(a.per_row, magnitude, dtype) + relative_error * magnitude


def of_conditioning(
    f: Callable[..., tuple[np.ndarray, ...]], arguments: tuple[np.ndarray, ...], terms: int
) -> list[float]:
    """Bound the errors of a long chain of sums by how it answers to errors of its input, float64.

    Each step of the chain commits the error of a sum of at most ``terms`` products, as if its
    input had been off by ``terms`` roundings. The bound is ten times the largest change of the
    results when every input is off by that much, at random: ten, since the chains here have fewer
    than ten steps, each of which may add its own.
    """
    rng = np.random.default_rng(0)
    size = (terms + EXTRA) * eps_of(np.float64)
    exact = f(*arguments)
    changed = f(*(x * (1 + size * rng.choice((-1, 1), x.shape)) for x in arguments))
    changes = (np.max(abs(a - b)) for a, b in zip(exact, changed, strict=True))
    return [10 * float(change) for change in changes]
