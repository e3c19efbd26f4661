"""What NumPy and habits of torch bring along, and operators that do not exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circulant_attention as ca
from circulant_attention import Circulant


@pytest.fixture
def matrix(device: str) -> Circulant:
    return Circulant(torch.randn(2, 4, 20 * 9, dtype=torch.float64, device=device), 3, (4, 5))


def test_numpy_integers_count(matrix: Circulant, device: str) -> None:
    x = torch.randn(2, 4, 4, 5, dtype=torch.float64, device=device)
    three, two = np.int64(3), np.int32(2)
    _, a = ca.circulant_mh_attention(x, x, x, three, two)
    assert (a.window, a.shape[1]) == ((3, 3), 2)
    assert all(type(width) is int for width in a.window)
    assert torch.equal(matrix[np.int64(1), two, 3], matrix[1, 2, 3])


def test_numpy_numbers_scale(matrix: Circulant) -> None:
    for number in (np.float32(2), np.float64(2), np.int64(2)):
        assert number * matrix == matrix * 2
        assert matrix * number == matrix * 2


def test_sizes_in_one_tuple(matrix: Circulant) -> None:
    assert matrix.reshape(matrix.shape) == matrix
    assert matrix.repeat((2, 1, 1, 1)) == matrix.repeat(2, 1, 1, 1)
    assert ca.cat([matrix, matrix], dim=0) == torch.cat([matrix, matrix], 0)
    with pytest.raises(TypeError, match="expected ints, got"):
        matrix.reshape(2.0, 4, 20, 20)


def test_operators_that_do_not_exist_say_what_does(matrix: Circulant, device: str) -> None:
    x = torch.randn(8, 3, 4, 5, dtype=torch.float64, device=device)
    with pytest.raises(TypeError, match=r"the transposed map is A\.mT @ x"):
        x @ matrix
    with pytest.raises(TypeError, match="has another window"):
        matrix * matrix
    for divide in (lambda: matrix / matrix, lambda: 1 / matrix, lambda: x / matrix):
        with pytest.raises(TypeError, match="division by a Circulant"):
            divide()
    with pytest.raises(TypeError, match=r"to_dense\(\)\.numpy\(\)"):
        np.asarray(matrix)


def test_transposition_takes_no_dim_beyond_the_fourth(matrix: Circulant) -> None:
    assert matrix.transpose(-1, 2) == matrix.mT
    with pytest.raises(ValueError, match="expected dims -2 and -1"):
        matrix.transpose(7, 6)
