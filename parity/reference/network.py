"""The small networks of the Julia package's gradient tests, with their gradients by hand.

A network convolves its input into four images, makes two adjacencies (one of two of them, one of a
third with itself), mixes these with a weight per head, applies the mixture to the fourth image and
convolves once more. The loss is the mean squared distance from a target.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from . import cotangents
from .array import Circulant, add, scale
from .attention import circulant_mh_adjacency, circulant_mh_attention
from .similarity import Similarity, as_pixels


def conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Convolve as NNlib.conv does: the kernel turned round, no padding.

    Args:
        x: ``(*spatial, channels in, batch)``.
        w: ``(*kernel, channels in, channels out)``.
    """
    y = 0.0
    for tap, part in _taps(x, w):
        y = y + np.einsum("...cb,co->...ob", part, w[tap])
    return y


def conv_cotangents(x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the cotangents of x and w for ``y = conv(x, w)``."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for (tap, part), (_, dpart) in zip(_taps(x, w), _taps(dx, w), strict=True):
        dpart += np.einsum("...ob,co->...cb", dy, np.conj(w[tap]))
        dw[tap] = np.einsum("icb,iob->co", as_pixels(np.conj(part)), as_pixels(dy))
    return dx, dw


def _taps(x: np.ndarray, w: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Pair each kernel position with the part of x that it multiplies (a view)."""
    kernel = w.shape[:-2]
    out = [n - k + 1 for n, k in zip(x.shape, kernel, strict=False)]
    taps = []
    for tap in itertools.product(*map(range, kernel)):
        starts = [k - 1 - t for k, t in zip(kernel, tap, strict=True)]
        taps.append((tap, x[tuple(slice(s, s + n) for s, n in zip(starts, out, strict=True))]))
    return taps


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The weights of a network; ``alpha``, ``(1, 1, heads or 1, 1)``, mixes the adjacencies."""

    wx: np.ndarray
    wk: np.ndarray
    wq: np.ndarray
    wv: np.ndarray
    wz: np.ndarray
    alpha: np.ndarray


def network(
    x: np.ndarray, p: Parameters, simfun: Similarity, window: int, nheads: int
) -> tuple[np.ndarray, dict[str, np.ndarray | Circulant]]:
    """Give the output, and what is met on the way there."""
    xx, k, q, v = (conv(x, w) for w in (p.wx, p.wk, p.wq, p.wv))
    a = circulant_mh_adjacency(simfun, k, q, window, nheads)
    b = circulant_mh_adjacency(simfun, xx, xx, window, nheads)
    c = add(scale(p.alpha, a), scale(1 - p.alpha, b))
    y = circulant_mh_attention(c, v)
    return conv(y, p.wz), {"xx": xx, "k": k, "q": q, "v": v, "a": a, "b": b, "c": c, "y": y}


def loss(
    x: np.ndarray, target: np.ndarray, p: Parameters, simfun: Similarity, window: int, nheads: int
) -> tuple[float, Parameters]:
    """Give the mean squared distance from the target and its gradient for every parameter."""
    z, met = network(x, p, simfun, window, nheads)
    value = float(np.sum(np.abs(target - z) ** 2) / target.size)

    dz = 2 * (z - target) / target.size
    dy, dwz = conv_cotangents(met["y"], p.wz, dz)
    dc, dv = cotangents.mh_attention(met["c"], met["v"], dy)
    dalpha_a, da = cotangents.scaling(p.alpha, met["a"], dc)
    dalpha_b, db = cotangents.scaling(1 - p.alpha, met["b"], dc)
    dk, dq = cotangents.mh_adjacency(simfun, met["k"], met["q"], window, da)
    dxx = sum(cotangents.mh_adjacency(simfun, met["xx"], met["xx"], window, db))
    gradient = Parameters(
        wx=conv_cotangents(x, p.wx, dxx)[1],
        wk=conv_cotangents(x, p.wk, dk)[1],
        wq=conv_cotangents(x, p.wq, dq)[1],
        wv=conv_cotangents(x, p.wv, dv)[1],
        wz=dwz,
        alpha=dalpha_a - dalpha_b,
    )
    return value, gradient


def adjacency_loss(
    z1: np.ndarray,
    z2: np.ndarray,
    wx: np.ndarray,
    alpha: np.ndarray,
    simfun: Similarity,
    window: int,
    nheads: int,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Give ``sum(abs2, (alpha * A) x)`` and its gradient for the kernel and for alpha.

    x and y are two images convolved with the same kernel, and A is the adjacency of x and y.
    """
    x, y = conv(z1, wx), conv(z2, wx)
    a = circulant_mh_adjacency(simfun, x, y, window, nheads)
    scaled = scale(alpha, a)
    z = circulant_mh_attention(scaled, x)

    dscaled, dx = cotangents.mh_attention(scaled, x, 2 * z)
    dalpha, da = cotangents.scaling(alpha, a, dscaled)
    dx_compared, dy = cotangents.mh_adjacency(simfun, x, y, window, da)
    dwx = conv_cotangents(z1, wx, dx + dx_compared)[1] + conv_cotangents(z2, wx, dy)[1]
    return float(np.sum(np.abs(z) ** 2)), dwx, dalpha
