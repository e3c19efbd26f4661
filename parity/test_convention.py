"""The two conventions are two views of the same bytes."""

import numpy as np
import pytest
import torch

from parity import cases, convention, reference
from parity.cases import few_grids, normal, random_circulant


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 4)], ids=["1-d", "2-d", "3-d"])
def test_an_image_is_the_same_memory_with_its_dims_reversed(sizes):
    array = normal((*sizes, 3, 2), np.float64)
    tensor = convention.to_torch(array)
    assert tensor.shape == array.shape[::-1] and tensor.is_contiguous()
    assert tensor.data_ptr() == array.ctypes.data
    for index in cases.pairs(array.shape):
        from_zero = tuple(i - 1 for i in index)
        assert tensor[from_zero[::-1]] == array[from_zero]
    back = convention.to_julia(tensor)
    assert back.flags.f_contiguous and back.ctypes.data == array.ctypes.data
    assert np.array_equal(back, array)


def test_other_layouts_are_refused():
    with pytest.raises(ValueError, match="column-major"):
        convention.to_torch(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="contiguous"):
        convention.to_julia(torch.zeros(2, 3).T)


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 4)], ids=["1-d", "2-d", "3-d"])
def test_pixel_numbers_differ_by_one(sizes):
    reversed_sizes = convention.spatial_to_torch(sizes)
    numbers = torch.arange(int(np.prod(sizes))).reshape(reversed_sizes)
    for index in cases.pairs(sizes):
        at = tuple(i - 1 for i in convention.spatial_to_torch(index))
        assert numbers[at] == reference.pixel_number(index, sizes) - 1


def test_index_arrays_differ_by_one_and_go_back():
    a = reference.ones(3, (5, 2, 4))
    columns = convention.index_to_torch(a.colVal)
    assert columns.shape == (4, 2, 15) and columns.dtype == torch.int32
    assert columns[3, 1].tolist() == [0, 1, 4, 0, 1, 2, 1, 2, 3, 2, 3, 4, 0, 3, 4]
    assert np.array_equal(convention.index_to_julia(columns), a.colVal)


def test_dims_of_a_matrix():
    assert convention.dims_to_torch(1) == -2
    assert convention.dims_to_torch((1, 2)) == (-2, -1)
    assert convention.dims_to_torch((3, 4)) == (1, 0)
    assert convention.window_to_torch(3) == 3
    assert convention.window_to_torch((3, 5)) == (5, 3)
    matrix = normal((4, 5, 2, 3), np.float64)
    tensor = convention.matrix_to_torch(matrix)
    assert tensor.shape == (3, 2, 4, 5)
    assert tensor[2, 1, 0, 4] == matrix[0, 4, 1, 2]
    assert np.array_equal(convention.matrix_to_julia(tensor), matrix)


@few_grids
def test_a_circulant_array_is_the_same_memory(grid):
    a = random_circulant(grid, 2, 3, np.complex128)
    ours = convention.circulant_to_torch(a)
    assert ours.values.data_ptr() == a.nzVal.ctypes.data
    assert ours.data.values().data_ptr() == a.nzVal.ctypes.data
    assert convention.to_julia(ours.values).ctypes.data == a.nzVal.ctypes.data
    assert torch.equal(ours.to_dense(), convention.matrix_to_torch(reference.to_dense(a)))
