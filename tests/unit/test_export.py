"""One matrix to and from SciPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from inputs import dense, grids, matrix
from torch.testing import assert_close

from circulant_attention import Circulant


@grids
def test_there_and_back(size, window, device):
    A = matrix(size, window, device)
    for batch, head in ((0, 0), (1, 2)):
        M = A.to_scipy(batch=batch, head=head)
        assert isinstance(M, scipy.sparse.csr_array)
        assert M.nnz == A.nnz // 6
        np.testing.assert_array_equal(M.toarray(), dense(A)[batch, head].cpu())
        assert Circulant(M, window, size) == A[batch, head].cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128], ids=str)
def test_dtypes(dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    for B in (A, A.conj(), A.mT, A.requires_grad_()):
        back = Circulant(B.to_scipy(head=1), 3, (5, 4))
        assert back.dtype == dtype
        assert back == B.detach()[0, 1].cpu()


def test_it_is_a_copy(device):
    A = matrix((5, 4), 3, device)
    before = A.to_dense()
    M = A.to_scipy()
    M.data *= 2
    M.indices[:] = 0
    M.indptr[:] = 0
    assert_close(A.to_dense(), before, rtol=0, atol=0)


def test_other_forms_of_csr(device):
    M = matrix((5, 4), 3, device).to_scipy()
    A = Circulant(M, 3, (5, 4))
    assert Circulant(scipy.sparse.csr_matrix(M), 3, (5, 4)) == A
    unsorted = M[:, ::-1].tocsr()[:, ::-1].tocsr()
    unsorted.indices[:9], unsorted.data[:9] = M.indices[:9][::-1], M.data[:9][::-1]
    unsorted.has_sorted_indices = False
    assert Circulant(unsorted, 3, (5, 4)) == A


def test_refused(device):
    A = matrix((5, 4), 3, device)
    M = A.to_scipy()
    for data, error, message in (
        (M.tocoo(), TypeError, r"SciPy in format csr, got coo: use data\.tocsr\(\)"),
        (M @ M, ValueError, "pattern is not the circulant one"),
        (M.astype(int), TypeError, "expected data to be one of"),
        (M.toarray(), TypeError, "expected data to be a tensor, got ndarray"),
    ):
        with pytest.raises(error, match=message):
            Circulant(data, 3, (5, 4))
    with pytest.raises(TypeError, match=r"no sparse matrices of torch\.float16: use A\.float\(\)"):
        A.half().to_scipy()
    with pytest.raises(ValueError, match="expected batch from 0 to 1, got 2"):
        A.to_scipy(batch=2)
    with pytest.raises(TypeError, match="expected head to be an int, got float"):
        A.to_scipy(head=0.0)


def test_without_scipy(monkeypatch, device):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="needs SciPy: pip install scipy"):
        matrix((5, 4), 3, device).to_scipy()
    assert Circulant(3, (1, 1, 6)).nnz == 18
