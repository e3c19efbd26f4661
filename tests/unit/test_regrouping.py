"""Repeating, regrouping and concatenating batch and heads."""

from __future__ import annotations

import pytest
import torch
from inputs import dense, matrix
from torch.testing import assert_close

from circulant_attention import Circulant, cat


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (1, 3), (2, 3), (0, 2)], ids=str)
def test_repeat(counts, device):
    A = matrix((5, 4), 3, device)
    repeated = A.repeat(*counts, 1, 1)
    assert_close(repeated.to_dense(), dense(A).repeat(*counts, 1, 1), rtol=0, atol=0)
    assert A.repeat(*counts) == repeated


@pytest.mark.parametrize(
    "lead", [(2, 3), (3, 2), (6, 1), (1, 6), (-1, 1), (1, -1), (-1, 3)], ids=str
)
def test_reshape(lead, device):
    A = matrix((5, 4), 3, device)
    reshaped = A.reshape(*lead, 20, 20)
    assert_close(reshaped.to_dense(), dense(A).reshape(*lead, 20, 20), rtol=0, atol=0)
    assert reshaped.window == A.window
    assert reshaped.values.data_ptr() == A.values.data_ptr()


def test_reshape_with_one_leading_dim_or_sizes_left_open(device):
    A = matrix((5, 4), 3, device)
    assert A.reshape(6, 20, 20) == A.reshape(-1, 20, 20) == A.reshape(6, 1, 20, 20)
    assert A.reshape(3, 2, -1, 20) == A.reshape(3, 2, 20, 20)


@pytest.mark.parametrize("dim", [0, 1, -4, -3])
def test_cat(dim, device):
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device)
    joined = cat(A, B, A, dim=dim)
    expected = torch.cat([dense(A), dense(B), dense(A)], dim)
    assert_close(joined.to_dense(), expected, rtol=0, atol=0)
    assert torch.cat([A, B, A], dim) == joined


def test_cat_of_different_sizes_along_its_dim(device):
    A = matrix((5, 4), 3, device, heads=1)
    B = matrix((5, 4), 3, device, heads=4)
    assert cat(A, B).shape == (2, 5, 20, 20)
    assert cat(A, B)[:, :1] == A
    assert cat(A, B)[:, 1:] == B


def test_cat_joins_heads_in_julia_and_batches_in_torch_by_default(device):
    A = matrix((5, 4), 3, device)
    assert cat(A, A).shape == (2, 6, 20, 20)
    assert torch.cat([A, A]).shape == (4, 3, 20, 20)


def test_cat_of_one(device):
    A = matrix((5, 4), 3, device)
    assert cat(A) == A


def test_cat_promotes_dtypes_as_torch_does(device):
    A = matrix((5, 4), 3, device, dtype=torch.float32)
    B = matrix((5, 4), 3, device, dtype=torch.complex128)
    assert cat(A, B).dtype == torch.complex128


@pytest.mark.parametrize(
    "regroup",
    [
        lambda A: A.repeat(2, 3, 1, 1),
        lambda A: A.reshape(3, 2, 20, 20),
        lambda A: cat(A, 2 * A, dim=0),
    ],
    ids=["repeat", "reshape", "cat"],
)
def test_gradients(regroup, device):
    A = matrix((5, 4), 3, device).requires_grad_()
    result = regroup(A)
    assert isinstance(result, Circulant)
    result.values.sum().backward()
    (ones,) = torch.autograd.grad(regroup(A).to_dense().sum(), A.values)
    assert_close(A.values.grad, ones)
    assert float(ones.min()) == float(ones.max()) > 0
