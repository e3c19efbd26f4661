"""Repeating and regrouping the batch and the heads of a Circulant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from circulant_attention.checks import is_int

if TYPE_CHECKING:
    from circulant_attention.matrix.tensor_like import Entries


def unpacked(sizes: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence, as torch takes them.

    Raises:
        TypeError: If they are not ints.
    """
    given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
    if not all(is_int(size) for size in given):
        raise TypeError(f"expected ints, got {given}")
    return tuple(size for size in given if is_int(size))


def repeated(a: Entries, repeats: tuple[int, ...]) -> Tensor:
    """The values repeated along batch and heads."""
    counts = (*repeats, 1, 1) if len(repeats) == 2 else repeats
    if len(counts) != 4 or any(n < 0 for n in counts) or counts[2:] != (1, 1):
        raise ValueError(
            f"expected repeats (batch, heads, 1, 1): rows and columns cannot repeat, got {repeats}"
        )
    return a.values.repeat(*counts[:2], 1)


def regrouped(a: Entries, shape: tuple[int, ...]) -> Tensor:
    """The values with batch and heads regrouped."""
    n = a.geometry.pixels
    sizes = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
    if len(sizes) != 4 or any(size not in (n, -1) for size in sizes[2:]):
        raise ValueError(f"expected shape (B, heads, {n}, {n}): rows and columns stay, got {shape}")
    try:
        return a.values.reshape(*sizes[:2], n * a.geometry.offsets)
    except RuntimeError as error:
        raise ValueError(
            f"expected batch and heads of product {a.shape[0] * a.shape[1]}, got {shape}"
        ) from error
