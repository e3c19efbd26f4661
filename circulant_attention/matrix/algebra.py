"""The algebra of Circulants as functions of their values ``(B, heads, N * K)`` and geometry."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from circulant_attention.checks import check_features, is_int
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import pattern
from circulant_attention.ops import dtypes, primitives
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.ops.softmax import softmax_or_zeros

Number = int | float | complex
"""A Python or NumPy number."""

_NUMBERS = (int, float, complex, numbers.Number, torch.SymInt, torch.SymFloat)

_ROWS_AND_COLUMNS = (2, 3)
_SUMS = ((3,), (2,), _ROWS_AND_COLUMNS, (0,), (1,), (0, 1))


class Source(Protocol):
    """Values, computed or lazy: the checks need their shape and device only."""

    @property
    def shape(self) -> torch.Size:
        """``(B, heads, N * K)``."""

    @property
    def device(self) -> torch.device:
        """The device of the values."""


def without_absent(values: Tensor, geometry: Geometry) -> Tensor:
    """The values ``(*, N * K)`` with zeros for absent entries."""
    present = geometry.presence(values.device)
    return values if present is None else values.where(present.flatten(), 0)


def multiplied(values: Tensor, geometry: Geometry, factor: Number | Tensor) -> Tensor:
    """A product ``(*, N * K)`` with a factor; zeros for absent entries also if it is infinite."""
    return values if keeps_zeros(geometry, factor) else without_absent(values, geometry)


def powers(values: Tensor, geometry: Geometry, exponent: Number) -> Tensor:
    """Powers of values ``(*, N * K)``.

    At zero, the derivatives of powers are infinite. Those of absent entries are left out, in
    reverse mode by the inner call and in forward mode by the outer one.
    """
    return without_absent(without_absent(values, geometry) ** exponent, geometry)


def keeps_zeros(geometry: Geometry, factor: Number | Tensor, divides: bool = False) -> bool:
    """Whether a factor, or a divisor, is known to leave the zeros of absent entries zero.

    Of a tensor it is not known without waiting for its device.
    """
    if not geometry.truncated:
        return True
    if not isinstance(factor, int | float | complex):
        return False
    # Not math.isfinite, which torch.compile does not trace.
    return factor - factor == 0 and not (divides and factor == 0)


def groups(values: Tensor, geometry: Geometry) -> Tensor:
    """The values as the native ops take them, ``(B * heads, N, K)``."""
    return values.reshape(-1, geometry.pixels, geometry.nnz_per_row)


def check_compatible(a: Source, geometry: Geometry, b: Source, other: Geometry) -> None:
    """Raises ValueError unless two Circulants have one geometry, and their batch and heads fit."""
    if not geometry.matches(other):
        raise ValueError(
            f"expected a Circulant of spatial size {geometry.spatial_size} and window "
            f"{geometry.window}, got {other.spatial_size} and {other.window}"
        )
    if a.shape != b.shape:
        _check_broadcast("batch size", a.shape[0], b.shape[0])
        _check_broadcast("number of heads", a.shape[1], b.shape[1])
    if a.device != b.device:
        raise ValueError(f"expected a Circulant on {a.device}, got one on {b.device}")


def _check_broadcast(name: str, own: int, other: int) -> None:
    if own != other and 1 not in (own, other):
        raise ValueError(f"expected a Circulant with {name} {own} or 1, got {other}")


def is_number(value: object) -> bool:
    """Whether a value is one number: of Python, of NumPy (also a 0-d array) or of a compiler."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "biufc"
    return isinstance(value, _NUMBERS)


def number(name: str, value: Any) -> Number:
    """The argument as a Python number; raises TypeError for anything else."""
    if not is_number(value):
        raise TypeError(f"expected {name} to be a number, got {type(value).__name__}")
    # By type and not by isinstance, which torch.compile does not trace for np.generic.
    if type(value).__module__ == "numpy":
        value = value.item()
    return value  # type: ignore[no-any-return]


def broadcastable_scale(a: Source, m: object) -> Number | Tensor:
    """The factor of the values of ``a`` that scales the matrix by ``m``; raises unless it fits."""
    if not isinstance(m, Tensor):
        if not is_number(m):
            raise TypeError(f"expected a number or a tensor to scale with, got {type(m).__name__}")
        return number("the scale", m)
    if m.dim() == 0:
        return m
    sizes = (*(1,) * (4 - m.dim()), *m.shape)
    fits = len(sizes) == 4 and all(
        size == 1 or size == own or (own == 1 and dim < 2)
        for dim, (size, own) in enumerate(zip(sizes, (*a.shape[:2], 1, 1), strict=True))
    )
    if not fits:
        raise ValueError(
            f"expected a scale of shape (B or 1, heads or 1, 1, 1), or without leading dims, for a "
            f"Circulant with (B, heads) = {tuple(a.shape[:2])}, got {tuple(m.shape)}"
        )
    if m.device != a.device:
        raise ValueError(f"expected a scale on {a.device}, got one on {m.device}")
    return m.reshape(*sizes[:2], 1)


def positive_exponent(exponent: object) -> Number:
    """The exponent of a power that keeps zeros zero; raises for others."""
    if not is_number(exponent):
        raise TypeError(
            f"expected the exponent to be a number, got {type(exponent).__name__}: use "
            f"A.with_values(A.values ** ...) for the stored entries"
        )
    given = number("the exponent", exponent)
    if isinstance(given, complex) or not given > 0:
        raise ValueError(
            f"expected a positive exponent, which keeps zeros zero, got {given}: use "
            f"A.with_values(A.values ** {given}) for the stored entries"
        )
    return given


def bounds_around_zero(low: object, high: object) -> tuple[Number | None, Number | None]:
    """The bounds of a clamp that keeps zeros zero; raises for others."""
    lower = None if low is None else number("min", low)
    upper = None if high is None else number("max", high)
    for bound in (lower, upper):
        if isinstance(bound, complex):
            raise TypeError(f"expected real bounds of a clamp, got {bound}")
    if (lower is not None and not lower <= 0) or (upper is not None and not upper >= 0):  # type: ignore[operator]
        raise ValueError(
            f"expected min <= 0 <= max, which keeps zeros zero, got min {low} and max {high}: use "
            f"A.with_values(A.values.clamp(...)) for the stored entries"
        )
    return lower, upper


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of two values, which conjugates ``a``."""
    return torch.vdot(*dtypes.promote(a.flatten(), b.flatten()))


def check_softmax(dtype: torch.dtype, dim: int) -> None:
    """Raises unless ``dim`` is that of the rows and the entries are real."""
    if dim not in (-1, 3):
        raise ValueError(f"expected softmax over dim -1 (each row), got dim {dim}")
    if dtype.is_complex:
        raise TypeError(f"expected real entries for softmax, got {dtype}")


def softmax(values: Tensor, geometry: Geometry) -> Tensor:
    """The softmax of each row over its stored entries; zeros in rows of minus infinity."""
    rows = values.reshape(*values.shape[:2], geometry.pixels, geometry.nnz_per_row)
    return softmax_or_zeros(rows, geometry.presence(values.device)).flatten(-2)


def check_applicable(a: Source, geometry: Geometry, x: object) -> None:
    """Raises unless ``x`` is ``(B * heads, C, *spatial)`` on the grid and device of ``a``."""
    check_features("x", x)
    assert isinstance(x, Tensor)
    check_grid(a, geometry, x)


def check_grid(a: Source, geometry: Geometry, x: Tensor) -> None:
    """Raises ValueError unless ``x`` has the grid, the batch times heads and the device of A."""
    if x.shape[2:] != geometry.spatial_size:
        raise ValueError(
            f"expected x with the spatial size of A, {geometry.spatial_size}, "
            f"got {tuple(x.shape[2:])}"
        )
    batch_heads = a.shape[0] * a.shape[1]
    if x.shape[0] != batch_heads:
        raise ValueError(
            f"expected x with the batch size of A times its heads, {batch_heads}, got {x.shape[0]}"
        )
    if x.device != a.device:
        raise ValueError(f"expected x on the device of A, {a.device}, got {x.device}")


def apply(values: Tensor, geometry: Geometry, x: Tensor, *, transposed: bool) -> Tensor:
    """``A x`` or ``A^T x`` on pixels, for every channel of ``x (B * heads, C, *spatial)``."""
    values, x = cast_for_autocast(values, x)
    return dtypes.apply(groups(values, geometry), x, geometry.op_window, transposed=transposed)


def transpose(values: Tensor, geometry: Geometry) -> Tensor:
    """The values of the transposed matrix, in its CSR order."""
    if values.is_complex():
        parts = torch.cat([values.real, values.imag], 1)
        real, imag = transpose(parts, geometry).chunk(2, 1)
        return torch.complex(real, imag)
    permuted = primitives.transpose(
        groups(values, geometry), list(geometry.spatial_size), list(geometry.op_window)
    )
    return permuted.reshape(values.shape)


def normalized_sum_dims(dim: int | Sequence[int]) -> tuple[int, ...]:
    """The dims of a sum, ascending from 0; raises ValueError for those without a sum."""
    given = tuple(dim) if isinstance(dim, Sequence) else (dim,)
    if all(is_int(one) and -4 <= one < 4 for one in given):
        dims = tuple(sorted(int(one) % 4 for one in given))
        if dims in _SUMS:
            return dims
    raise ValueError(
        f"expected dim to be -1 (each row), -2 (each column), (-2, -1), 0 (batch), 1 (heads), "
        f"(0, 1) or None, got {dim}"
    )


def sum_entries(
    values: Tensor,
    geometry: Geometry,
    dims: tuple[int, ...],
    keepdim: bool,
    dtype: torch.dtype | None,
) -> Tensor:
    """The sums over rows, columns or both: ``(B, heads, N)`` or ``(B, heads)``."""
    if dims == (3,):
        rows = values.reshape(*values.shape[:2], geometry.pixels, geometry.nnz_per_row)
        total = rows.sum(-1, dtype=dtype)
    elif dims == (2,):
        total = _column_sums(values if dtype is None else values.to(dtype), geometry)
    else:
        total = values.sum(-1, dtype=dtype)
    for kept in dims if keepdim else ():
        total = total.unsqueeze(kept)
    return total


def _column_sums(values: Tensor, geometry: Geometry) -> Tensor:
    """``sum_i A_ij`` as the transposed map of ones, ``(B, heads, N)``."""
    matrices = groups(values, geometry)
    ones = torch.ones(
        *(matrices.shape[0], 1, *geometry.spatial_size),
        dtype=dtypes.real_dtype(values.dtype),
        device=values.device,
    )
    sums = dtypes.apply(matrices, ones, geometry.op_window, transposed=True)
    return sums.reshape(*values.shape[:2], geometry.pixels)


def count(shape: torch.Size, dims: tuple[int, ...]) -> int:
    """The number of entries, stored or not, in the mean over ``dims``."""
    return prod([shape[dim] for dim in dims])


def diagonal(values: Tensor, geometry: Geometry) -> Tensor:
    """``A_ii`` of every matrix, ``(B, heads, N)``."""
    pixels = torch.arange(geometry.pixels, device=values.device)
    position = pattern.place(geometry, pixels, pixels)[0]
    rows = values.reshape(*values.shape[:2], geometry.pixels, geometry.nnz_per_row)
    chosen = position[:, None].expand(*rows.shape[:3], 1)
    return rows.gather(3, chosen).squeeze(3)


def check_diagonal(offset: int, dim1: int, dim2: int) -> None:
    """Raises ValueError unless the diagonal is the main one of rows and columns."""
    if offset != 0 or {dim1 % 4, dim2 % 4} != {2, 3}:
        raise ValueError(
            f"expected offset 0 and dims -2 and -1 (rows and columns) of the diagonal, got offset "
            f"{offset} and dims {dim1} and {dim2}"
        )


def expand(values: Tensor, geometry: Geometry, shape: tuple[int, ...]) -> Tensor:
    """The values with batch and heads of size 1 expanded, without a copy."""
    n = geometry.pixels
    own = (*values.shape[:2], n, n)
    fits = len(shape) == 4 and all(
        size == -1 or size == old or (old == 1 and dim < 2 and size >= 0)
        for dim, (size, old) in enumerate(zip(shape, own, strict=True))
    )
    if not fits:
        raise ValueError(
            f"expected shape (B, heads, {n}, {n}), with another batch or number of heads only in "
            f"place of 1, for a Circulant of shape {own}, got {shape}"
        )
    return values.expand(*shape[:2], -1)


def unpacked(sizes: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence, as torch takes them; raises for non-ints."""
    given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
    if not all(is_int(size) for size in given):
        raise TypeError(f"expected ints, got {given}")
    return tuple(size for size in given if is_int(size))


def repeat(values: Tensor, repeats: tuple[int, ...]) -> Tensor:
    """The values repeated along batch and heads."""
    counts = (*repeats, 1, 1) if len(repeats) == 2 else repeats
    if len(counts) != 4 or any(n < 0 for n in counts) or counts[2:] != (1, 1):
        raise ValueError(
            f"expected repeats (batch, heads, 1, 1): rows and columns cannot repeat, got {repeats}"
        )
    return values.repeat(*counts[:2], 1)


def reshape(values: Tensor, geometry: Geometry, shape: tuple[int, ...]) -> Tensor:
    """The values with batch and heads regrouped."""
    n = geometry.pixels
    sizes = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
    if len(sizes) != 4 or any(size not in (n, -1) for size in sizes[2:]):
        raise ValueError(f"expected shape (B, heads, {n}, {n}): rows and columns stay, got {shape}")
    try:
        return values.reshape(*sizes[:2], geometry.nnz)
    except RuntimeError as error:
        raise ValueError(
            f"expected batch and heads of product {values.shape[0] * values.shape[1]}, got {shape}"
        ) from error
