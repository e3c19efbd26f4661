"""The README of CirculantAttention.jl, line by line, with its sizes, in Float32.

Above each group of lines stands what the README says there, in Julia. The arrays are the same bytes
on both sides; wherever a line works on the result of another one, the reference is handed the bytes
that the package made.
"""

import pathlib

import numpy as np
import pytest
import torch

import circulant_attention as ca
from circulant_attention import (
    DistanceSimilarity,
    DotSimilarity,
    circulant_attention,
    circulant_mh_attention,
    circulant_similarity,
    mh,
    softmax,
)
from parity import reference
from parity.cases import exact, normal
from parity.compare import assert_close
from parity.convention import matrix_to_julia, to_julia, to_numpy, to_torch
from parity.tolerance import eps_of, of_sum

pytestmark = pytest.mark.usefixtures("device")

# H, W, C, B = 128, 96, 64, 2 and ws, nheads = 15, 4
SPATIAL, C, B = (128, 96), 64, 2
HW = SPATIAL[0] * SPATIAL[1]
ws, nheads = 15, 4

PICTURE = pathlib.Path(__file__).parent / "data" / "readme_display.txt"


def images(names: str) -> list[np.ndarray]:
    """Stand in for CUDA.randn(H, W, C, B), once per letter."""
    return [normal((*SPATIAL, C, B), np.float32, "readme", name) for name in names]


def assert_image(y: torch.Tensor, expected: np.ndarray, bound: float) -> None:
    """Compare as in the other tests, with one bound for the whole image."""
    assert y.dtype == torch.float32
    assert_close(to_julia(y), expected, bound)


def as_reference(a: ca.Circulant) -> reference.Circulant:
    """See the bytes of the package's array as an array of the reference, in its precision."""
    return reference.Circulant(*exact(to_julia(a.values)), ws, SPATIAL)


def similarity_bound(similarity: reference.Circulant, channels: int, norm: float) -> float:
    """Bound the error of similarities of pixels whose vectors are no longer than ``norm``.

    |x| |y| is at most norm^2 and (|x| + |y|)^2 / 2 at most twice that, summed over the channels.
    """
    return of_sum(channels, 2 * norm**2, np.float32)


def softmax_bound(similarity: reference.Circulant, channels: int, norm: float) -> float:
    """Bound the relative error of a softmax; see `parity.tolerance.of_softmax`."""
    spread = 2 * max(-similarity.nzVal.min(), similarity.nzVal.max()) * eps_of(np.float32)
    error = similarity_bound(similarity, channels, norm) + spread
    return 2 * error + of_sum(ws * ws, 1, np.float32)


def longest(x: np.ndarray) -> float:
    """Give the length of the longest pixel."""
    return float(np.sqrt(np.max(np.sum(np.square(x), axis=-2))))


@pytest.mark.parametrize("simfun", ["dot", "distance"])
def test_attention(simfun):
    q, k, v = images("qkv")
    tensors = [to_torch(x) for x in (q, k, v)]

    # y, A = circulant_attention(q, k, v, ws)
    # y, A = circulant_attention(DotSimilarity(), q, k, v, ws)
    # y, A = circulant_attention(DistanceSimilarity(), q, k, v, ws)
    if simfun == "dot":
        theirs = reference.DotSimilarity()
        y, A = circulant_attention(*tensors, ws)
        again, _ = circulant_attention(DotSimilarity(), *tensors, ws)
        assert torch.equal(again, y)
    else:
        theirs = reference.DistanceSimilarity()
        y, A = circulant_attention(DistanceSimilarity(), *tensors, ws)

    # size(y) # (H, W, C, 2)
    assert to_julia(y).shape == (*SPATIAL, C, 2)
    # size(A) # (12288, 12288, 1, 2) == (HW, HW, 1, B)
    assert HW == 12288 and A.shape == (B, 1, HW, HW)

    # t = sqrt(size(q, 3))
    # S = circulant_similarity(DistanceSimilarity(), q ./ sqrt(t), k ./ sqrt(t), ws)
    t = q.shape[-2] ** 0.5
    q, k, v = tensors
    kind = DotSimilarity() if simfun == "dot" else DistanceSimilarity()
    S = circulant_similarity(kind, q / t**0.5, k / t**0.5, ws)
    scaled = exact(to_julia(q / t**0.5), to_julia(k / t**0.5))
    expected = reference.circulant_similarity(theirs, *scaled, ws)
    norm = max(map(longest, scaled))
    bound = similarity_bound(expected, C, norm)
    assert_close(to_julia(S.values), expected.nzVal, bound)

    # B = NNlib.softmax(S)
    # u = B ⊗ v # \otimes, equivalent to u = circulant_attention(A, v)
    # u ≈ y     # true
    weights = softmax(S)
    u = weights @ v
    assert torch.equal(circulant_attention(weights, v), u)
    torch.testing.assert_close(u, y)
    expected = reference.softmax(expected)
    error = softmax_bound(reference.reshape(as_reference(S), 1, B), C, norm)
    for found in (weights, A):
        assert_close(to_julia(found.values), expected.nzVal, error * expected.nzVal)
    (v_exact,) = exact(to_julia(v))
    applied = reference.circulant_attention(expected, v_exact)
    # The rows of A are positive and sum to one.
    bound = (error + of_sum(ws * ws, 1, np.float32)) * np.max(np.abs(v_exact))
    assert_image(u, applied, bound)
    assert_image(y, applied, bound)


def test_display():
    # S = circulant_similarity(DistanceSimilarity(), q ./ sqrt(t), k ./ sqrt(t), ws)
    q, k = (to_torch(x) for x in images("qk"))
    t = q.shape[1] ** 0.5
    S = circulant_similarity(DistanceSimilarity(), q / t**0.5, k / t**0.5, ws)

    # display(S)
    shown = str(S).splitlines()
    # Circulant{Float32, 4, 15, 2, ...} with kernel-length 15, spatial-size (128, 96), and data,
    # (the size) CUDA.CUSPARSE.CuSparseArrayCSR{...} with 5529600 stored entries:
    for fact in ("Circulant", "float32", "kernel-length 15", "spatial-size (96, 128)"):
        assert fact in shown[0]
    assert "(2, 1, 12288, 12288)" in shown[0] and "5529600 stored entries" in shown[0]
    assert S.nnz == S.data.values().numel() == HW * ws**2 * B == 5529600
    # [:, :, 1, 1] = ... and [:, :, 1, 2] = ..., each followed by the picture.
    picture = PICTURE.read_text(encoding="utf-8").splitlines()
    assert len(picture) == 19 and {len(line) for line in picture} == {40}
    assert shown[1:] == ["[0, 0, :, :] =", *picture, "[1, 0, :, :] =", *picture]

    # Rows and columns are those of Julia's arrays, too.
    row_ptr, col_val = reference.circulant_pattern(ws, SPATIAL)
    csr = S.data
    for b in range(B):
        assert np.array_equal(to_numpy(csr.crow_indices()[b, 0]), row_ptr - 1)
        assert np.array_equal(to_numpy(csr.col_indices()[b, 0]), col_val - 1)


def test_heads_sums_and_concatenation():
    q, k, v = images("qkv")

    # y, A = circulant_mh_attention(DotSimilarity(), q, k, v, ws, nheads)
    y, A = circulant_mh_attention(DotSimilarity(), *map(to_torch, (q, k, v)), ws, nheads)
    # size(y) # (H, W, C, B)
    assert to_julia(y).shape == (*SPATIAL, C, B)
    # size(A) # (HW, HW, nheads, B)
    assert A.shape == (B, nheads, HW, HW)
    check_heads(y, A, q, k, v)

    # u, B = circulant_mh_attention(DotSimilarity(), y, y, y, ws, nheads)
    u, B_ = circulant_mh_attention(DotSimilarity(), y, y, y, ws, nheads)
    check_heads(u, B_, *(to_julia(y),) * 3)

    # m = CUDA.randn(1, 1, 4, 2) # (1, 1, nheads, B)
    # C = A + m*B
    m = normal((1, 1, nheads, B), np.float32, "m")
    C_ = A + to_torch(m) * B_
    scaled = reference.scale(*exact(m), as_reference(B_))
    expected = reference.add(as_reference(A), scaled)
    magnitude = float(np.max(to_julia(A.values)) + np.max(np.abs(scaled.nzVal)))
    assert_close(to_julia(C_.values), expected.nzVal, of_sum(2, magnitude, np.float32))

    # w = C ⨷ u # \Otimes, circulant multihead attention
    # size(w)   # HWCB
    w = C_ @ mh @ u
    assert to_julia(w).shape == (*SPATIAL, C, B)
    assert torch.equal(circulant_mh_attention(C_, u), w) and torch.equal(mh(C_, u), w)
    c = as_reference(C_)
    applied = reference.circulant_mh_attention(c, *exact(to_julia(u)))
    row_sum = float(np.max(reference.sum_(c.like(np.abs(c.nzVal)), 2)))
    bound = of_sum(ws * ws, row_sum * float(u.abs().max()), np.float32)
    assert_image(w, applied, bound)

    # sum(C; dims=1) # (1, HW, nheads, B)
    # sum(C; dims=2) # (HW, 1, nheads, B)
    column_sum = float(np.max(reference.sum_(c.like(np.abs(c.nzVal)), 1)))
    for dims, dim, size, largest in (
        (1, -2, (1, HW, nheads, B), column_sum),
        (2, -1, (HW, 1, nheads, B), row_sum),
    ):
        found = matrix_to_julia(C_.sum(dim=dim, keepdim=True))
        assert found.shape == size
        assert_close(found, reference.sum_(c, dims), of_sum(ws * ws, largest, np.float32))
    # sum(C; dims=3) # (HW, HW, 1, B)
    # sum(C; dims=4) # (HW, HW, nheads, 1)
    entry = float(C_.values.abs().max())
    for dims, dim, shape, terms in (
        (3, 1, (B, 1, HW, HW), nheads),
        (4, 0, (1, nheads, HW, HW), B),
    ):
        total = C_.sum(dim=dim)
        assert isinstance(total, ca.Circulant) and total.shape == shape
        expected = reference.sum_(c, dims).nzVal
        bound = of_sum(terms, terms * entry, np.float32)
        assert_close(to_julia(total.values), expected, bound)

    # D = cat(A, B; dims=3) # (HW, HW, 2nheads, B)
    D = torch.cat([A, B_], dim=1)
    assert D.shape == (B, 2 * nheads, HW, HW)
    assert torch.equal(D.values[:, :nheads], A.values)
    assert torch.equal(D.values[:, nheads:], B_.values)


def check_heads(y, a, q, k, v) -> None:
    """Compare the output and the adjacency of multi-head attention with the reference's."""
    q, k, v = exact(q, k, v)
    channels = C // nheads
    root = channels**0.25
    split = [reference.splitheads(x / root, nheads) for x in (q, k)]
    similarity = reference.circulant_similarity(reference.DotSimilarity(), *split, ws)
    error = softmax_bound(similarity, channels, max(map(longest, split)))
    expected = reference.reshape(reference.softmax(similarity), nheads, B)
    del similarity
    assert_close(to_julia(a.values), expected.nzVal, error * expected.nzVal)
    applied = reference.circulant_mh_attention(expected, v)
    bound = (error + of_sum(ws * ws, 1, np.float32)) * np.max(np.abs(v))
    assert_image(y, applied, bound)
