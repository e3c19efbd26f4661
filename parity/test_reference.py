"""The reference against dense brute force, finite differences and numbers worked out by hand.

Nothing of the package is met here: these tests say that the reference can be trusted.
"""

import ast
import pathlib
import sys

import numpy as np
import pytest
from reference import mask

from parity import cases, reference
from parity.cases import doubles, few_grids, grids, normal, random_circulant
from parity.compare import assert_close
from parity.tolerance import of_sum

HERE = pathlib.Path(__file__).parent


def dense_pattern(grid: cases.Grid) -> np.ndarray:
    """Give which pairs of pixels are at most half a window apart in every dim, pair by pair."""
    sizes = grid.spatial_size[::-1]
    return mask(sizes, (grid.window,) * len(sizes)).numpy()


def channels_first(x: np.ndarray) -> np.ndarray:
    """Give ``(batch, pixels, channels)``."""
    return x.reshape(-1, *x.shape[-2:], order="F").transpose(2, 0, 1)


def test_stands_on_its_own():
    sources = [path for path in (HERE / "reference").glob("*.py")]
    roots = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots.add(node.module.split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1
    assert len(sources) > 5
    assert roots - set(sys.stdlib_module_names) == {"numpy"}


def test_first_rows_by_hand():
    # Five pixels on a circle: the first one's neighbours are the fifth and the second.
    row_ptr, col_val = reference.circulant_pattern(3, (5,))
    assert row_ptr.tolist() == [1, 4, 7, 10, 13, 16]
    assert col_val.tolist() == [1, 2, 5, 1, 2, 3, 2, 3, 4, 3, 4, 5, 1, 4, 5]
    # Pixel (1, 1) of a grid of 4 x 3: rows 4, 1 and 2 of each of the columns 3, 1 and 2.
    assert reference.row_columns(1, 3, (4, 3)).tolist() == [1, 2, 4, 5, 6, 8, 9, 10, 12]
    # Pixel (3, 2) has number 7, and a window that does not wrap.
    assert reference.pixel_number((3, 2), (4, 3)) == 7
    assert reference.row_columns(7, 3, (4, 3)).tolist() == [2, 3, 4, 6, 7, 8, 10, 11, 12]


@grids
def test_pixel_numbers_run_down_the_first_dim(grid):
    order = [index[::-1] for index in cases.pairs(grid.spatial_size[::-1])]
    for number, index in enumerate(order, start=1):
        assert reference.cartesian_index(number, grid.spatial_size) == index
        assert reference.pixel_number(index, grid.spatial_size) == number


@grids
def test_definition_and_rotation_rule_give_the_same_arrays(grid):
    row_ptr, col_val = reference.circulant_pattern(grid.window, grid.spatial_size)
    by_rule = [
        reference.cartesian_circulant(entry, grid.spatial_size, grid.window)
        for entry in range(1, col_val.size + 1)
    ]
    assert [column for column, _ in by_rule] == col_val.tolist()
    rows = np.repeat(np.arange(1, row_ptr.size), np.diff(row_ptr))
    assert [row for _, row in by_rule] == rows.tolist()


@grids
def test_pattern_is_the_window(grid):
    dense = reference.to_dense(reference.ones(grid.window, (*grid.spatial_size, 1, 1)))[:, :, 0, 0]
    assert np.array_equal(dense == 1, dense_pattern(grid))


@doubles
@few_grids
def test_similarity_is_dense_similarity_on_the_pattern(grid, dtype):
    x, y = cases.images(grid, 3, 2, dtype, "xy")
    xs, ys = channels_first(x), channels_first(y)
    gram = np.einsum("bic,bjc->bij", xs, ys.conj())
    apart = xs[:, :, None, :] - ys[:, None, :, :]
    dense = {"dot": gram.real, "distance": -0.5 * (apart.real**2 + apart.imag**2).sum(-1)}
    bounds = {"dot": np.einsum("bic,bjc->bij", abs(xs), abs(ys)), "distance": -dense["distance"]}
    for name, simfun in cases.REFERENCE_SIMFUN.items():
        ours = reference.circulant_similarity(simfun, x, y, grid.window)
        assert ours.size == (gram.shape[1], gram.shape[2], 1, 2) and ours.nzVal.dtype == np.float64
        expected = np.where(dense_pattern(grid), dense[name], 0)
        bound = of_sum(3, bounds[name], dtype)
        assert_close(reference.to_dense(ours)[:, :, 0].transpose(2, 0, 1), expected, bound)


@few_grids
def test_softmax_is_dense_softmax_of_what_is_stored(grid):
    a = random_circulant(grid, 2, 3, np.float64)
    dense = np.where(dense_pattern(grid)[:, :, None, None], reference.to_dense(a), -np.inf)
    expected = np.exp(dense) / np.exp(dense).sum(axis=1, keepdims=True)
    ours = reference.to_dense(reference.softmax(a))
    assert_close(ours, expected, of_sum(a.per_row, expected, np.float64))
    # Any common shift of a row cancels, however large.
    shifted = reference.softmax(a.like(a.nzVal + 1000))
    # The shifted entries are rounded to the spacing of numbers near 1000.
    assert_close(shifted.nzVal, reference.softmax(a).nzVal, 2 * np.spacing(1004.0))


@doubles
@few_grids
def test_attention_is_the_dense_product(grid, dtype):
    (x,) = cases.images(grid, 3, 6, dtype, "x")
    a = random_circulant(grid, 2, 3, dtype)
    dense = reference.to_dense(a).reshape(a.pixels, a.pixels, 6, order="F").transpose(2, 0, 1)
    xs = channels_first(x)
    for apply, matrix in (
        (reference.circulant_attention, dense),
        (reference.circulant_transposed_attention, dense.transpose(0, 2, 1)),
        (reference.circulant_adjoint_attention, dense.conj().transpose(0, 2, 1)),
    ):
        ours = apply(a, x)
        assert ours.shape == x.shape
        bound = of_sum(a.per_row, abs(matrix) @ abs(xs), dtype)
        assert_close(channels_first(ours), matrix @ xs, bound)


@doubles
@few_grids
def test_array_functions_are_those_of_dense_arrays(grid, dtype):
    a, b = (random_circulant(grid, 2, 3, dtype, name) for name in "ab")
    da, db = reference.to_dense(a), reference.to_dense(b)
    c = normal((1, 1, 2, 3), dtype, "c")
    for ours, expected in (
        (reference.add(a, b), da + db),
        (reference.subtract(a, b), da - db),
        (reference.negate(a), -da),
        (reference.multiply(3, a), 3 * da),
        (reference.scale(c, a), c * da),
        (reference.scale(c[:, :, :1], a), c[:, :, :1] * da),
        (reference.real(a), da.real),
        (reference.complex_(a), da.astype(complex)),
        (reference.cat(a, b, dims=3), np.concatenate([da, db], axis=2)),
        (reference.cat(a, b, dims=4), np.concatenate([da, db], axis=3)),
        (reference.repeat(a, 1, 1, 3, 2), np.tile(da, (1, 1, 3, 2))),
        (reference.reshape(a, 6), da.reshape(*da.shape[:2], 6, order="F")),
        (reference.reshape(a, 3, 2), da.reshape(*da.shape[:2], 3, 2, order="F")),
    ):
        assert ours.size == expected.shape
        dense = reference.to_dense(ours)
        assert dense.dtype == expected.dtype and np.array_equal(dense, expected)
    with pytest.raises(ValueError, match="only heads and batch"):
        reference.repeat(a, 2, 1, 1, 1)

    total = of_sum(a.nnz, np.sum(abs(da)), dtype)
    bound = of_sum(a.nnz, np.sum(abs(da * db)), dtype)
    assert_close(reference.dot(a, b), np.vdot(da, db), bound)
    assert_close(reference.sum_(a), np.sum(da), total)
    for dims in (1, 2, (1, 2)):
        axes = tuple(d - 1 for d in np.atleast_1d(dims))
        assert_close(reference.sum_(a, dims), np.sum(da, axis=axes, keepdims=True), total)
    for dims in (3, 4, (3, 4)):
        axes = tuple(d - 1 for d in np.atleast_1d(dims))
        summed = reference.to_dense(reference.sum_(a, dims))
        assert_close(summed, np.sum(da, axis=axes, keepdims=True), total)
    with pytest.raises(ValueError, match="dims"):
        reference.sum_(a, (1, 3))

    for i, j in ((1, 1), (1, a.pixels), (a.pixels, 1), (2, a.pixels // 2)):
        assert reference.getindex(a, i, j, 2, 3) == da[i - 1, j - 1, 1, 2]
    assert reference.equal(a, a.like(a.nzVal.copy()))
    assert not reference.equal(a, b)
    assert not reference.equal(a, reference.sum_(a, 3))
