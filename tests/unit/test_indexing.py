"""Indexing: batches and heads stay sparse, rows, columns and entries come out dense."""

from __future__ import annotations

import pytest
import torch
from inputs import dense, grids, matrix
from torch.testing import assert_close

from circulant_attention import Circulant

STAY_SPARSE = [
    (0,),
    (-1,),
    (slice(1, None),),
    (slice(None, None, 2),),
    (slice(2, None),),
    ([1, 0, 1],),
    ([],),
    (range(2),),
    (1, 2),
    (1, slice(None, 2)),
    (slice(None), [2, 0]),
    (slice(None), -3),
    (Ellipsis,),
    (1, Ellipsis),
    (Ellipsis, slice(None)),
    (0, 1, slice(None), slice(None)),
    (slice(None), slice(1, 3), Ellipsis, slice(None)),
]


@pytest.mark.parametrize("index", STAY_SPARSE, ids=repr)
def test_batch_and_heads_stay_sparse_and_keep_their_dims(index, device):
    A = matrix((5, 4), 3, device)
    taken = A[index]
    assert isinstance(taken, Circulant)
    assert (taken.window, taken.spatial_size) == (A.window, A.spatial_size)
    # An int becomes a slice of one: the only difference from torch, which drops the dim.
    kept = tuple(slice(i, i + 1 or None) if isinstance(i, int) else i for i in index)
    assert_close(taken.to_dense(), dense(A)[kept], rtol=0, atol=0)


@pytest.mark.parametrize("index", [0, slice(1), [1], Ellipsis], ids=repr)
def test_one_index_needs_no_tuple(index, device):
    A = matrix((5, 4), 3, device)
    assert A[index] == A[(index,)]


def test_tensors_select(device):
    A = matrix((5, 4), 3, device)
    assert A[torch.tensor([1, 0], device=device)] == A[[1, 0]]
    assert A[torch.tensor(1, device=device)] == A[1]
    assert A[:, torch.tensor([True, False, True], device=device)] == A[:, [0, 2]]


BECOME_DENSE = [
    (1, 2, 3, 4),
    (-1, -1, -1, -1),
    (0, 0, 0, 10),
    (1, 2, 3),
    (1, 2, slice(None), 4),
    (1, 2, slice(3, 9), slice(None, None, 2)),
    (slice(None), 1, 3, 4),
    (slice(None), slice(None), 3, 4),
    (slice(None), slice(None), [3, 1, 3]),
    (slice(None), slice(None), slice(None), [3, 1, 3]),
    (0, slice(None), slice(2, 4), 7),
    (slice(None), 2, slice(2, 4), slice(7, 9)),
    (Ellipsis, 3),
    (Ellipsis, 3, 4),
    (Ellipsis, 3, slice(None)),
    (1, Ellipsis, 4),
    (1, 2, 3, 4, Ellipsis),
    ([1, 0], slice(None), 5, slice(None)),
    (slice(1), slice(1), slice(0), slice(None)),
]


@pytest.mark.parametrize("index", BECOME_DENSE, ids=repr)
def test_rows_columns_and_entries_are_those_of_the_dense_matrix(index, device):
    A = matrix((5, 4), 3, device)
    block = A[index]
    assert isinstance(block, torch.Tensor)
    assert_close(block, dense(A)[index], rtol=0, atol=0)


@grids
def test_rows_and_columns_of_every_grid(size, window, device):
    A = matrix(size, window, device)
    D = dense(A)
    for at in {0, A.shape[-1] // 2, A.shape[-1] - 1}:
        assert_close(A[..., at, :], D[..., at, :], rtol=0, atol=0)
        assert_close(A[..., at], D[..., at], rtol=0, atol=0)


def test_several_lists_take_a_block(device):
    A = matrix((5, 4), 3, device)
    rows, columns = [3, 0, 5], [1, 4]
    expected = dense(A)[:, :, rows][:, :, :, columns]
    assert_close(A[:, :, rows, columns], expected, rtol=0, atol=0)


def test_dense_blocks_carry_the_gradient(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    near = dense(torch.ones_like(A.detach())) != 0
    for index in [(1, 2, 3), (0, slice(None), slice(None), 5), (1, 1, 0, 1)]:
        twin = dense(A.detach()).requires_grad_()
        twin[index].square().sum().backward()
        (gradient,) = torch.autograd.grad(A[index].square().sum(), A.values)
        assert_close(gradient, twin.grad[near].reshape(A.values.shape))


def test_sparse_parts_carry_the_gradient_and_share_memory(device):
    A = matrix((5, 4), 3, device)
    assert A[1].values.data_ptr() == A.values[1].data_ptr()
    A.requires_grad_()
    A[1, 2].values.sum().backward()
    assert float(A.values.grad.sum()) == float(A.values.grad[1, 2].sum()) == 180


def test_iteration_goes_over_the_batch(device):
    A = matrix((5, 4), 3, device)
    parts = list(A)
    assert len(parts) == len(A) == 2
    assert parts[0] == A[0]
    assert parts[1] == A[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex64], ids=str)
def test_indexing_keeps_the_dtype(dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    assert_close(A[1, 2, 3], dense(A)[1, 2, 3], rtol=0, atol=0)
    assert_close(A[..., 4], dense(A)[..., 4], rtol=0, atol=0)
