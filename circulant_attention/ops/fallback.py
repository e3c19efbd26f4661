"""The native ops on any device, by torch's own functions, slot by slot of the window.

Torch calls these where the loaded libraries have no kernel for the device of the tensors: MPS, XPU,
a private backend. Values and memory are those of the kernels: sums of the half types in float32, no
matrix in attention. They are slower, with some passes over the features for each slot.

Slot s of a row is the position of an entry among the K stored ones.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from circulant_attention.geometry import neighbours
from circulant_attention.ops.biased_fallback import biased_attention, biased_attention_backward
from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.precision import widened
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.window import WindowDim


def warn_of_missing_kernels(device: torch.device) -> None:
    """Warns, once by default, where a build with nvcc would have kernels."""
    if device.type == "cuda":
        warnings.warn(
            "circulant_attention was built without CUDA kernels and uses torch's functions, which "
            "is slow: build it where nvcc is on PATH, with CIRCULANT_ATTENTION_CUDA=1",
            stacklevel=2,
        )


class _Dim:
    """The pattern along one spatial dim of ``size`` pixels."""

    def __init__(self, size: int, window: int, device: torch.device) -> None:
        self.size, self.window = size, window
        # (size, window): the pixel that each pixel has in each slot.
        dim = WindowDim(window // 2, window // 2, 1, True)
        self.columns, _ = neighbours(torch.arange(size, device=device), size, dim)

    def column(self, slot: int) -> Tensor:
        """The pixel that each pixel has in ``slot``."""
        return self.columns[:, slot]

    def mirror(self, slot: int) -> Tensor:
        """The slot in which the pixel ``column(slot)`` has this pixel."""
        pixel = torch.arange(self.size, device=self.columns.device)[:, None]
        # Columns ascend in a row: the slot is the number of smaller ones.
        return (self.columns[self.column(slot)] < pixel).sum(1)


class _Pattern:
    """The columns of the stored entries."""

    def __init__(self, spatial_size: list[int], window: list[int], device: torch.device) -> None:
        warn_of_missing_kernels(device)
        if len(window) != len(spatial_size):
            raise NotImplementedError(
                "windows that are not odd and circular, or are dilated, need tensors on a CPU, "
                f"got tensors on {device}"
            )
        self.pixels, self.offsets = prod(spatial_size), prod(window)
        self._dims = [
            _Dim(size, width, device) for size, width in zip(spatial_size, window, strict=True)
        ]

    def columns(self) -> Iterator[Tensor]:
        """For each slot, the column ``(N,)`` of its entry in every row."""
        for slots in self._slots():
            yield self._joined(
                dim.column(slot) for dim, slot in zip(self._dims, slots, strict=True)
            )

    def mirrored(self) -> Iterator[Tensor]:
        """For each slot, where ``A_ji`` is among the ``N * K`` stored entries, for its ``A_ij``."""
        for slots, column in zip(self._slots(), self.columns(), strict=True):
            place = torch.zeros_like(column)
            for at, (dim, slot) in enumerate(zip(self._dims, slots, strict=True)):
                shape = [1] * len(self._dims)
                shape[at] = dim.size
                expanded = dim.mirror(slot).reshape(shape).expand([d.size for d in self._dims])
                place = place * dim.window + expanded.flatten()
            yield column * self.offsets + place

    def _slots(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(dim.window) for dim in self._dims))

    def _joined(self, pixels: Iterator[Tensor]) -> Tensor:
        """Pixel numbers of the grid from those along each dim."""
        joined = torch.zeros_like(self._dims[0].columns[:1, 0])
        for dim, pixel in zip(self._dims, pixels, strict=True):
            joined = (joined[:, None] * dim.size + pixel).flatten()
        return joined


def _pattern(x: Tensor, window: list[int]) -> _Pattern:
    """The pattern on the grid of features ``(G, C, *spatial)``."""
    return _Pattern(list(x.shape[2:]), window, x.device)


def _rows(x: Tensor) -> Tensor:
    """Features as ``(G, C, N)``, in the dtype of their sums."""
    return widened(x).flatten(2)


def _score(x: Tensor, y: Tensor, kind: int) -> Tensor:
    """The similarity ``(G, N)`` of each pixel of ``x (G, C, N)`` with that of ``y``."""
    if kind == SimilarityKind.DISTANCE:
        return (x - y).square().sum(1) * -0.5
    return (x * y).sum(1)


def similarity(x: Tensor, y: Tensor, window: list[int], kind: int) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(x, window)
    values = x.new_empty(x.shape[0], pattern.pixels, pattern.offsets)
    rows, keys = _rows(x), _rows(y)
    for slot, column in enumerate(pattern.columns()):
        values.select(-1, slot).copy_(_score(rows, keys.index_select(2, column), kind))
    return values


def adjacency(x: Tensor, y: Tensor, window: list[int], kind: int, scale: float) -> Tensor:
    """As the native op of this name."""
    scores = similarity(widened(x), widened(y), window, kind) * scale
    return scores.softmax(-1).to(x.dtype)


def apply(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """As the native op of this name."""
    features, entries = _rows(x), widened(values)
    y = torch.zeros_like(features)
    for slot, column in enumerate(_pattern(x, window).columns()):
        y += entries[:, None, :, slot] * features.index_select(2, column)
    return y.reshape(x.shape).to(x.dtype)


def apply_transposed(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(x, window)
    features, entries = _rows(x), widened(values).flatten(1)
    y = torch.zeros_like(features)
    for column, place in zip(pattern.columns(), pattern.mirrored(), strict=True):
        y += entries.index_select(1, place)[:, None] * features.index_select(2, column)
    return y.reshape(x.shape).to(x.dtype)


def transpose(values: Tensor, spatial_size: list[int], window: list[int]) -> Tensor:
    """As the native op of this name."""
    entries, result = values.flatten(1), values.new_empty(values.shape)
    for slot, place in enumerate(_Pattern(spatial_size, window, values.device).mirrored()):
        result.select(-1, slot).copy_(entries.index_select(1, place))
    return result


def attention(
    q: Tensor, k: Tensor, v: Tensor, window: list[int], kind: int, scale: float
) -> tuple[Tensor, Tensor]:
    """As the native op of this name: the scores are computed twice and not stored."""
    pattern = _pattern(q, window)
    rows, keys, x = _rows(q), _rows(k), _rows(v)
    lse = rows.new_full((q.shape[0], pattern.pixels), -torch.inf)
    for column in pattern.columns():
        lse = torch.logaddexp(lse, _score(rows, keys.index_select(2, column), kind) * scale)
    y = torch.zeros_like(x)
    for column in pattern.columns():
        score = _score(rows, keys.index_select(2, column), kind) * scale
        y += (score - lse).exp()[:, None] * x.index_select(2, column)
    return y.reshape(v.shape).to(v.dtype), lse


def attention_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    window: list[int],
    kind: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As the native op of this name."""
    rows, keys, x, dx = _rows(q), _rows(k), _rows(v), _rows(dy)
    dq, dk, dv = torch.zeros_like(rows), torch.zeros_like(keys), torch.zeros_like(x)
    # sum_j P_ij dP_ij, one number per query.
    delta = (dx * _rows(y)).sum(1)
    for column in _pattern(q, window).columns():
        # The pixel as the query, its column as the key.
        key = keys.index_select(2, column)
        weight = (_score(rows, key, kind) * scale - lse).exp()
        ds = weight * ((dx * x.index_select(2, column)).sum(1) - delta) * scale
        dq += ds[:, None] * (key - rows if kind == SimilarityKind.DISTANCE else key)
        # The pixel as the key, its column as the query: the pattern is symmetric.
        query, dx_query = rows.index_select(2, column), dx.index_select(2, column)
        weight = (_score(query, keys, kind) * scale - lse.index_select(1, column)).exp()
        ds = weight * ((dx_query * x).sum(1) - delta.index_select(1, column)) * scale
        dk += ds[:, None] * (query - keys if kind == SimilarityKind.DISTANCE else query)
        dv += weight[:, None] * dx_query
    return (
        dq.reshape(q.shape).to(q.dtype),
        dk.reshape(k.shape).to(k.dtype),
        dv.reshape(v.shape).to(v.dtype),
    )


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """As the native op of this name."""
    p, dp = widened(weights), widened(grad)
    return (p * (dp - (p * dp).sum(-1, keepdim=True))).to(weights.dtype)


def linear_combination(a: Tensor, alpha: Tensor, b: Tensor, beta: Tensor) -> Tensor:
    """As the native op of this name."""
    return alpha.reshape(-1, 1) * a + beta.reshape(-1, 1) * b


def new_values(x: Tensor, size: list[int], dtype: torch.dtype) -> Tensor:
    """As the native op of this name."""
    return x.new_empty(size, dtype=dtype)


_OPS = (
    similarity,
    adjacency,
    apply,
    apply_transposed,
    transpose,
    attention,
    attention_backward,
    biased_attention,
    biased_attention_backward,
    softmax_backward,
    linear_combination,
    new_values,
)


def _register() -> None:
    """For every device; torch prefers the kernels of a library where there are some."""
    # "default" is this key, but torch finds that out by an exception in native code.
    key = "CompositeExplicitAutograd"
    for op in _OPS:
        torch.library.impl(f"{NAMESPACE}::{op.__name__}", key, op)


_register()
