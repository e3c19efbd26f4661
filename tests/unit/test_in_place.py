"""The functions in ``_``, which write into what they are given."""

from __future__ import annotations

import pytest
import torch
from inputs import SIMILARITIES, dtypes, features, matrix, similarities
from torch.testing import assert_close

from circulant_attention import (
    Circulant,
    DotSimilarity,
    circulant,
    circulant_adjacency,
    circulant_adjacency_,
    circulant_attention,
    circulant_attention_,
    circulant_similarity,
    circulant_similarity_,
    circulant_transposed_attention,
    circulant_transposed_attention_,
    similar,
    softmax,
    softmax_,
)

COMPARISONS = pytest.mark.parametrize(
    ("write", "make"),
    [
        (circulant_similarity_, circulant_similarity),
        (circulant_adjacency_, circulant_adjacency),
    ],
    ids=["similarity", "adjacency"],
)
APPLICATIONS = pytest.mark.parametrize(
    ("write", "make"),
    [
        (circulant_attention_, circulant_attention),
        (circulant_transposed_attention_, circulant_transposed_attention),
    ],
    ids=["attention", "transposed"],
)


@COMPARISONS
@similarities
@dtypes
def test_comparisons(write, make, name, dtype, device):
    x, y = (features(2, 3, (5, 4), device, dtype) for _ in range(2))
    A = similar(circulant((3, 1), x))
    entries = A.values
    assert write(A, SIMILARITIES[name], x, y) is A
    assert A.values is entries
    assert A == make(SIMILARITIES[name], x, y, (3, 1))


@COMPARISONS
def test_comparisons_fill_heads_and_are_rounded_to_the_dtype_that_is_there(write, make, device):
    x, y = features(6, 3, (5, 4), device), features(6, 3, (5, 4), device)
    A = Circulant(3, (2, 3, 5, 4), dtype=torch.float32, device=device)
    write(A, DotSimilarity(), x, y)
    assert A.dtype == torch.float32
    assert A == make(DotSimilarity(), x, y, 3).reshape(2, 3, 20, 20).float()


@COMPARISONS
def test_comparisons_carry_the_gradient(write, make, device):
    x, y = features(2, 3, (5, 4), device), features(2, 3, (5, 4), device)
    weight = torch.randn(2, 1, 180, dtype=torch.float64, device=device)
    x.requires_grad_()
    A = write(circulant(3, x), DotSimilarity(), x, y)
    (gradient,) = torch.autograd.grad((weight * A.values).sum(), x)
    made = make(DotSimilarity(), x, y, 3)
    (expected,) = torch.autograd.grad((weight * made.values).sum(), x)
    assert_close(gradient, expected)


def test_softmax(device):
    A = matrix((5, 4), 3, device)
    before, B, expected = A.clone(), similar(A), softmax(A)
    entries = B.values
    assert softmax_(B, A) is B
    assert B.values is entries
    assert B == expected
    assert A == before
    assert softmax_(before, before) == expected
    entries = A.values
    assert softmax_(A) is A
    assert A.values is entries
    assert A == expected


@APPLICATIONS
@dtypes
def test_applications(write, make, dtype, device):
    A = matrix((5, 4), (3, 1), device, dtype=dtype.to_real())
    x = features(6, 2, (5, 4), device, dtype)
    y = torch.full_like(x, float("nan"))
    assert write(y, A, x) is y
    assert_close(y, make(A, x), rtol=0, atol=0)


@APPLICATIONS
def test_applications_over_their_own_input(write, make, device):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    expected = make(A, x)
    write(x, A, x)
    assert_close(x, expected, rtol=0, atol=0)


@APPLICATIONS
def test_applications_into_a_view_write_nothing_beside_it(write, make, device):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    whole = torch.zeros(6, 4, 5, 8, dtype=torch.float64, device=device)
    write(whole[:, 1:3, :, ::2], A, x)
    assert_close(whole[:, 1:3, :, ::2], make(A, x), rtol=0, atol=0)
    whole[:, 1:3, :, ::2] = 0
    assert not bool(whole.any())


@APPLICATIONS
def test_applications_carry_the_gradient(write, make, device):
    A = matrix((5, 4), 3, device).requires_grad_()
    x = features(6, 2, (5, 4), device).requires_grad_()
    weight = features(6, 2, (5, 4), device)
    y = write(torch.empty_like(x.detach()), A, x)
    gradients = torch.autograd.grad((weight * y).sum(), (A.values, x))
    expected = torch.autograd.grad((weight * make(A, x)).sum(), (A.values, x))
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert_close(gradient, wanted)


def test_autograd_notices_entries_written_over(device):
    A = (1.0 * matrix((5, 4), 3, device)).clone()
    x = features(6, 2, (5, 4), device).requires_grad_()
    y = A @ x
    softmax_(A)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_leaf_that_requires_its_gradient_is_not_written(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    before = A.detach().clone()
    with pytest.raises(RuntimeError, match="leaf Variable"):
        softmax_(A)
    assert A.detach() == before
