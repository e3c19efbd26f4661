"""Sums over rows, columns, heads, batch and everything, against dense sums."""

from __future__ import annotations

import pytest
import torch
from inputs import dense, dtypes, exact, grids, matrix
from rounding import of_sum
from torch.testing import assert_close

from circulant_attention import Circulant

TO_TENSORS = [-1, 3, -2, 2, (-2, -1), (2, 3), (3, 2), [-1, -2]]
TO_CIRCULANTS = [0, -4, 1, -3, (0, 1), (1, 0), [-4, -3]]


@pytest.mark.parametrize("dim", TO_TENSORS, ids=str)
@pytest.mark.parametrize("keepdim", [False, True], ids=["dropped", "kept"])
@grids
def test_over_rows_and_columns(size, window, dim, keepdim, device):
    A = matrix(size, window, device)
    total = A.sum(dim, keepdim)
    expected = dense(A).sum(dim, keepdim=keepdim)
    assert total.shape == expected.shape
    assert_close(total, expected)


@pytest.mark.parametrize("dim", TO_CIRCULANTS, ids=str)
@pytest.mark.parametrize("keepdim", [False, True])
def test_over_batch_and_heads_stays_sparse_and_keeps_the_dim(dim, keepdim, device):
    A = matrix((5, 4), 3, device)
    total = A.sum(dim, keepdim)
    assert isinstance(total, Circulant)
    assert (total.window, total.spatial_size) == (A.window, A.spatial_size)
    assert_close(total.to_dense(), dense(A).sum(dim, keepdim=True))


@grids
def test_over_everything(size, window, device):
    A = matrix(size, window, device)
    assert A.sum().shape == ()
    assert_close(A.sum(), dense(A).sum())
    assert_close(A.sum(dim=None), A.sum(), rtol=0, atol=0)


@dtypes
@pytest.mark.parametrize("dim", [-1, -2, (-2, -1), None], ids=str)
def test_of_every_dtype(dtype, dim, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    total = A.sum(dim)
    assert total.dtype == dtype
    reference = exact(dense(A))
    terms = reference.shape[-1] if dim in (-1, -2) else reference[0, 0].numel()
    bound = of_sum(terms, reference.abs().sum(dim), dtype.to_real())
    assert_close(exact(total), reference.sum(dim), rtol=0, atol=bound)


@pytest.mark.parametrize("dim", [-1, -2, (-2, -1), 0, 1, (0, 1), None], ids=str)
def test_gradients(dim, device):
    A = matrix((5, 4), 3, device).requires_grad_()
    total = A.sum(dim)
    near = dense(torch.ones_like(A.detach())) != 0
    twin = dense(A.detach()).requires_grad_()
    values = total.values if isinstance(total, Circulant) else total
    values.square().sum().backward()
    twin.sum(dim).square().sum().backward()
    assert_close(A.values.grad, twin.grad[near].reshape(A.values.shape))


def test_of_a_transpose(device):
    A = matrix((5, 4), (3, 1), device)
    assert_close(A.mT.sum(-1), A.sum(-2))
    assert_close(A.mT.sum(-2), A.sum(-1))
