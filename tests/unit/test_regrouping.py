"""Repeating, regrouping and concatenating batch and heads."""

from __future__ import annotations

import pytest
import torch
from inputs import dense, matrix
from torch.testing import assert_close

from circulant_attention import cat


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
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device, dtype=torch.complex64)
    joined = cat(A, B, A, dim=dim)
    expected = torch.cat([dense(A), dense(B), dense(A)], dim)
    assert_close(joined.to_dense(), expected, rtol=0, atol=0)
    assert torch.cat([A, B, A], dim) == joined
    assert cat(A, dim=dim) == A


def test_cat_of_different_sizes_along_its_dim(device):
    A = matrix((5, 4), 3, device, heads=1)
    B = matrix((5, 4), 3, device, heads=4)
    assert cat(A, B).shape == (2, 5, 20, 20)
    assert cat(A, B)[:, :1] == A
    assert cat(A, B)[:, 1:] == B


def test_sizes_in_one_tuple(device):
    A = matrix((5, 4), 3, device)
    assert A.reshape(A.shape) == A
    assert A.repeat((2, 1, 1, 1)) == A.repeat(2, 1, 1, 1)
    assert cat([A, A], dim=0) == torch.cat([A, A], 0)
