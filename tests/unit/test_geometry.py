"""The grid, its window, and the sparsity pattern as index tensors."""

from __future__ import annotations

import pytest
import reference
import torch
from inputs import grids
from torch.testing import assert_close

from circulant_attention.geometry import Geometry, make_geometry


@pytest.mark.parametrize("window", [3, (3, 3), [3, 3], torch.Size([3, 3])], ids=repr)
def test_an_int_window_counts_for_every_dim(window):
    assert make_geometry(window, torch.Size([4, 5])) == Geometry((4, 5), (3, 3))


def test_geometries_are_keys_equal_by_value():
    a, b = make_geometry(3, (5, 4)), make_geometry((3, 3), [5, 4])
    assert (a.pixels, a.nnz_per_row) == (20, 9)
    assert a == b
    assert hash(a) == hash(b)
    assert a != make_geometry(3, (4, 5))
    assert a != make_geometry((3, 1), (5, 4))


def test_columns_of_a_circle(device):
    columns = make_geometry(3, (5,)).col_indices(device)
    expected = [[0, 1, 4], [0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 3, 4]]
    assert columns.reshape(5, 3).tolist() == expected


def test_columns_of_a_torus_are_numbered_with_the_last_dim_fastest(device):
    geometry = make_geometry((3, 1), (4, 2))
    # Pixels: 0 1 / 2 3 / 4 5 / 6 7.
    expected = [
        [0, 2, 6],
        [1, 3, 7],
        [0, 2, 4],
        [1, 3, 5],
        [2, 4, 6],
        [3, 5, 7],
        [0, 4, 6],
        [1, 5, 7],
    ]
    assert geometry.col_indices(device).reshape(8, 3).tolist() == expected
    assert geometry.crow_indices(device).tolist() == list(range(0, 25, 3))


@grids
def test_pattern_is_that_of_the_pairs_within_the_window(size, window, device):
    geometry = make_geometry(window, size)
    near = reference.mask(size, reference.widths(window, len(size)))
    # nonzero lists row after row, ascending columns in each.
    columns = near.nonzero()[:, 1].to(device)
    rows = torch.arange(geometry.pixels + 1, device=device) * geometry.nnz_per_row
    assert_close(geometry.col_indices(device).long(), columns, rtol=0, atol=0)
    assert_close(geometry.crow_indices(device).long(), rows, rtol=0, atol=0)


def test_index_tensors_are_made_once(device):
    first, again = make_geometry(3, (5, 4)), make_geometry(3, (5, 4))
    assert first.col_indices(device) is again.col_indices(device)
    assert first.crow_indices(device) is again.crow_indices(device)


@pytest.mark.parametrize(
    ("pixels", "dtype"), [(2**31 - 1, torch.int32), (2**31, torch.int64)], ids=["below", "at"]
)
def test_indices_are_wide_once_entries_reach_2_to_the_31(pixels, dtype):
    # The device without memory: only shapes and dtypes are computed.
    geometry = make_geometry(1, (pixels,))
    assert geometry.col_indices("meta").dtype == dtype
    assert geometry.crow_indices("meta").dtype == dtype
