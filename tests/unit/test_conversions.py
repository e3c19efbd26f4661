"""The same matrix in other forms: dense, sparse CSR, dtypes, copies, real and complex."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from inputs import COMPLEX_DTYPES, DTYPES, REAL_DTYPES, dense, dtypes, grids, matrix
from torch.testing import assert_close

from circulant_attention import Circulant, circulant_transposed_attention_, similar, softmax_


@grids
def test_to_dense(size, window, device):
    for dtype in DTYPES:
        A = matrix(size, window, device, dtype=dtype)
        assert A.to_dense().dtype == dtype
        assert_close(A.to_dense(), dense(A), rtol=0, atol=0)


@dtypes
@grids
def test_data_is_sparse_csr_over_the_same_memory(size, window, dtype, device):
    A = matrix(size, window, device, dtype=dtype)
    for data in (A.data, A.to_sparse_csr()):
        assert data.layout == torch.sparse_csr
        assert (data.shape, data.dtype, data.device) == (A.shape, dtype, A.device)
        assert data.values().data_ptr() == A.values.data_ptr()
        # torch's own check of the CSR invariants.
        torch.sparse_csr_tensor(
            data.crow_indices(),
            data.col_indices(),
            data.values(),
            data.shape,
            check_invariants=True,
        )
        assert_close(data.to_dense(), dense(A), rtol=0, atol=0)


def test_index_tensors_are_shared_by_batch_and_heads(device):
    A = matrix((5, 4), 3, device)
    assert A.crow_indices().shape == (2, 3, 21)
    assert A.col_indices().shape == (2, 3, 180)
    assert A.crow_indices().stride()[:2] == A.col_indices().stride()[:2] == (0, 0)
    assert_close(A.data.crow_indices(), A.crow_indices(), rtol=0, atol=0)
    assert_close(A.data.col_indices(), A.col_indices(), rtol=0, atol=0)


def test_data_of_views_with_the_conjugate_or_negative_bit(device):
    A = matrix((5, 4), 3, device, dtype=torch.complex128)
    assert_close(A.conj().data.values(), A.values.conj().resolve_conj(), rtol=0, atol=0)
    assert_close(A.conj().imag.data.values(), -A.values.imag, rtol=0, atol=0)


@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_to_dtype(target, device):
    A = matrix((5, 4), 3, device)
    methods = {
        torch.float32: A.float,
        torch.float64: A.double,
        torch.float16: A.half,
        torch.bfloat16: A.bfloat16,
    }
    for B in (A.to(target), methods.get(target, lambda: A.to(target))()):
        assert B.dtype == target
        assert_close(B.values, A.values.to(target), rtol=0, atol=0)


def test_to_what_it_is_already_is_itself(device):
    A = matrix((5, 4), 3, device)
    assert A.to(torch.float64) is A
    assert A.to(device) is A
    assert A.double() is A


def test_to_takes_what_torch_takes(device):
    A = matrix((5, 4), 3, device)
    copied = A.to(device=device, dtype=torch.float64, copy=True)
    assert copied == A
    assert copied.values.data_ptr() != A.values.data_ptr()
    assert A.to(torch.zeros((), dtype=torch.float32, device=device)).dtype == torch.float32
    assert A.to("meta").device.type == "meta"
    assert A.cpu().device.type == "cpu"
    assert A.cpu() == A.to("cpu")


def test_cuda_is_to_of_a_cuda_device(monkeypatch):
    moves = []
    monkeypatch.setattr(Circulant, "to", lambda self, device: moves.append(device))
    A = Circulant(3, (1, 1, 4))
    A.cuda()
    A.cuda(1)
    assert moves == ["cuda", 1]


@pytest.mark.parametrize("make", [Circulant.clone, Circulant.copy, torch.clone, copy.deepcopy])
def test_copies_have_entries_of_their_own(make, device):
    A = matrix((5, 4), (3, 1), device)
    B = make(A)
    assert B == A
    assert B.values.data_ptr() != A.values.data_ptr()


@pytest.mark.parametrize("make", [Circulant.similar, similar])
def test_similar(make, device):
    A = matrix((5, 4), (3, 1), device, dtype=torch.complex64).requires_grad_()
    B = make(A)
    assert (B.shape, B.dtype, B.device) == (A.shape, A.dtype, A.device)
    assert (B.window, B.spatial_size) == (A.window, A.spatial_size)
    assert not B.requires_grad
    assert B.values.data_ptr() != A.values.data_ptr()


def test_detach_and_requires_grad(device):
    A = matrix((5, 4), 3, device)
    assert A.requires_grad_() is A
    assert A.requires_grad
    assert A.values.requires_grad
    assert (2 * A).requires_grad
    detached = (2 * A).detach()
    assert not detached.requires_grad
    assert detached == 2 * A
    assert A.detach().values.data_ptr() == A.values.data_ptr()
    assert not A.requires_grad_(False).requires_grad


@pytest.mark.parametrize("dtype", COMPLEX_DTYPES, ids=str)
def test_parts_of_a_complex_one(dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    D = dense(A)
    assert A.real.dtype == A.imag.dtype == dtype.to_real()
    assert_close(A.real.to_dense(), D.real, rtol=0, atol=0)
    assert_close(A.imag.to_dense(), D.imag, rtol=0, atol=0)
    assert_close(A.conj().to_dense(), D.conj(), rtol=0, atol=0)
    assert A.complex() is A


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_parts_of_a_real_one(dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    assert A.real is A
    assert A.conj() is A
    assert A.complex().dtype == dtype.to_complex()
    assert A.complex().real == A
    assert not bool(A.complex().imag.values.any())


CONVERSIONS = {
    "real": lambda A: A.real,
    "imag": lambda A: A.imag,
    "conj": lambda A: A.conj(),
    "clone": lambda A: A.clone(),
    "to": lambda A: A.to(torch.complex64),
    "complex": lambda A: A.real.complex() if isinstance(A, Circulant) else A.real + 0j,
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_carry_the_gradient(name, device):
    A = matrix((5, 4), 3, device, dtype=torch.complex128).requires_grad_()
    ours, expected = CONVERSIONS[name](A).values, CONVERSIONS[name](A.values)
    gradients = [torch.autograd.grad((x * x).abs().sum(), A.values)[0] for x in (ours, expected)]
    assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [*REAL_DTYPES, torch.complex64], ids=str)
def test_pickle(dtype, device):
    A = matrix((5, 4), (3, 1), device, dtype=dtype)
    again = pickle.loads(pickle.dumps(A))
    assert again == A
    assert again.dtype == dtype


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda A: pickle.loads(pickle.dumps(A))])
def test_a_pending_transpose_of_entries_written_in_place_can_be_copied(remake, device):
    A = matrix((5, 4), 3, device)
    for _ in range(3):
        softmax_(A)
    assert remake(A.mT) == A.mT


def test_entries_need_not_be_contiguous(device):
    strided = torch.randn(180, 3, 2, dtype=torch.float64, device=device).permute(2, 1, 0)
    expanded = torch.randn(1, 1, 180, dtype=torch.float64, device=device).expand(2, 3, -1)
    x = torch.randn(6, 2, 5, 4, dtype=torch.float64, device=device)
    for values in (strided, expanded):
        A, B = Circulant(values, 3, (5, 4)), Circulant(values.contiguous(), 3, (5, 4))
        assert A == B
        assert_close(A.to_dense(), B.to_dense(), rtol=0, atol=0)
        assert_close(A.data.to_dense(), B.to_dense(), rtol=0, atol=0)
        assert_close(A @ x, B @ x, rtol=0, atol=0)
        assert A.mT == B.mT
        y = circulant_transposed_attention_(torch.empty_like(x), A, x)
        assert_close(y, B.mT @ x, rtol=0, atol=0)
        assert_close(A.sum(-1), B.sum(-1))


@grids
def test_diagonal(size, window, device):
    A = matrix(size, window, device).requires_grad_()
    expected = dense(A).diagonal(dim1=-2, dim2=-1)
    for ours in (A.diagonal(), A.diagonal(0, 2, 3), torch.diagonal(A, dim1=3, dim2=-2)):
        assert_close(ours, expected, rtol=0, atol=0)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad(one, A.values, weight)[0] for one in (A.diagonal(), expected)]
    assert_close(*gradients, rtol=0, atol=0)


def test_expand_shares_memory(device):
    A = matrix((5, 4), 3, device, batch=1).requires_grad_()
    x = torch.randn(12, 2, 5, 4, dtype=torch.float64, device=device)
    for B in (A.expand(4, 3, 20, 20), A.expand(4, -1, -1, -1), A.expand((4, 3, -1, 20))):
        assert_close(B.to_dense(), dense(A).expand(4, 3, 20, 20), rtol=0, atol=0)
        assert B.values.data_ptr() == A.values.data_ptr()
        assert_close(B @ x, A.repeat(4, 1, 1, 1) @ x)
    (gradient,) = torch.autograd.grad(B.values.sum(), A.values)
    assert_close(gradient, torch.full_like(gradient, 4))


def test_numel_counts_every_entry(device):
    A = matrix((5, 4), 3, device)
    assert A.numel() == torch.numel(A) == dense(A).numel()
    assert A.nnz == 6 * 20 * 9
