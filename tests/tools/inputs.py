"""The grids, dtypes and random inputs that the tests share."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor

from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity

REAL_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
COMPLEX_DTYPES = [torch.complex64, torch.complex128]
DTYPES = REAL_DTYPES + COMPLEX_DTYPES
SIMILARITIES = {"dot": DotSimilarity(), "distance": DistanceSimilarity()}

GRIDS = [
    ((1,), 1),
    ((7,), 3),
    ((6,), 5),
    ((9,), 9),
    ((5, 4), 3),
    ((6, 5), (1, 5)),
    ((3, 3), 3),
    ((3, 4, 3), 3),
    ((3, 4, 5), (1, 3, 5)),
]


def _name(grid: object) -> str:
    sizes = grid if isinstance(grid, tuple) else (grid,)
    return "x".join(str(size) for size in sizes)


grids = pytest.mark.parametrize(
    ("size", "window"), GRIDS, ids=[f"{_name(size)}-window-{_name(w)}" for size, w in GRIDS]
)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
similarities = pytest.mark.parametrize("name", SIMILARITIES)


def features(
    batch: int,
    channels: int,
    size: tuple[int, ...],
    device: str,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Random ``(batch, channels, *size)``."""
    return torch.randn(batch, channels, *size, dtype=dtype, device=device)


def matrix(
    size: tuple[int, ...],
    window: int | tuple[int, ...],
    device: str,
    *,
    batch: int = 2,
    heads: int = 3,
    dtype: torch.dtype = torch.float64,
) -> Circulant:
    """A Circulant with random entries."""
    entries = int(reference.mask(size, reference.widths(window, len(size))).sum())
    values = torch.randn(batch, heads, entries, dtype=dtype, device=device)
    return Circulant(values, window, size)


def dense(A: Circulant) -> Tensor:
    """The dense ``(B, heads, N, N)`` of a Circulant, from its definition.

    The entries fill the neighbours of each row from left to right; what a neighbour is comes from
    the reference.
    """
    near = reference.mask(A.spatial_size, A.window).to(A.device)
    result = A.values.new_zeros(*A.values.shape[:2], *near.shape)
    result[..., near] = A.values
    return result


def exact(x: Tensor) -> Tensor:
    """The same numbers in float64 or complex128."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
