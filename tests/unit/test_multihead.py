"""Several heads: contiguous groups of channels, each for itself (see also test_attention.py)."""

from __future__ import annotations

import reference
from inputs import SIMILARITIES, dense, features, grids, matrix, similarities
from torch.testing import assert_close

from circulant_attention import (
    DotSimilarity,
    circulant_adjacency,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    mh,
)


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


def test_the_operator_shows_its_name():
    assert repr(mh) == "mh"
