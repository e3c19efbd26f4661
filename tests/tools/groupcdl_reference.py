"""GroupCDL in NumPy with Julia's conventions: arrays (H, W, C, B), kernels turned round, float64.

The pieces of attention are those of the parity tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.reference.array import add, scale
from parity.reference.attention import circulant_attention
from parity.reference.network import conv, conv_cotangents
from parity.reference.similarity import DistanceSimilarity, DotSimilarity, circulant_adjacency

EPSILON = 1e-8
# The names of Julia's parameters.
THETA, PHI, ALPHA, BETA, GAMMA = "Wθ", "Wϕ", "Wα", "Wβ", "γ"  # noqa: RUF001


def parameters(
    rng: np.random.Generator,
    *,
    K: int,
    M: int,
    C: int,
    p: int,
    d: int = 0,
    hidden: int = 0,
    compressed: str | bool = "all",
    dtype: str = "float32",
) -> dict[str, Any]:
    """Random parameters in the layout of Lux; no ``hidden`` is the network without groups.

    They are large enough for every part to matter, and small enough for z to stay bounded.
    """

    def kernel() -> dict[str, np.ndarray]:
        w = rng.normal(size=(p, p, C, M, 2)) / (3 * p)
        w = w[..., 0] + 1j * w[..., 1] if dtype == "complex64" else w[..., 0]
        return {"weight": w.astype(dtype)}

    def thresholds() -> dict[str, np.ndarray]:
        t = rng.uniform(0.002, 0.02, size=(1, 1, M, d + 1))
        return {"weight": t.astype("float32")}

    def projection(inner: int, outer: int) -> np.ndarray:
        return {"weight": rng.uniform(-1, 1, size=(1, 1, inner, outer)).astype("float32")}

    layers = {
        f"layer_{k}": {"analysis": kernel(), "synthesis": kernel(), "prox": thresholds()}
        for k in range(1, K + 1)
    }
    if not hidden:
        return {"lista": layers, "dictionary": kernel()}
    # Training keeps it positive; a few negative sums show what becomes of them.
    beta = {"weight": projection(hidden, M)["weight"] + np.float32(0.6)}
    nlss = {
        THETA: projection(M, hidden) if compressed else {},
        PHI: projection(M, hidden) if compressed else {},
        ALPHA: projection(M, hidden) if compressed == "all" else {},
        BETA: beta if compressed == "all" else {},
        GAMMA: np.array([0.65], dtype="float32"),
    }
    return {"lista": {"layer": layers, "nlss": nlss}, "dictionary": kernel()}


def network(
    ps: dict[str, Any],
    y: np.ndarray,
    sigma: float,
    *,
    stride: int,
    window: int = 1,
    update: int = 1,
    dot: bool = False,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The output for data ``(H, W, C, B)``; a mask stands for the operator of MRI."""
    y = y if mask is None else fourier(mask * y, inverse=True)
    pad = [((-n % stride + 1) // 2, -n % stride // 2) for n in y.shape[:2]]
    y = np.pad(y, [*pad, (0, 0), (0, 0)], mode="reflect")
    mean = np.mean(y, axis=(0, 1, 2), keepdims=True)
    z = codes(ps["lista"], y - mean, sigma, stride, window, update, dot, mask)
    x = synthesis(z, ps["dictionary"], stride) + mean
    (top, bottom), (left, right) = pad
    return x[top : x.shape[0] - bottom, left : x.shape[1] - right]


def codes(lista, y, sigma, stride, window, update, dot, mask):
    grouped = window > 1
    layers = [(lista["layer"] if grouped else lista)[f"layer_{k}"] for k in counted(lista, grouped)]
    z = soft(analysis(y, layers[0]["analysis"], stride), layers[0], sigma)
    a = None
    for k, layer in enumerate(layers[1:], 2):
        if grouped and (k == 2 or k % update == 0):
            a = adjacency(lista["nlss"], z, window, dot, a)
        r = synthesis(z, layer["synthesis"], stride)
        r = r if mask is None else fourier(mask**2 * fourier(r), inverse=True)
        z = z - analysis(r - y, layer["analysis"], stride)
        z = group(z, layer, sigma, a, lista["nlss"]) if grouped else soft(z, layer, sigma)
    return z


def counted(lista, grouped):
    return range(1, len(lista["layer"] if grouped else lista) + 1)


def adjacency(nlss, z, window, dot, last):
    x, y = project(z, nlss[THETA]), project(z, nlss[PHI])
    root = x.shape[2] ** 0.25 if dot else 1
    simfun = DotSimilarity() if dot else DistanceSimilarity()
    new = circulant_adjacency(simfun, x / root, y / root, window)
    if last is None:
        return new
    gamma = nlss[GAMMA].astype(float).reshape(1, 1, 1, 1)
    return add(scale(gamma, new), scale(1 - gamma, last))


def group(z, layer, sigma, a, nlss):
    xi = np.sqrt(circulant_attention(a, np.abs(project(z, nlss[ALPHA])) ** 2) + EPSILON)
    xi = np.maximum(project(xi, nlss[BETA]), 0)
    return z * np.maximum(1 - threshold(layer, sigma) / (xi + EPSILON), 0)


def soft(z, layer, sigma):
    modulus = np.abs(z)
    return z / modulus * np.maximum(modulus - threshold(layer, sigma), 0)


def threshold(layer, sigma):
    weight = layer["prox"]["weight"].astype(float)
    return sum(weight[..., degree][..., None] * sigma**degree for degree in range(weight.shape[-1]))


def project(z, layer):
    """A layer without a weight does nothing."""
    if not layer:
        return z
    return np.einsum("hwcb,cm->hwmb", z, layer["weight"][0, 0].astype(float))


def edges(p, stride):
    return (p - stride + 1) // 2, (p - stride) // 2


def analysis(x, layer, stride):
    w = wide(layer["weight"])
    pad = edges(w.shape[0], stride)
    return conv(np.pad(x, [pad, pad, (0, 0), (0, 0)]), w)[::stride, ::stride]


def synthesis(z, layer, stride):
    """The adjoint of the analysis with the same kernel."""
    w = wide(layer["weight"])
    p = w.shape[0]
    h, ww, m, b = z.shape
    dy = np.zeros((stride * (h - 1) + 1, stride * (ww - 1) + 1, m, b), z.dtype)
    dy[::stride, ::stride] = z
    padded = np.zeros((dy.shape[0] + p - 1, dy.shape[1] + p - 1, w.shape[2], b), z.dtype)
    x = conv_cotangents(padded, w, dy)[0]
    before, after = edges(p, stride)
    return x[before : x.shape[0] - after, before : x.shape[1] - after]


def wide(w):
    return w.astype(complex if np.iscomplexobj(w) else float)


def fourier(x, inverse=False):
    transform = np.fft.ifft2 if inverse else np.fft.fft2
    return transform(x, axes=(0, 1), norm="ortho")
