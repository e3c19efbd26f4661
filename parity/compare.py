"""Comparing what the package computed with what the reference computed from the same bytes."""

from __future__ import annotations

import numpy as np
import torch

from circulant_attention import Circulant
from parity import reference
from parity.convention import index_to_julia, spatial_to_torch, to_julia, window_to_torch


def assert_close(
    actual: np.ndarray, expected: np.ndarray, bound: np.ndarray | float, name: str = ""
) -> None:
    """Fail unless the shapes agree and no entry differs by more than the bound."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name} {actual.shape} is not {expected.shape}"
    error = np.abs(actual - expected)
    if np.all(error <= bound):
        return
    bound = np.broadcast_to(bound, error.shape)
    worst = np.unravel_index(np.argmax(np.where(error <= bound, 0, error / bound)), error.shape)
    raise AssertionError(
        f"{name} entry {tuple(map(int, worst))} is {actual[worst]}, expected {expected[worst]} "
        f"within {bound[worst]}"
    )


def assert_image(
    actual: torch.Tensor,
    expected: np.ndarray,
    bound: np.ndarray | float,
    dtype: torch.dtype | None = None,
    name: str = "",
) -> None:
    """Fail unless a tensor is the reference's array, to rounding."""
    assert dtype is None or actual.dtype == dtype
    assert_close(to_julia(actual.contiguous()), expected, bound, name)


def assert_circulant(
    actual: Circulant,
    expected: reference.Circulant,
    bound: np.ndarray | float,
    dtype: torch.dtype | None = None,
    name: str = "",
) -> None:
    """Fail unless grid, window, size and index arrays are equal, and entries are to rounding."""
    assert isinstance(actual, Circulant)
    assert dtype is None or actual.dtype == dtype
    rows, columns, heads, batch = expected.size
    assert tuple(actual.shape) == (batch, heads, rows, columns)
    assert actual.spatial_size == spatial_to_torch(expected.spatial_size)
    window = window_to_torch(expected.kernel_length)
    assert actual.window == ((window,) * len(actual.window) if isinstance(window, int) else window)
    assert np.array_equal(index_to_julia(actual.crow_indices()), expected.rowPtr)
    assert np.array_equal(index_to_julia(actual.col_indices()), expected.colVal)
    assert_close(to_julia(actual.values.contiguous()), expected.nzVal, bound, name)
