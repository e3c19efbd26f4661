"""Attention with several heads: contiguous groups of channels, each for itself."""

from __future__ import annotations

import reference
import torch
from inputs import SIMILARITIES, dense, dtypes, features, grids, matrix, similarities
from rounding import check_attention
from torch.testing import assert_close

from circulant_attention import (
    DistanceSimilarity,
    DotSimilarity,
    circulant_adjacency,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_mh_transposed_attention,
    mh,
)


@similarities
@grids
def test_attention(name, size, window, device):
    q, k = features(2, 6, size, device), features(2, 6, size, device)
    v = features(2, 9, size, device)
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, window, 3)
    assert y.shape == v.shape
    assert A.shape == (2, 3, *reference.mask(size, size).shape)
    check_attention(name, q, k, v, window, y, A, heads=3)


@similarities
@dtypes
def test_attention_of_every_dtype(name, dtype, device):
    # Small numbers: the rounding of halves in the scores is small, too.
    q, k, v = (features(2, 4, (5, 4), device, dtype) / 4 for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, (3, 1), 2)
    assert y.dtype == dtype
    assert A.dtype == dtype.to_real()
    check_attention(name, q, k, v, (3, 1), y, A, heads=2)


@similarities
def test_each_head_attends_for_itself_with_its_own_scale(name, device):
    q, k, v = (features(2, 8, (5, 4), device) for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 2)
    for head, channels in enumerate((slice(0, 4), slice(4, 8))):
        parts = (x[:, channels] for x in (q, k, v))
        y_head, A_head = circulant_attention(SIMILARITIES[name], *parts, 3)
        assert_close(y[:, channels], y_head)
        assert_close(A[:, head].values, A_head.values)


@similarities
def test_one_head_is_plain_attention(name, device):
    q, k, v = (features(2, 4, (5, 4), device) for _ in range(3))
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 1)
    wanted, B = circulant_attention(SIMILARITIES[name], q, k, v, 3)
    assert A == B
    assert_close(y, wanted, rtol=0, atol=0)


def test_every_calling_form_of_attention(device):
    q, k, v = (features(2, 4, (5, 4), device) for _ in range(3))
    dot, distance = DotSimilarity(), DistanceSimilarity()
    expected = {simfun: circulant_mh_attention(simfun, q, k, v, 3, 2) for simfun in (dot, distance)}
    assert expected[dot][1] != expected[distance][1]
    forms = [
        (dot, circulant_mh_attention(q, k, v, 3, 2)),
        (dot, circulant_mh_attention(q, k, v, W=3, nheads=2)),
        (dot, circulant_mh_attention(q=q, k=k, v=v, W=(3, 3), nheads=2)),
        (distance, circulant_mh_attention(distance, q, k, v, 3, nheads=2)),
        (distance, circulant_mh_attention(q, k, v, 3, 2, simfun=distance)),
        (distance, circulant_mh_attention(nheads=2, W=3, v=v, k=k, q=q, simfun=distance)),
    ]
    for simfun, (y, A) in forms:
        assert A == expected[simfun][1]
        assert_close(y, expected[simfun][0], rtol=0, atol=0)


@grids
def test_a_ready_matrix_applied_in_every_calling_form(size, window, device):
    A = matrix(size, window, device)
    x = features(2, 6, size, device)
    y = mh(A, x)
    expected = reference.apply(dense(A).flatten(0, 1), x.reshape(6, 2, *size)).reshape(x.shape)
    assert_close(y, expected)
    for form in (
        A @ mh @ x,
        circulant_mh_attention(A, x),
        circulant_mh_attention(A, x=x),
        circulant_mh_attention(A=A, x=x),
        circulant_mh_attention(x=x, A=A),
    ):
        assert_close(form, y, rtol=0, atol=0)


def test_the_adjacency_is_the_matrix_that_was_applied(device):
    q, k, v = (features(2, 4, (5, 4), device) for _ in range(3))
    y, A = circulant_mh_attention(q, k, v, 3, 2)
    assert_close(A @ mh @ v, y)  # to rounding: y is computed without A


def test_transposed(device):
    A = matrix((5, 4), 3, device)
    x, y = features(2, 6, (5, 4), device), features(2, 6, (5, 4), device)
    transposed = circulant_mh_transposed_attention(A, x)
    assert_close((mh(A, y) * x).sum(), (y * transposed).sum())
    assert_close(circulant_mh_transposed_attention(A=A, x=x), transposed, rtol=0, atol=0)


@similarities
def test_adjacency_scales_nothing(name, device):
    x, y = features(2, 8, (5, 4), device), features(2, 8, (5, 4), device)
    A = circulant_mh_adjacency(SIMILARITIES[name], x, y, 3, 4)
    assert A.shape == (2, 4, 20, 20)
    for head in range(4):
        channels = slice(2 * head, 2 * head + 2)
        B = circulant_adjacency(SIMILARITIES[name], x[:, channels], y[:, channels], 3)
        assert_close(A[:, head].values, B.values)


def test_adjacency_by_names_and_with_a_window_per_dim(device):
    x, y = features(2, 4, (5, 4), device), features(2, 4, (5, 4), device)
    A = circulant_mh_adjacency(simfun=DotSimilarity(), x=x, y=y, W=[5, 1], nheads=2)
    assert A == circulant_mh_adjacency(DotSimilarity(), x, y, (5, 1), 2)
    assert A.window == (5, 1)


@similarities
def test_inputs_may_have_any_strides(name, device):
    q = features(2, 4, (5, 4), device).to(memory_format=torch.channels_last)
    k = torch.randn(4, 10, 2, 4, dtype=torch.float64, device=device).permute(2, 3, 1, 0)[:, :, ::2]
    v = features(1, 6, (5, 4), device).expand(2, -1, -1, -1)
    y, A = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 2)
    contiguous = (x.contiguous() for x in (q, k, v))
    wanted, B = circulant_mh_attention(SIMILARITIES[name], *contiguous, 3, 2)
    assert A == B
    assert_close(y, wanted, rtol=0, atol=0)


@dtypes
def test_an_empty_batch(dtype, device):
    x = features(0, 4, (5, 4), device, dtype)
    y, A = circulant_mh_attention(x, x, x, 3, 2)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert A.shape == (0, 2, 20, 20)
    assert circulant_mh_transposed_attention(A, x).shape == x.shape


def test_the_operator_shows_its_name():
    assert repr(mh) == "mh"
