"""Operators on the stored entries, against dense matrices; see also test_elementwise.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inputs import dense, dtypes, matrix
from torch.testing import assert_close

from circulant_attention import Circulant, dot, scale


@dtypes
def test_every_dtype_is_kept(dtype, device):
    A, B = (matrix((5, 4), 3, device, dtype=dtype) for _ in range(2))
    m = torch.randn(2, 3, 1, 1, dtype=dtype, device=device)
    for result in (A + B, A - B, -A, 2 * A, A / 2, m * A, A / m, A * torch.tensor(2.0)):
        assert result.dtype == dtype


@pytest.mark.parametrize(
    "c", [2, True, 1 - 2j, *(dtype(3) for dtype in (np.float32, np.float64, np.int64))], ids=repr
)
def test_numbers(c, device):
    A = matrix((5, 4), 3, device, dtype=torch.float32)
    for result in (c * A, A * c, A.scale(c), scale(c, A)):
        assert result.dtype == (torch.complex64 if isinstance(c, complex) else torch.float32)
        assert_close(result.values, c * A.values, rtol=0, atol=0)
    for result in (A / c, A.div(c)):
        assert_close(result.values, A.values / c, rtol=0, atol=0)


def test_a_0d_tensor_counts_as_a_number_and_one_of_one_dim_does_not(device):
    A = matrix((5, 4), 3, device, dtype=torch.float32)
    c = torch.tensor(0.25, dtype=torch.float64, device=device)
    for result in (c * A, A / (1 / c)):
        assert result.dtype == torch.float32
        assert_close(result.values, 0.25 * A.values, rtol=0, atol=0)
    assert (c[None] * A).dtype == (A / c[None]).dtype == torch.float64


def test_dtypes_are_promoted_as_by_torch(device):
    A = matrix((5, 4), 3, device, dtype=torch.float32)
    B = matrix((5, 4), 3, device, dtype=torch.float64)
    C = matrix((5, 4), 3, device, dtype=torch.complex64)
    assert (A + B).dtype == (B - A).dtype == torch.float64
    assert (A + C).dtype == torch.complex64
    assert (B + C).dtype == torch.complex128
    assert dot(A, B).dtype == torch.float64
    assert_close((A + B).values, A.values + B.values, rtol=0, atol=0)


@pytest.mark.parametrize("first", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("second", [torch.float64, torch.complex128], ids=str)
def test_dot_conjugates_its_first_argument(first, second, device):
    A, B = matrix((5, 4), 3, device, dtype=first), matrix((5, 4), 3, device, dtype=second)
    expected = (dense(A).conj() * dense(B)).sum()
    for result in (dot(A, B), A.dot(B)):
        assert result.shape == ()
        assert_close(result, expected)
    assert_close(dot(A, A).real, A.values.abs().square().sum())


def test_equality(device):
    A = matrix((5, 4), 3, device)
    assert A == A
    assert A == A.clone()
    assert not A != A.clone()
    assert A == A.complex()
    other = A.clone()
    other.values[1, 2, 3] += 1
    assert A != other
    assert A != A[:1]
    assert Circulant(3, (1, 1, 5, 4)) != Circulant(3, (1, 1, 4, 5))
    assert Circulant((1, 3), (1, 1, 5, 4)) != Circulant((3, 1), (1, 1, 5, 4))
    assert Circulant(3, (2, 1, 5, 4)) != Circulant(3, (1, 2, 5, 4))
    assert A != A.values
    assert A != 1
    nan = A * float("nan")
    assert nan != nan.clone()


def test_hash_is_by_identity_as_for_tensors(device):
    A = matrix((5, 4), 3, device)
    assert len({A, A.clone()}) == 2
    assert A in {A: 1}


def test_augmented_assignment_makes_a_new_one(device):
    A = matrix((5, 4), 3, device)
    B, before = A, A.values.clone()
    B += A
    B *= 2
    B -= A
    B /= 3
    assert B is not A
    assert_close(A.values, before, rtol=0, atol=0)
    assert_close(B.values, before)
