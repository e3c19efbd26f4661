"""Transposed matrices: their entries are computed when they are first read."""

from __future__ import annotations

import pytest
import reference
import torch
from inputs import dense, dtypes, exact, features, grids, matrix
from rounding import of_sum
from torch.testing import assert_close

from circulant_attention import (
    Circulant,
    circulant_attention,
    circulant_mh_transposed_attention,
    circulant_transposed_attention,
    mh,
    softmax_,
)
from circulant_attention.ops import primitives


@dtypes
@grids
def test_mT(size, window, dtype, device):
    A = matrix(size, window, device, dtype=dtype)
    for transposed, expected in (
        (A.mT, dense(A).mT),
        (A.mH, dense(A).mH),
        (A.adjoint(), dense(A).mH),
    ):
        assert (transposed.shape, transposed.dtype) == (A.shape, dtype)
        assert (transposed.window, transposed.spatial_size) == (A.window, A.spatial_size)
        assert_close(transposed.to_dense(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dims", [(-1, -2), (-2, -1), (2, 3), (3, 2), (-2, 3), (-1, 2)], ids=str)
def test_transpose_of_rows_and_columns(dims, device):
    A = matrix((5, 4), 3, device)
    assert A.transpose(*dims) == A.mT


def test_twice_is_the_matrix_itself(device):
    A = matrix((5, 4), 3, device, dtype=torch.complex128)
    assert A.mT.mT == A
    assert A.mH.mH == A
    looked_at = A.mT
    _ = looked_at.values
    assert looked_at.mT == A


@grids
def test_applied(size, window, device):
    A = matrix(size, window, device)
    x = features(6, 2, size, device)
    expected = reference.apply(dense(A).flatten(0, 1).mT, x)
    looked_at = A.mT
    assert looked_at.values is looked_at.values
    for y in (
        A.mT @ x,
        looked_at @ x,
        circulant_transposed_attention(A, x),
        circulant_attention(A.mT, x),
        A.transpose(-1, -2).apply(x),
    ):
        assert_close(y, expected)


@dtypes
@pytest.mark.parametrize("features_dtype", [torch.float32, torch.complex64], ids=str)
def test_applied_with_mixed_dtypes(dtype, features_dtype, device):
    A = matrix((5, 4), 3, device, dtype=dtype)
    x = features(6, 2, (5, 4), device, features_dtype)
    result_dtype = torch.promote_types(dtype, features_dtype)
    D, X = exact(dense(A)).flatten(0, 1), exact(x)
    bound = of_sum(2 * 9, reference.apply(D.abs().mT, X.abs()), result_dtype.to_real(), stored=2)
    for y, matrices in ((A.mT @ x, D.mT), (A.mH @ x, D.mH)):
        assert y.dtype == result_dtype
        assert_close(exact(y), exact(reference.apply(matrices, X)), rtol=0, atol=bound)


@grids
def test_applied_head_by_head(size, window, device):
    A = matrix(size, window, device)
    x = features(2, 6, size, device)
    split = x.reshape(6, 2, *size)
    expected = reference.apply(dense(A).flatten(0, 1).mT, split).reshape(x.shape)
    for y in (mh(A.mT, x), A.mT @ mh @ x, circulant_mh_transposed_attention(A=A, x=x)):
        assert_close(y, expected)


def test_applying_it_permutes_no_entries(device, monkeypatch):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    expected = A.mT @ x

    def refuse(*_):
        raise AssertionError("the entries of the transpose were computed")

    monkeypatch.setattr(primitives, "transpose", refuse)
    assert_close(A.mT @ x, expected, rtol=0, atol=0)
    assert A.mT.shape == A.shape
    assert A.mT.requires_grad == A.requires_grad
    assert "20, 20" in repr(A.mT)
    assert A.mT.mT == A
    with pytest.raises(AssertionError, match="were computed"):
        _ = A.mT.values


LOOKS = {
    "values": lambda B, x: B.values,
    "apply": lambda B, x: B @ x,
    "dense": lambda B, x: B.to_dense(),
    "transpose": lambda B, x: B.mT,
    "sum": lambda B, x: B.sum(-1),
    "arithmetic": lambda B, x: 2 * B,
    "multi-head": lambda B, x: mh(B, x.reshape(2, 6, 5, 4)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_change_of_the_parent_before_the_first_look_is_an_error(look, device):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    B = A.mT
    softmax_(A)
    with pytest.raises(RuntimeError, match="changed in place since"):
        look(B, x)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_change_of_the_parent_after_the_first_look_does_not_count(look, device):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    B, expected = A.mT, dense(A).mT
    _ = B.values
    softmax_(A)
    look(B, x)
    assert_close(B.to_dense(), expected, rtol=0, atol=0)
    assert A.mT != B


def test_writing_into_a_transpose_leaves_the_parent_alone(device):
    A = matrix((5, 4), 3, device)
    before = A.clone()
    softmax_(A.mT)
    assert A == before


def test_a_look_without_gradients_cuts_none(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    x = features(6, 2, (5, 4), device)
    B = A.mT
    with torch.no_grad():
        _ = B.values
    assert B.requires_grad
    (gradient,) = torch.autograd.grad((B @ x).sum(), A.values)
    (expected,) = torch.autograd.grad((A.mT @ x).sum(), A.values)
    assert_close(gradient, expected)


def test_made_without_gradients_it_has_none(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    with torch.no_grad():
        B, C = A.mT, A.mT
    assert not B.requires_grad
    assert not (B @ features(6, 2, (5, 4), device)).requires_grad
    assert not C.values.requires_grad


def test_a_transpose_can_ask_for_gradients_of_its_own(device):
    B = matrix((5, 4), 3, device).mT.requires_grad_()
    assert isinstance(B, Circulant)
    (B @ features(6, 2, (5, 4), device)).sum().backward()
    assert B.values.grad.shape == B.values.shape


def test_inference_tensors_can_be_transposed(device):
    with torch.inference_mode():
        A = matrix((5, 4), 3, device)
        x = features(6, 2, (5, 4), device)
        assert_close(A.mT @ x, reference.apply(dense(A).flatten(0, 1).mT, x))
        assert_close(A.mT.to_dense(), dense(A).mT, rtol=0, atol=0)
