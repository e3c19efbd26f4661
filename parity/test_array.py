"""Arithmetic, shapes, single entries and sums of circulant arrays."""

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import cases, reference
from parity.cases import (
    DTYPES,
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


@dtypes
@few_grids
def test_add_and_subtract(grid, dtype):
    (a, b), (ours_a, ours_b) = two(grid, dtype)
    result = torch_dtype(dtype)
    for name, ours, expected in (
        ("A + B", ours_a + ours_b, reference.add(a, b)),
        ("A - B", ours_a - ours_b, reference.subtract(a, b)),
    ):
        # One rounding.
        assert_circulant(ours, expected, eps_of(dtype) * abs(expected.nzVal), result, name)
    assert_circulant(-ours_a, reference.negate(a), 0, result, "-A")


@dtypes
@few_grids
def test_multiply_by_a_number(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    result = torch_dtype(dtype)
    numbers = [2, -0.7]
    if np.issubdtype(dtype, np.complexfloating):
        numbers.append(0.3 - 0.4j)
    for c in numbers:
        expected = reference.multiply(c, a)
        # The number is rounded to the dtype, then the product.
        bound = of_sum(1, abs(expected.nzVal), dtype)
        for name, product in (
            ("c * A", c * ours),
            ("A * c", ours * c),
            ("scale(c, A)", ca.scale(c, ours)),
        ):
            assert_circulant(product, expected, bound, result, name)
        inverse = reference.multiply(1 / c, a)
        assert_circulant(ours / c, inverse, of_sum(1, abs(inverse.nzVal), dtype), result, "A / c")


SCALES = {
    "full": ((1, 1, 2, 3), (2, 3)),
    "heads": ((1, 1, 2, 1), (2, 3)),
    "batch": ((1, 1, 1, 3), (2, 3)),
    "one": ((1, 1, 1, 1), (2, 3)),
    "array-heads": ((1, 1, 2, 3), (1, 3)),
    "array-batch": ((1, 1, 2, 3), (2, 1)),
    "array-one": ((1, 1, 2, 3), (1, 1)),
}


@dtypes
@pytest.mark.parametrize("case", SCALES)
def test_scale_by_head_and_batch(case, dtype):
    # Either side may have one head or one batch: both spread.
    scale_size, batch = SCALES[case]
    a = random_circulant(cases.Grid((5, 8), 3), *batch, dtype)
    m = normal(scale_size, dtype, "m")
    (m_exact,) = exact(m)
    expected = reference.scale(m_exact, a.like(*exact(a.nzVal)))
    assert expected.size[2:] == (2, 3)
    bound = of_sum(1, abs(expected.nzVal), dtype)
    ours, ours_m = circulant_to_torch(a), to_torch(m)
    assert ours_m.shape[2:] == (1, 1)
    for name, scaled in (
        ("m * A", ours_m * ours),
        ("A * m", ours * ours_m),
        ("scale(m, A)", ca.scale(ours_m, ours)),
    ):
        assert_circulant(scaled, expected, bound, torch_dtype(dtype), name)


@dtypes
@few_grids
def test_dot(grid, dtype):
    (a, b), (ours_a, ours_b) = two(grid, dtype)
    expected = reference.dot(a, b)
    bound = of_sum(a.nnz, reference.dot(a.like(abs(a.nzVal)), b.like(abs(b.nzVal))), dtype)
    found = ca.dot(ours_a, ours_b)
    assert found.dtype == torch_dtype(dtype)
    assert_close(to_numpy(found), expected, bound)


@few_grids
def test_equal(grid, device):
    (a, _), (ours, other) = two(grid, np.float64)
    assert (ours == ours.clone()) is True and (ours == other) is False
    assert not ours != ours.clone()
    changed = a.nzVal.copy(order="F")
    changed[-1, -1, -1] += 1
    assert not reference.equal(a, a.like(changed))
    assert ours != circulant_to_torch(a.like(changed))
    assert ours != ours[:1] and ours != ours[:, :1]
    # As many pixels on another grid: the index arrays differ.
    one_row = ca.Circulant(ours.window[-1], (3, 2, a.pixels), device=device)
    assert ours != one_row


def test_equal_compares_the_grid(device):
    sizes = ((4, 9), (9, 4))
    wide, high = (ca.Circulant(3, (1, 1, *size), device=device) for size in sizes)
    assert torch.equal(wide.values, high.values) and wide != high
    assert not reference.equal(reference.ones(3, (4, 9, 1, 1)), reference.ones(3, (9, 4, 1, 1)))


@dtypes
@few_grids
def test_copy_and_similar(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    for name, copied in (
        ("A.copy()", ours.copy()),
        ("A.clone()", ours.clone()),
    ):
        assert_circulant(copied, a, 0, torch_dtype(dtype), name)
        assert copied.values.data_ptr() != ours.values.data_ptr()
    for unset in (ca.similar(ours), ours.similar()):
        unset.values.zero_()
        assert_circulant(unset, a.like(0 * a.nzVal), 0, torch_dtype(dtype), "similar(A)")
    assert_circulant(ours, a, 0)


@few_grids
def test_real_and_complex(grid):
    for dtype in DTYPES:
        (a, _), (ours, _) = two(grid, dtype)
        real = torch_dtype(real_of(dtype))
        assert_circulant(ours.real, reference.real(a), 0, real, "A.real")
        assert_circulant(ours.complex(), reference.complex_(a), 0, real.to_complex(), "A.complex()")
        conjugated = a.like(np.conj(a.nzVal))
        assert_circulant(ours.conj(), conjugated, 0, torch_dtype(dtype), "A.conj()")


@dtypes
@few_grids
def test_cat(grid, dtype):
    (a, b), (ours_a, ours_b) = two(grid, dtype)
    result = torch_dtype(dtype)
    for dims in (3, 4):
        dim = dims_to_torch(dims)
        expected = reference.cat(a, b, dims=dims)
        assert_circulant(ca.cat(ours_a, ours_b, dim=dim), expected, 0, result, "cat")
    # Julia's cat defaults to dims=3, heads; torch.cat to its own dim 0, batch.
    assert ca.cat(ours_a, ours_b) == ca.cat(ours_a, ours_b, dim=1)
    assert torch.cat([ours_a, ours_b]) == torch.cat([ours_a, ours_b], 0)


@dtypes
@few_grids
def test_repeat_and_reshape(grid, dtype):
    (a, _), (ours, _) = two(grid, dtype)
    n, result = a.pixels, torch_dtype(dtype)
    for heads, batch in ((1, 1), (2, 1), (1, 3), (2, 3)):
        expected = reference.repeat(a, 1, 1, heads, batch)
        assert_circulant(ours.repeat(batch, heads, 1, 1), expected, 0, result, "repeat")
    for heads, batch in ((1, 6), (6, 1), (3, 2), (2, 3)):
        expected = reference.reshape(a, heads, batch)
        assert_circulant(ours.reshape(batch, heads, n, n), expected, 0, result, "reshape")


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
    # Sums over rows or columns are dense, sums over heads or batch are circulant arrays.
    assert all(isinstance(ours.sum(dim), torch.Tensor) for dim in (-1, -2, (-2, -1)))
    assert all(isinstance(ours.sum(dim), ca.Circulant) for dim in (0, 1, (0, 1)))


def test_moved_and_detached(device):
    # Adapt.adapt(to, A) moves an array to another device and keeps what it is.
    grid = cases.Grid((5, 8), 3)
    a = random_circulant(grid, 2, 3, np.float64)
    ours = circulant_to_torch(a)
    assert ours.to("cpu").device.type == "cpu"
    assert_circulant(ours.to("cpu").to(device), a, 0, torch.float64)
    moved = ours.to("meta")
    assert isinstance(moved, ca.Circulant) and moved.device.type == "meta"
    assert (moved.shape, moved.window, moved.spatial_size) == (
        ours.shape,
        ours.window,
        ours.spatial_size,
    )
    single = a.like(a.nzVal.astype(np.float32))
    assert_circulant(ours.to(torch.float32), single, 0, torch.float32)
    ours.requires_grad_()
    assert ours.requires_grad and not ours.detach().requires_grad
    assert_circulant(ours.detach(), a, 0, torch.float64)
