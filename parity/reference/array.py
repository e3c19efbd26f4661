"""The circulant array: storage as Julia holds it, arithmetic, sums, shapes and single entries."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from .pattern import Sizes, circulant_pattern, row_columns, window_per_dim


@dataclasses.dataclass(frozen=True, eq=False)
class Circulant:
    """A circulant-sparse array of size ``(N, N, heads, batch)``.

    Attributes:
        nzVal: the stored entries, ``(N*K, heads, batch)``, row after row.
        kernel_length: the window.
        spatial_size: the sizes of the grid.
    """

    nzVal: np.ndarray
    kernel_length: int | Sizes
    spatial_size: Sizes

    @functools.cached_property
    def pixels(self) -> int:
        """The number of rows and of columns, N."""
        return math.prod(self.spatial_size)

    @functools.cached_property
    def per_row(self) -> int:
        """The number of entries in every row, K."""
        return math.prod(window_per_dim(self.kernel_length, self.spatial_size))

    @property
    def size(self) -> Sizes:
        """The size, as Julia's ``size(A)`` gives it."""
        return (self.pixels, self.pixels, *self.nzVal.shape[1:])

    @property
    def nnz(self) -> int:
        """The number of stored entries over all heads and batches."""
        return self.nzVal.size

    @property
    def rowPtr(self) -> np.ndarray:
        """``(N+1, heads, batch)``: where each row starts, from one; equal for every matrix."""
        return self._repeated(circulant_pattern(self.kernel_length, self.spatial_size)[0])

    @property
    def colVal(self) -> np.ndarray:
        """``(N*K, heads, batch)``: the column of each entry, from one; equal for every matrix."""
        return self._repeated(circulant_pattern(self.kernel_length, self.spatial_size)[1])

    def _repeated(self, index: np.ndarray) -> np.ndarray:
        batch = self.nzVal.shape[1:]
        repeated = np.empty((index.size, *batch), dtype=index.dtype, order="F")
        repeated[...] = index.reshape(-1, *(1 for _ in batch))
        return repeated

    def columns(self, row: int) -> np.ndarray:
        """Give the columns stored in a row, from one, ascending."""
        return row_columns(row, self.kernel_length, self.spatial_size)

    def stored(self, row: int) -> slice:
        """Give where the row's entries lie along the first dim of ``nzVal``."""
        return slice((row - 1) * self.per_row, row * self.per_row)

    def like(self, values: np.ndarray) -> Circulant:
        """Give a circulant array of the same grid and window with other entries."""
        return Circulant(np.asfortranarray(values), self.kernel_length, self.spatial_size)


def ones(window: int | Sizes, dims: Sizes) -> Circulant:
    """Give the all-ones array; ``dims`` are the spatial sizes, then heads and batch."""
    spatial_size, batch = dims[:-2], dims[-2:]
    entries = math.prod(spatial_size) * math.prod(window_per_dim(window, spatial_size))
    return Circulant(np.ones((entries, *batch), order="F"), window, spatial_size)


def circulant(window: int | Sizes, x: np.ndarray) -> Circulant:
    """Give the all-ones array on the grid of ``x``: one head, the batch of ``x``."""
    return ones(window, (*x.shape[:-2], 1, x.shape[-1]))


def to_dense(a: Circulant) -> np.ndarray:
    """Give all N x N entries of every matrix."""
    dense = np.zeros(a.size, dtype=a.nzVal.dtype, order="F")
    for row in range(1, a.pixels + 1):
        dense[row - 1, a.columns(row) - 1] = a.nzVal[a.stored(row)]
    return dense


def getindex(a: Circulant, i: int, j: int, *batch: int) -> complex:
    """Give the entry ``A[i, j, head, batch]``, zero where none is stored."""
    at = np.flatnonzero(a.columns(i) == j)
    if at.size == 0:
        return a.nzVal.dtype.type(0)
    return a.nzVal[(a.stored(i).start + at[0], *(b - 1 for b in batch))]


def add(a: Circulant, b: Circulant) -> Circulant:
    """Give ``A + B``."""
    return a.like(a.nzVal + b.nzVal)


def subtract(a: Circulant, b: Circulant) -> Circulant:
    """Give ``A - B``."""
    return a.like(a.nzVal - b.nzVal)


def negate(a: Circulant) -> Circulant:
    """Give ``-A``."""
    return a.like(-a.nzVal)


def multiply(c: complex, a: Circulant) -> Circulant:
    """Give ``c * A`` for a number."""
    return a.like(c * a.nzVal)


def scale(c: np.ndarray, a: Circulant) -> Circulant:
    """Give ``c * A`` for ``c`` of size ``(1, 1, heads, batch)``; a one on either side spreads."""
    return a.like(c[0] * a.nzVal)


def dot(a: Circulant, b: Circulant) -> complex:
    """Give the inner product of the stored entries, conjugate-linear in the first argument."""
    return np.sum(np.conj(a.nzVal) * b.nzVal)


def equal(a: Circulant, b: Circulant) -> bool:
    """Tell whether grid, window and every stored entry agree."""
    same_pattern = (a.size, a.spatial_size, a.kernel_length) == (
        b.size,
        b.spatial_size,
        b.kernel_length,
    )
    return same_pattern and bool(np.all(a.nzVal == b.nzVal))


def real(a: Circulant) -> Circulant:
    """Give the real part."""
    return a.like(a.nzVal.real.copy())


def complex_(a: Circulant) -> Circulant:
    """Give the same entries as complex numbers."""
    return a.like(a.nzVal.astype(np.complex128))


def cat(*arrays: Circulant, dims: int) -> Circulant:
    """Concatenate along dim 3 (heads) or 4 (batch)."""
    return arrays[0].like(np.concatenate([a.nzVal for a in arrays], axis=dims - 2))


def repeat(a: Circulant, rows: int, columns: int, heads: int, batch: int) -> Circulant:
    """Repeat the matrices along heads and batch; rows and columns can only be kept."""
    if (rows, columns) != (1, 1):
        raise ValueError("only heads and batch can be repeated")
    return a.like(np.tile(a.nzVal, (1, heads, batch)))


def reshape(a: Circulant, *batch: int) -> Circulant:
    """Give heads and batch other sizes, heads running fastest, as column-major order has it."""
    return a.like(a.nzVal.reshape(a.nzVal.shape[0], *batch, order="F"))


def sum_(a: Circulant, dims: int | Sizes | None = None) -> np.ndarray | Circulant | complex:
    """Give ``sum(A; dims)``: a number, dense for dims 1 and 2, a circulant array for 3 and 4."""
    if dims is None:
        return np.sum(a.nzVal)
    dims = (dims,) if isinstance(dims, int) else dims
    if all(d > 2 for d in dims):
        return a.like(np.sum(a.nzVal, axis=tuple(d - 2 for d in dims), keepdims=True))
    if dims == (1, 2):
        return np.sum(a.nzVal, axis=0)[None, None]
    if dims not in ((1,), (2,)):
        raise ValueError(f"dims={dims}")
    total = np.zeros((a.pixels, *a.nzVal.shape[1:]), dtype=a.nzVal.dtype, order="F")
    for row in range(1, a.pixels + 1):
        if dims == (1,):
            total[a.columns(row) - 1] += a.nzVal[a.stored(row)]
        else:
            total[row - 1] = np.sum(a.nzVal[a.stored(row)], axis=0)
    return np.expand_dims(total, dims[0] - 1)
