"""Similarities, their row softmax, and the adjacency that is both."""

from __future__ import annotations

import pytest
import reference
import rounding
import torch
from inputs import (
    REAL_DTYPES,
    SIMILARITIES,
    dense,
    dtypes,
    exact,
    features,
    grids,
    matrix,
    similarities,
)
from torch.testing import assert_close

from circulant_attention import (
    AbstractSimilarity,
    Circulant,
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency,
    circulant_similarity,
    softmax,
)


def test_similarity_by_hand(device):
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], device=device)
    y = torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]], device=device)
    A = circulant_similarity(DotSimilarity(), x, y, 3)
    assert A.to_dense().tolist() == [
        [[[1, 10, 0, 1000], [2, 20, 200, 0], [0, 30, 300, 3000], [4, 0, 400, 4000]]]
    ]
    # Pixel 3 and pixel 0 are neighbours: -1/2 (4 - 1)^2.
    B = circulant_similarity(DistanceSimilarity(), x, x, 3)
    assert B.rows.tolist() == [
        [[[0, -0.5, -4.5], [-0.5, 0, -0.5], [-0.5, 0, -0.5], [-4.5, -0.5, 0]]]
    ]


def test_similarity_of_complex_numbers_by_hand(device):
    x = torch.tensor([[[1 + 2j], [3j]]], device=device)
    y = torch.tensor([[[2 - 1j], [1 + 1j]]], device=device)
    # Re((1 + 2i)(2 + i) + 3i (1 - i)) = 0 + 3; |-1 + 3i|^2 + |-1 + 2i|^2 = 10 + 5.
    assert circulant_similarity(DotSimilarity(), x, y, 1).values.tolist() == [[[3.0]]]
    assert circulant_similarity(DistanceSimilarity(), x, y, 1).values.tolist() == [[[-7.5]]]


@similarities
@dtypes
@grids
def test_similarity(name, size, window, dtype, device):
    x, y = (features(2, 5, size, device, dtype) for _ in range(2))
    A = circulant_similarity(SIMILARITIES[name], x, y, window)
    assert A.dtype == dtype.to_real()
    assert A.shape == (2, 1, *reference.mask(size, size).shape)
    assert A.window == reference.widths(window, len(size))
    assert A.spatial_size == size
    bound = rounding.of_similarity(name, exact(x), exact(y), window, A.dtype)
    expected = reference.similarity(name, exact(x), exact(y), window)
    assert_close(exact(dense(A))[:, 0], expected, rtol=0, atol=bound)


@similarities
@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.complex64, torch.float32, torch.float32),
        (torch.complex64, torch.float64, torch.float64),
        (torch.float16, torch.complex128, torch.float64),
    ],
    ids=str,
)
def test_similarity_of_two_dtypes(name, first, second, result, device):
    x, y = features(2, 3, (5, 4), device, first), features(2, 3, (5, 4), device, second)
    for a, b in ((x, y), (y, x)):
        A = circulant_similarity(SIMILARITIES[name], a, b, 3)
        assert A.dtype == result
        bound = rounding.of_similarity(name, exact(a).cdouble(), exact(b).cdouble(), 3, result)
        expected = reference.similarity(name, exact(a).cdouble(), exact(b).cdouble(), 3)
        assert_close(exact(dense(A))[:, 0], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_summed_in_float32(dtype, device):
    # Summed in the dtype itself, ones stop growing at 2048 or 256.
    x = torch.ones(1, 4096, 3, dtype=dtype, device=device)
    assert circulant_similarity(DotSimilarity(), x, x, 3).values.unique().tolist() == [4096]
    A = circulant_similarity(DistanceSimilarity(), x, -x, 3)
    assert A.values.unique().tolist() == [-8192]


def test_distance_of_close_pixels_far_from_zero_keeps_its_accuracy(device):
    # Through |x|^2 - 2 x.y + |y|^2 the error would be eps * 1e8, a thousand times the result.
    x = 1e4 + features(1, 3, (5, 4), device, torch.float32) / 8
    A = circulant_similarity(DistanceSimilarity(), x, x.flip(-1), 3)
    expected = reference.similarity("distance", exact(x), exact(x.flip(-1)), 3)
    # The differences are exact, so only their squares and sum are rounded.
    bound = rounding.of_sum(3, expected.abs(), torch.float32)
    assert_close(exact(dense(A))[:, 0], expected, rtol=0, atol=bound)


def test_distance_is_zero_for_equal_pixels_and_negative_for_others(device):
    x = features(2, 3, (5, 4), device)
    A = circulant_similarity(DistanceSimilarity(), x, x, 3)
    D = A.to_dense()[:, 0]
    assert bool((D.diagonal(dim1=-2, dim2=-1) == 0).all())
    assert int((D < 0).sum()) == A.nnz - 2 * 20


@similarities
def test_inputs_may_have_any_strides_and_the_conjugate_bit(name, device):
    x = features(2, 3, (5, 4), device).to(memory_format=torch.channels_last)
    y = torch.randn(4, 10, 2, 3, dtype=torch.float64, device=device).permute(2, 3, 1, 0)[:, :, ::2]
    expanded = features(1, 3, (5, 4), device).expand(2, -1, -1, -1)
    z = features(2, 3, (5, 4), device, torch.complex128)
    for pair in ((x, y), (y, x), (expanded, x), (x, expanded), (z.conj(), x), (z.conj(), z)):
        A = circulant_similarity(SIMILARITIES[name], *pair, 3)
        plain = (one.contiguous().resolve_conj() for one in pair)
        assert A == circulant_similarity(SIMILARITIES[name], *plain, 3)


@similarities
@dtypes
def test_an_empty_batch(name, dtype, device):
    x = features(0, 3, (5, 4), device, dtype)
    for make in (circulant_similarity, circulant_adjacency):
        A = make(SIMILARITIES[name], x, x, 3)
        assert A.shape == (0, 1, 20, 20)
        assert A.dtype == dtype.to_real()


@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=str)
@grids
def test_softmax(size, window, dtype, device):
    A = matrix(size, window, device, dtype=dtype)
    B = softmax(A)
    assert B.dtype == dtype
    near = reference.mask(size, A.window).to(device)
    scores = exact(dense(A))
    expected = torch.where(near, scores, -torch.inf).softmax(-1)
    bound = rounding.of_softmax(scores, 0.0, dtype) * float(expected.max())
    assert_close(exact(dense(B)), expected, rtol=0, atol=bound)


def test_softmax_by_all_its_names(device):
    A = matrix((5, 4), 3, device)
    B = softmax(A)
    assert softmax(A, -1) == softmax(A, dim=3) == A.softmax() == A.softmax(-1) == B
    assert torch.softmax(A, -1) == B


def test_softmax_of_large_scores_neither_overflows_nor_vanishes(device):
    A = matrix((5, 4), 3, device, dtype=torch.float32) * 1e30
    largest = A.rows.argmax(-1, keepdim=True)
    assert_close(softmax(A).rows, torch.zeros_like(A.rows).scatter(-1, largest, 1))


def test_softmax_does_not_see_what_is_not_stored(device):
    # Entries far below zero: the dense zeros beside them would win.
    A = -1000 * Circulant(3, (1, 1, 9), device=device)
    assert_close(softmax(A).values, torch.full((1, 1, 27), 1 / 3, device=device))


@similarities
@dtypes
@grids
def test_adjacency(name, size, window, dtype, device):
    x, y = (features(2, 3, size, device, dtype) for _ in range(2))
    A = circulant_adjacency(SIMILARITIES[name], x, y, window)
    assert A.dtype == dtype.to_real()
    x, y = exact(x), exact(y)
    # Half precision is widened, and rounded at the end only.
    error = rounding.of_similarity(name, x, y, window, A.dtype, stored=0)
    scores = reference.similarity(name, x, y, window)
    expected = reference.adjacency(name, x, y, window)
    bound = rounding.of_softmax(scores, error, A.dtype) * float(expected.max())
    assert_close(exact(dense(A))[:, 0], expected, rtol=0, atol=bound)


def test_arguments_by_name(device):
    x, y = features(2, 3, (5, 4), device), features(2, 3, (5, 4), device)
    for make in (circulant_similarity, circulant_adjacency):
        A = make(simfun=DistanceSimilarity(), x=x, y=y, W=[3, 1])
        assert A == make(DistanceSimilarity(), x, y, (3, 1))


def test_similarities_are_values():
    assert DotSimilarity() == DotSimilarity()
    assert DotSimilarity() != DistanceSimilarity()
    assert len({DotSimilarity(), DotSimilarity(), DistanceSimilarity()}) == 2
    assert repr(DotSimilarity()) == "DotSimilarity()"
    assert repr(DistanceSimilarity()) == "DistanceSimilarity()"
    assert isinstance(DotSimilarity(), AbstractSimilarity)
    with pytest.raises(TypeError, match="DotSimilarity"):
        AbstractSimilarity()
