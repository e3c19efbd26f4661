"""The arithmetic of Circulants on their stored entries, and the linear map that they are."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circulant_attention import checks
from circulant_attention.ops import features as _features
from circulant_attention.ops.autocast import cast_for_autocast

if TYPE_CHECKING:
    from circulant_attention.matrix.circulant import Circulant

Number = int | float | complex
"""A number to scale with; those of NumPy are taken, too."""


def check_compatible(a: Circulant, b: Circulant) -> None:
    """Raises unless both are Circulants of one geometry whose batch and heads broadcast."""
    if not isinstance(b, type(a)):
        raise TypeError(f"expected a Circulant, got {type(b).__name__}")
    if not a.geometry.matches(b.geometry):
        raise ValueError(
            f"expected a Circulant of spatial size {a.spatial_size} and window {a.window}, "
            f"got {b.spatial_size} and {b.window}"
        )
    for name, own, other in zip(("batch size", "number of heads"), a.shape, b.shape, strict=False):
        if own != other and 1 not in (own, other):
            raise ValueError(f"expected a Circulant with {name} {own} or 1, got {other}")
    if a.device != b.device:
        raise ValueError(f"expected a Circulant on {a.device}, got one on {b.device}")


def add(a: Circulant, b: Circulant, alpha: Number) -> Circulant:
    """``a + alpha * b``."""
    check_compatible(a, b)
    return a.with_values(torch.add(a.values, b.values, alpha=alpha))


def factor(a: Circulant, m: Number | Tensor) -> Number | Tensor:
    """What the values of ``a`` are multiplied by to scale it with ``m``; raises unless it fits."""
    if not isinstance(m, Tensor):
        if not isinstance(m, Number | numbers.Number):
            raise TypeError(f"expected a number or a tensor to scale with, got {type(m).__name__}")
        return m
    if m.dim() == 0:
        return m
    fits = m.dim() == 4 and all(
        size == 1 or size == own or (own == 1 and dim < 2)
        for dim, (size, own) in enumerate(zip(m.shape, (*a.shape[:2], 1, 1), strict=True))
    )
    if not fits:
        raise ValueError(
            f"expected a scale of shape (B or 1, heads or 1, 1, 1) for a Circulant with "
            f"(B, heads) = {tuple(a.shape[:2])}, got {tuple(m.shape)}"
        )
    if m.device != a.device:
        raise ValueError(f"expected a scale on {a.device}, got one on {m.device}")
    return m.flatten(2)


def dot(a: Circulant, b: Circulant) -> Tensor:
    """The inner product, which conjugates ``a``."""
    check_compatible(a, b)
    if a.shape != b.shape:
        raise ValueError(f"expected a Circulant of shape {tuple(a.shape)}, got {tuple(b.shape)}")
    return torch.vdot(*_features.promote(a.values.flatten(), b.values.flatten()))


def softmax(a: Circulant, dim: int) -> Circulant:
    """The softmax of each row over its stored entries."""
    if dim not in (-1, 3):
        raise ValueError(f"expected softmax over dim -1 (each row), got dim {dim}")
    if a.is_complex():
        raise TypeError(f"expected real entries for softmax, got {a.dtype}")
    return a.with_values(torch.softmax(a.rows, -1).flatten(-2))


def apply(a: Circulant, x: Tensor) -> Tensor:
    """``A x`` on pixels, for every channel of ``x (B * heads, C, *spatial)``."""
    checks.check_features("x", x)
    check_grid(a, x)
    pending = a.pending_transpose()
    values, x = cast_for_autocast(a.values if pending is None else pending, x)
    groups = values.reshape(-1, a.geometry.pixels, a.geometry.offsets)
    return _features.apply(groups, x, a.window, transposed=pending is not None)


def check_grid(a: Circulant, x: Tensor) -> None:
    """Raises ValueError unless ``x`` lives on the grid, the groups and the device of ``a``."""
    if tuple(x.shape[2:]) != a.spatial_size:
        raise ValueError(
            f"expected x with the spatial size of A, {a.spatial_size}, got {tuple(x.shape[2:])}"
        )
    groups = a.shape[0] * a.shape[1]
    if x.shape[0] != groups:
        raise ValueError(
            f"expected x with the batch size of A times its heads, {groups}, got {x.shape[0]}"
        )
    if x.device != a.device:
        raise ValueError(f"expected x on the device of A, {a.device}, got {x.device}")
