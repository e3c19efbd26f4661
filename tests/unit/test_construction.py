"""The ways to make a Circulant, and what it says about itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inputs import DTYPES, dense, dtypes, features, grids, matrix
from torch.testing import assert_close

from circulant_attention import (
    Circulant,
    circulant,
    circulant_mh_attention,
    kernel_length,
    spatial_dims,
    spatial_size,
)


@grids
def test_ones(size, window, device):
    assert Circulant(window, (2, 3, *size), device=device).dtype == torch.float32
    for dtype in DTYPES:
        A = Circulant(window, (2, 3, *size), dtype=dtype, device=device)
        assert (A.dtype, A.device.type) == (dtype, device)
        assert A.values.shape[:2] == (2, 3)
        assert bool((A.values == 1).all())
        assert_close(dense(A), A.to_dense(), rtol=0, atol=0)


@pytest.mark.parametrize("dims", [(2, 3, 5, 4), [2, 3, 5, 4], torch.Size([2, 3, 5, 4])], ids=repr)
def test_ones_with_dims_of_any_sequence(dims, device):
    assert Circulant(3, dims, device=device).shape == (2, 3, 20, 20)


@dtypes
def test_circulant_takes_batch_grid_real_dtype_and_device_of_features(dtype, device):
    A = circulant((3, 1), torch.zeros(2, 7, 5, 4, dtype=dtype, device=device))
    assert A.shape == (2, 1, 20, 20)
    assert A.window == (3, 1)
    assert A.dtype == dtype.to_real()
    assert A.device.type == device
    assert bool((A.values == 1).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_from_entries_shares_their_memory(dtype, device):
    values = torch.randn(2, 3, 60, dtype=dtype, device=device)
    A = Circulant(values, (3, 1), (5, 4))
    assert A.values.data_ptr() == values.data_ptr()
    assert_close(A.values, values, rtol=0, atol=0)


@grids
def test_from_sparse_csr(size, window, device):
    A = matrix(size, window, device)
    again = Circulant(A.data, window, size)
    assert again == A
    assert again.values.data_ptr() == A.values.data_ptr()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=["matrix", "batch", "batch-and-heads"])
def test_from_sparse_csr_whose_leading_dims_are_left_out(lead, device):
    A = matrix((5, 4), 3, device, batch=1, heads=1)
    data = torch.sparse_csr_tensor(
        A.crow_indices()[0, 0].long().expand(*lead, -1),
        A.col_indices()[0, 0].long().expand(*lead, -1),
        A.values[0, 0].expand(*lead, -1),
        (*lead, 20, 20),
        check_invariants=True,
    )
    batch, heads = (*lead, 1, 1)[:2]
    assert Circulant(data, 3, (5, 4)) == A.repeat(batch, heads, 1, 1)


def test_gradient_flows_through_sparse_csr(device):
    values = torch.randn(2, 3, 180, dtype=torch.float64, device=device, requires_grad=True)
    A = Circulant(Circulant(values, 3, (5, 4)).data, 3, (5, 4))
    A.values.square().sum().backward()
    assert_close(values.grad, 2 * values.detach(), rtol=0, atol=0)


def test_arguments_by_name(device):
    values = torch.randn(1, 1, 180, device=device)
    assert Circulant(data=values, W=3, spatial_size=(5, 4)) == Circulant(values, 3, (5, 4))


def test_what_it_says_about_itself(device):
    A = Circulant((1, 3, 5), (2, 4, 3, 4, 5), dtype=torch.complex64, device=device)
    assert A.shape == A.size() == (2, 4, 60, 60)
    assert isinstance(A.shape, torch.Size)
    assert A.size(1) == 4
    assert A.size(-1) == 60
    assert A.ndim == A.dim() == 4
    assert len(A) == 2
    assert A.nnz == 2 * 4 * 60 * 15
    assert A.window == kernel_length(A) == (1, 3, 5)
    assert A.spatial_size == spatial_size(A) == (3, 4, 5)
    assert spatial_dims(A) == 3
    assert A.rows.shape == (2, 4, 60, 15)
    assert A.is_complex()
    assert not A.is_floating_point()
    assert Circulant(3, (1, 1, 4)).is_floating_point()
    assert not A.requires_grad


def test_kernel_length_is_one_int_when_equal_in_every_dim(device):
    assert kernel_length(Circulant((3, 3), (1, 1, 5, 4), device=device)) == 3
    assert kernel_length(Circulant(5, (1, 1, 7), device=device)) == 5


def test_an_empty_batch(device):
    A = Circulant(3, (0, 2, 5, 4), device=device)
    assert A.shape == (0, 2, 20, 20)
    assert A.nnz == 0
    assert A.to_dense().shape == (0, 2, 20, 20)
    assert A.data.shape == (0, 2, 20, 20)
    assert A.mT.values.shape == (0, 2, 180)
    assert A.softmax() == A
    assert float(A.sum()) == 0.0
    assert A.sum(-1).shape == A.sum(-2).shape == (0, 2, 20)
    assert (A @ features(0, 3, (5, 4), device, torch.float32)).shape == (0, 3, 5, 4)


def test_integers_of_numpy_count(device):
    A = matrix((4, 5), 3, device, heads=4)
    x = features(2, 4, (4, 5), device)
    three, two = np.int64(3), np.int32(2)
    _, B = circulant_mh_attention(x, x, x, three, two)
    assert (B.window, B.shape[1]) == ((3, 3), 2)
    assert all(type(width) is int for width in B.window)
    assert torch.equal(A[np.int64(1), two, 3], A[1, 2, 3])
    assert torch.equal(A.sum(np.int64(-1)), A.sum(-1))
    assert A.softmax(np.int64(-1)) == A.softmax()
    assert A.transpose(np.int64(2), np.int64(3)) == A.mT
    assert A[:1].expand(two, 4, np.int64(20), 20).shape == (2, 4, 20, 20)
    ones = Circulant(three, (1, np.int64(1), np.int64(6)))
    assert ones == Circulant(3, (1, 1, 6))
    assert all(type(size) is int for size in (*ones.shape, *ones.spatial_size))
