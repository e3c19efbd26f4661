"""What NumPy and habits of torch bring along."""

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
    assert torch.equal(matrix.sum(np.int64(-1)), matrix.sum(-1))
    assert matrix.softmax(np.int64(-1)) == matrix.softmax()
    assert matrix.transpose(np.int64(2), np.int64(3)) == matrix.mT
    assert matrix[:1].expand(two, 4, np.int64(20), 20).shape == (2, 4, 20, 20)
    ones = Circulant(three, (1, np.int64(1), np.int64(6)))
    assert ones == Circulant(3, (1, 1, 6))
    assert all(type(size) is int for size in (*ones.shape, *ones.spatial_size))


def test_sizes_in_one_tuple(matrix: Circulant) -> None:
    assert matrix.reshape(matrix.shape) == matrix
    assert matrix.repeat((2, 1, 1, 1)) == matrix.repeat(2, 1, 1, 1)
    assert ca.cat([matrix, matrix], dim=0) == torch.cat([matrix, matrix], 0)
