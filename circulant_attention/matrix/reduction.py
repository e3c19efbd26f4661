"""Sums of a Circulant over rows, columns, heads, batch, or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention.ops import features as _features

if TYPE_CHECKING:
    from circulant_attention.matrix.circulant import Circulant

_ROWS_AND_COLUMNS = (2, 3)
_SUPPORTED = ((3,), (2,), _ROWS_AND_COLUMNS, (0,), (1,), (0, 1))


def sum_over(a: Circulant, dim: int | Sequence[int] | None, keepdim: bool) -> Circulant | Tensor:
    """The sum of ``a`` over ``dim``; see :meth:`Circulant.sum`."""
    if dim is None:
        return a.values.sum()
    dims = _normalise(dim)
    if dims[-1] < 2:
        return a.with_values(a.values.sum(dims, keepdim=True))
    if dims == (3,):
        total = a.rows.sum(-1)
    elif dims == (2,):
        total = _column_sums(a)
    else:
        total = a.values.sum(-1)
    for kept in dims if keepdim else ():
        total = total.unsqueeze(kept)
    return total


def _normalise(dim: int | Sequence[int]) -> tuple[int, ...]:
    given = tuple(dim) if isinstance(dim, Sequence) else (dim,)
    if all(isinstance(one, int) and -4 <= one < 4 for one in given):
        dims = tuple(sorted(one % 4 for one in given))
        if dims in _SUPPORTED:
            return dims
    raise ValueError(
        f"expected dim to be -1 (each row), -2 (each column), (-2, -1), 0 (batch), 1 (heads), "
        f"(0, 1) or None, got {dim}"
    )


def _column_sums(a: Circulant) -> Tensor:
    """``sum_i A_ij`` as the transposed map of ones, ``(B, heads, N)``."""
    groups = a.values.reshape(-1, a.geometry.pixels, a.geometry.offsets)
    ones = torch.ones(
        groups.shape[0], 1, *a.spatial_size, dtype=_features.real_dtype(a.dtype), device=a.device
    )
    return _features.apply(groups, ones, a.window, transposed=True).reshape(a.shape[:3])
