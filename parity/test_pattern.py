"""Index arrays: those of the package equal Julia's, minus one, entry by entry."""

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import reference
from parity.cases import dtypes, grids, normal, random_circulant, real_of, torch_dtype
from parity.compare import assert_circulant
from parity.convention import (
    circulant_to_torch,
    index_to_torch,
    spatial_to_torch,
    to_torch,
    window_to_torch,
)

pytestmark = pytest.mark.usefixtures("device")


@grids
def test_all_ones_array(grid, device):
    size = (3, 2, *spatial_to_torch(grid.spatial_size))
    ours = ca.Circulant(grid.window, size, device=device)
    expected = reference.ones(grid.window, (*grid.spatial_size, 2, 3))
    # Julia's Circulant(W, dims) is one of Float32, too.
    assert_circulant(ours, expected, 0, torch.float32)
    assert ours.nnz == ours.values.numel() == expected.nnz
    data = ours.data
    for index, theirs in (
        (data.crow_indices(), expected.rowPtr),
        (data.col_indices(), expected.colVal),
    ):
        assert index.dtype == torch.int32 and theirs.dtype == np.int32
        assert torch.equal(index, index_to_torch(theirs))
    double = ca.Circulant(grid.window, size, dtype=torch.float64, device=device)
    assert_circulant(double, expected, 0, torch.float64)


@dtypes
@grids
def test_all_ones_array_of_an_image(grid, dtype):
    x = normal((*grid.spatial_size, 5, 3), dtype)
    ours = ca.circulant(grid.window, to_torch(x))
    assert_circulant(ours, reference.circulant(grid.window, x), 0, torch_dtype(real_of(dtype)))


@dtypes
@grids
def test_from_sparse_data(grid, dtype):
    expected = random_circulant(grid, 2, 3, dtype)
    data = torch.sparse_csr_tensor(
        index_to_torch(expected.rowPtr),
        index_to_torch(expected.colVal),
        to_torch(expected.nzVal),
        (3, 2, expected.pixels, expected.pixels),
        check_invariants=True,
    )
    spatial_size = spatial_to_torch(grid.spatial_size)
    ours = ca.Circulant(data, grid.window, spatial_size)
    assert_circulant(ours, expected, 0, torch_dtype(dtype))
    from_values = ca.Circulant(to_torch(expected.nzVal), grid.window, spatial_size)
    assert_circulant(from_values, expected, 0, torch_dtype(dtype))


@grids
def test_what_an_array_knows_of_itself(grid):
    expected = random_circulant(grid, 2, 3, np.complex64)
    ours = circulant_to_torch(expected)
    assert ca.kernel_length(ours) == expected.kernel_length
    assert ca.spatial_size(ours) == spatial_to_torch(expected.spatial_size)
    assert ca.spatial_dims(ours) == len(expected.spatial_size)
    assert ours.dtype == torch.complex64
    assert ours.ndim == len(expected.size) == 4
    rows, columns, heads, batch = expected.size
    assert ours.shape == ours.size() == (batch, heads, rows, columns)
    assert [ours.size(dim) for dim in (-2, -1, 1, 0)] == list(expected.size)
    assert window_to_torch(expected.kernel_length) == grid.window
