"""Similarity inside the window, softmax over each row, and both together."""

from __future__ import annotations

import numpy as np

from .array import Circulant, ones
from .pattern import Sizes


class DotSimilarity:
    """``Re(sum_c x[c] conj(y[c]))``."""

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Compare one pixel, ``(channels, batch)``, with J others, ``(J, channels, batch)``."""
        return np.einsum("cb,jcb->jb", x, np.conj(y)).real


class DistanceSimilarity:
    """``-1/2 sum_c |x[c] - y[c]|^2``."""

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Compare one pixel, ``(channels, batch)``, with J others, ``(J, channels, batch)``."""
        difference = x - y
        return -0.5 * np.einsum("jcb,jcb->jb", difference, np.conj(difference)).real


Similarity = DotSimilarity | DistanceSimilarity


def as_pixels(x: np.ndarray) -> np.ndarray:
    """Give ``(N, channels, batch)``: the pixels in the order of their numbers.

    How the copy lies in memory does not matter to its indices; row by row is quicker to read.
    """
    return np.ascontiguousarray(x.reshape(-1, *x.shape[-2:], order="F"))


def circulant_similarity(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, window: int | Sizes
) -> Circulant:
    """Compare every pixel of ``x`` (rows) with the pixels of ``y`` (columns) in its window."""
    xs, ys = as_pixels(x), as_pixels(y)
    similarity = ones(window, (*x.shape[:-2], 1, x.shape[-1]))
    for row in range(1, similarity.pixels + 1):
        neighbours = ys[similarity.columns(row) - 1]
        similarity.nzVal[similarity.stored(row), 0] = simfun(xs[row - 1], neighbours)
    return similarity


def softmax(a: Circulant) -> Circulant:
    """Normalise the stored entries of each row: positive, with the sum one."""
    normalised = np.empty_like(a.nzVal)
    for row in range(1, a.pixels + 1):
        entries = a.nzVal[a.stored(row)]
        weights = np.exp(entries - np.max(entries, axis=0))
        normalised[a.stored(row)] = weights / np.sum(weights, axis=0)
    return a.like(normalised)


def circulant_adjacency(
    simfun: Similarity, x: np.ndarray, y: np.ndarray, window: int | Sizes
) -> Circulant:
    """Give the softmax of the similarity."""
    return softmax(circulant_similarity(simfun, x, y, window))
