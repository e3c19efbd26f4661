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


def test_of_a_transpose(device):
    A = matrix((5, 4), (3, 1), device)
    assert_close(A.mT.sum(-1), A.sum(-2))
    assert_close(A.mT.sum(-2), A.sum(-1))


@pytest.mark.parametrize("dim", [*TO_TENSORS, *TO_CIRCULANTS, None], ids=str)
def test_mean_counts_the_zeros(dim, device):
    A = matrix((5, 4), 3, device).requires_grad_()
    dims = tuple(range(4)) if dim is None else dim
    for ours in (A.mean(dim), torch.mean(A, dim), A.mean(dim, dtype=torch.complex128)):
        expected = dense(A).mean(dims, keepdim=isinstance(ours, Circulant)).to(ours.dtype)
        assert_close(ours.to_dense() if isinstance(ours, Circulant) else ours, expected)
    ours = A.mean(dim)
    total = ours.values if isinstance(ours, Circulant) else ours
    (gradient,) = torch.autograd.grad(total.square().sum(), A.values)
    (expected,) = torch.autograd.grad(dense(A).mean(dims).square().sum(), A.values)
    assert_close(gradient, expected)


@pytest.mark.parametrize("dim", [*TO_TENSORS, *TO_CIRCULANTS, None], ids=str)
def test_dtype_of_a_sum(dim, device):
    A = matrix((5, 4), 3, device, dtype=torch.float16)
    ours = A.sum(dim, dtype=torch.float64)
    wanted = A.double().sum(dim)
    assert ours.dtype == wanted.dtype == torch.float64
    if isinstance(ours, Circulant):
        ours, wanted = ours.values, wanted.values
    assert_close(ours, wanted)


@pytest.mark.parametrize("dim", [-1, -2, (-2, -1), 0, None], ids=str)
def test_a_mean_of_half_precision_does_not_overflow(dim, device):
    A = 60000 * Circulant(5, (2, 1, 5, 5), dtype=torch.float16, device=device)
    mean = A.mean(dim)
    values = mean.values if isinstance(mean, Circulant) else mean
    assert values.dtype == torch.float16
    assert_close(values, torch.full_like(values, 60000), rtol=0, atol=0)
