"""Arithmetic, shapes, single entries and sums of circulant arrays."""

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import cases, reference
from parity.cases import (
    dtypes,
    exact,
    few_grids,
    grids,
    normal,
    random_circulant,
    real_of,
    torch_dtype,
)
from parity.compare import assert_circulant, assert_close
from parity.convention import (
    circulant_to_torch,
    dims_to_torch,
    matrix_to_julia,
    to_numpy,
    to_torch,
)
from parity.tolerance import eps_of, of_sum

pytestmark = pytest.mark.usefixtures("device")


def two(grid, dtype):
    """Give two random arrays of two heads and batch three: the reference's, then the package's."""
    arrays = [random_circulant(grid, 2, 3, dtype, name) for name in "ab"]
    return [a.like(*exact(a.nzVal)) for a in arrays], [circulant_to_torch(a) for a in arrays]


# What the package is asked for, and the reference.
ROUNDED_ONCE = {"A + B": "add(a, b)", "A - B": "subtract(a, b)"}
ROUNDED = {
    "2 * A": "multiply(2, a)",
    "A * -0.7": "multiply(-0.7, a)",
    "A * (0.3 - 0.4j)": "multiply(0.3 - 0.4j, a)",
    "scale(-0.7, A)": "multiply(-0.7, a)",
    "A / 3": "multiply(1 / 3, a)",
    "M * A": "scale(m, a)",
    "A * M": "scale(m, a)",
    "scale(M, A)": "scale(m, a)",
}
EXACT = {
    "-A": "negate(a)",
    "A.real": "real(a)",
    "A.complex()": "complex_(a)",
    "A.conj()": "a.like(np.conj(a.nzVal))",
    "A.copy()": "a",
    "A.clone()": "a",
    # Julia's cat defaults to dims=3, heads; torch.cat to its own dim 0, batch.
    "cat(A, B)": "cat(a, b, dims=3)",
    "cat(A, B, dim=0)": "cat(a, b, dims=4)",
    "torch.cat([A, B], 1)": "cat(a, b, dims=3)",
    "torch.cat([A, B])": "cat(a, b, dims=4)",
    "A.repeat(1, 2, 1, 1)": "repeat(a, 1, 1, 2, 1)",
    "A.repeat(3, 2, 1, 1)": "repeat(a, 1, 1, 2, 3)",
    "A.reshape(6, 1, n, n)": "reshape(a, 1, 6)",
    "A.reshape(1, 6, n, n)": "reshape(a, 6, 1)",
    "A.reshape(2, 3, n, n)": "reshape(a, 3, 2)",
}


@pytest.mark.parametrize("call", [*ROUNDED_ONCE, *ROUNDED, *EXACT])
@dtypes
@few_grids
def test_functions(grid, dtype, call):
    (a, b), (A, B) = two(grid, dtype)
    m = normal((1, 1, 2, 3), dtype, "m")
    ours = eval(call, {**vars(ca), "torch": torch, "A": A, "B": B, "M": to_torch(m), "n": a.pixels})
    theirs = {**ROUNDED_ONCE, **ROUNDED, **EXACT}[call]
    names = {"np": np, "a": a, "b": b, "m": exact(m)[0]}
    expected = eval(theirs, {**vars(reference), **names})
    bound = 0
    if call in ROUNDED_ONCE:
        bound = eps_of(dtype) * abs(expected.nzVal)
    elif call in ROUNDED:
        # A number is rounded to the dtype, then the product.
        bound = of_sum(1, abs(expected.nzVal), dtype)
    result = torch_dtype(real_of(dtype))
    result = result.to_complex() if np.iscomplexobj(expected.nzVal) else result
    assert_circulant(ours, expected, bound, result)


@dtypes
@few_grids
def test_dot(grid, dtype):
    (a, b), (ours_a, ours_b) = two(grid, dtype)
    expected = reference.dot(a, b)
    bound = of_sum(a.nnz, reference.dot(a.like(abs(a.nzVal)), b.like(abs(b.nzVal))), dtype)
    found = ca.dot(ours_a, ours_b)
    assert found.dtype == torch_dtype(dtype)
    assert_close(to_numpy(found), expected, bound)


@dtypes
@few_grids
def test_entries(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    for i in (1, 2, a.pixels):
        for j in range(1, a.pixels + 1):
            for h, b in cases.pairs((2, 3)):
                expected = reference.getindex(a, i, j, h, b)
                assert ours[b - 1, h - 1, i - 1, j - 1].item() == expected


@dtypes
@few_grids
def test_dense_and_slices(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    dense = reference.to_dense(a)
    assert np.array_equal(matrix_to_julia(ours.to_dense()), dense)
    # Julia's A[:, :, h, b] is the matrix of one head and batch.
    for h, b in cases.pairs((2, 3)):
        one = a.like(a.nzVal[:, h - 1 : h, b - 1 : b])
        assert_circulant(ours[b - 1, h - 1], one, 0, torch_dtype(dtype))
    assert np.array_equal(matrix_to_julia(ours.data.to_dense()), dense)


@dtypes
@grids
def test_sums(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    absolute = a.like(abs(a.nzVal))
    terms = {None: a.nnz, 1: a.per_row, 2: a.per_row, (1, 2): a.nnz, 3: 2, 4: 3, (3, 4): 6}
    for dims, count in terms.items():
        dim = None if dims is None else dims_to_torch(dims)
        expected, magnitude = reference.sum_(a, dims), reference.sum_(absolute, dims)
        for name, found in (
            (f"A.sum({dim})", ours.sum(dim=dim, keepdim=True)),
            (f"torch.sum(A, {dim})", torch.sum(ours, dim=dim, keepdim=True)),
        ):
            assert found.dtype == torch_dtype(dtype)
            if dims is None:
                assert_close(to_numpy(found), expected, of_sum(count, magnitude, dtype), name)
            elif isinstance(found, ca.Circulant):
                bound = of_sum(count, magnitude.nzVal, dtype)
                assert_circulant(found, expected, bound, torch_dtype(dtype), name)
            else:
                bound = of_sum(count, magnitude, dtype)
                assert_close(matrix_to_julia(found), expected, bound, name)
