"""Windows as the native ops take them: see ``csrc/ops.cpp``.

One odd length per spatial dim, or four numbers: the reaches before and after the pixel, the
dilation, and the boundary. The boundary ``VALID`` is for the native ops only: the grid of the keys
is longer than that of the queries by the span of the window, so that no key is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry
from circulant_attention.window import WindowDim

CIRCULAR, TRUNCATED, VALID = range(3)


def _parts(window: Sequence[int], dims: int) -> list[tuple[int, ...]] | None:
    """The four numbers of each dim; None for odd lengths."""
    if len(window) == dims:
        return None
    return [tuple(window[i : i + 4]) for i in range(0, len(window), 4)]


def four_numbers(window: Sequence[int], dims: int) -> list[tuple[int, ...]]:
    """The reaches before and after, the dilation and the boundary of each dim."""
    parts = _parts(window, dims)
    return [(w // 2, w // 2, 1, CIRCULAR) for w in window] if parts is None else parts


def offsets(window: Sequence[int], dims: int) -> int:
    """K, the offsets of a window."""
    parts = _parts(window, dims)
    if parts is None:
        return prod(window)
    return prod([before + after + 1 for before, after, *_ in parts])


def key_size(size: Sequence[int], window: Sequence[int]) -> list[int]:
    """The spatial size of the keys of queries of spatial size ``size``."""
    return _resized(size, window, 1)


def query_size(size: Sequence[int], window: Sequence[int]) -> list[int]:
    """The spatial size of the queries of keys of spatial size ``size``."""
    return _resized(size, window, -1)


def _resized(size: Sequence[int], window: Sequence[int], sign: int) -> list[int]:
    parts = _parts(window, len(size))
    if parts is None:
        return list(size)
    return [
        n + sign * dilation * (before + after) if boundary == VALID else n
        for n, (before, after, dilation, boundary) in zip(size, parts, strict=True)
    ]


def mirrored(window: Sequence[int], dims: int) -> list[int]:
    """The window of the transposed matrix."""
    parts = _parts(window, dims)
    if parts is None:
        return list(window)
    return [x for before, after, *rest in parts for x in (after, before, *rest)]


def window_dims(window: Sequence[int], dims: int) -> tuple[WindowDim, ...]:
    """The window along each dim, from a query to a key in the grid of the keys.

    A valid dim is a truncated one with more keys: those of query i are at i and after it.
    """
    parts = _parts(window, dims)
    if parts is None:
        return tuple(WindowDim(w // 2, w // 2, 1, True) for w in window)
    return tuple(
        WindowDim(0, before + after, dilation, False)
        if boundary == VALID
        else WindowDim(before, after, dilation, boundary == CIRCULAR)
        for before, after, dilation, boundary in parts
    )


def presence(window: Sequence[int], size: Sequence[int], device: torch.device) -> Tensor | None:
    """Whether each slot ``(N, K)`` has an entry; None if all have."""
    parts = _parts(window, len(size))
    if parts is None or all(part[3] != TRUNCATED for part in parts):
        return None
    # No key of a valid dim is absent: as in a circular dim of any size.
    dims = tuple(
        WindowDim(before, after, dilation, boundary != TRUNCATED)
        for before, after, dilation, boundary in parts
    )
    return Geometry(tuple(size), tuple(dim.length for dim in dims), dims).presence(device)
