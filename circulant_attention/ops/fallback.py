"""The native ops on any device, by torch's own functions, slot by slot of the window.

Torch calls these where the loaded libraries have no kernel for the device of the tensors: MPS, XPU,
a private backend. Values and memory are those of the kernels: sums of the half types in float32, no
matrix in attention. They are slower, with some passes over the features for each slot.

Slot s of a row is the position of an entry among the K stored ones.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from circulant_attention.geometry import neighbours
from circulant_attention.ops.biased_fallback import (
    biased_attention,
    biased_attention_backward,
    rows_of,
    score_of,
)
from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.precision import widened
from circulant_attention.ops.windows import key_size, presence, query_size, window_dims
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
    """The pattern along one spatial dim: the keys that each of ``size`` queries sees."""

    def __init__(self, size: int, keys: int, window: WindowDim, device: torch.device) -> None:
        self.size, self.keys, self.window = size, keys, window
        # Both (size, window): the key in each slot, and whether it is there.
        columns, self.there = neighbours(torch.arange(size, device=device), keys, window)
        self.columns = columns.clamp(max=keys - 1)
        last = size - 1 + window.dilation * window.after
        self.full = window.circular or (window.before == 0 and last < keys)

    def transposed(self) -> _Dim:
        """The queries that each key is seen by."""
        return _Dim(self.keys, self.size, self.window.mirrored(), self.columns.device)

    def slot_of(self, seen_by: _Dim, slot: int) -> Tensor:
        """For each key the slot that it has in the row of the query in ``slot`` of ``seen_by``."""
        if not self.window.circular:
            # Offsets ascend in both.
            return torch.full_like(seen_by.columns[:, slot], self.window.length - 1 - slot)
        key = torch.arange(self.keys, device=self.columns.device)[:, None]
        # Columns ascend in a row: the slot is the number of smaller ones.
        return (self.columns[seen_by.columns[:, slot]] < key).sum(1)


class _Pattern:
    """The entries of a matrix, slot by slot; where one is absent, its column is any pixel."""

    def __init__(self, dims: list[_Dim]) -> None:
        self._dims = dims
        self.size = [dim.size for dim in dims]
        self.pixels = prod(self.size)
        self.offsets = prod(dim.window.length for dim in dims)
        self._full = all(dim.full for dim in dims)

    def transposed(self) -> _Pattern:
        """The pattern of the transposed matrix."""
        return _Pattern([dim.transposed() for dim in self._dims])

    def entries(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each slot, the columns ``(N,)``, and which entries are present; None for all."""
        for slots in self._slots():
            yield (
                self._joined([dim.columns[:, s] for dim, s in self._each(slots)]),
                (
                    None
                    if self._full
                    else self._all([dim.there[:, s] for dim, s in self._each(slots)])
                ),
            )

    def places(self, seen_by: _Pattern) -> Iterator[Tensor]:
        """For each slot of the transposed pattern, where its entries are among the ``N * K``."""
        for slots, (query, _) in zip(seen_by._slots(), seen_by.entries(), strict=True):
            place = torch.zeros_like(query)
            for at, ((dim, slot), other) in enumerate(
                zip(self._each(slots), seen_by._dims, strict=True)
            ):
                shape = [1] * len(slots)
                shape[at] = dim.keys
                found = dim.slot_of(other, slot).reshape(shape).expand(seen_by.size)
                place = place * dim.window.length + found.flatten()
            yield query * self.offsets + place

    def _slots(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(dim.window.length) for dim in self._dims))

    def _each(self, slots: tuple[int, ...]) -> Iterator[tuple[_Dim, int]]:
        return zip(self._dims, slots, strict=True)

    def _joined(self, columns: list[Tensor]) -> Tensor:
        """Pixel numbers of the grid from those along each dim."""
        joined = columns[0]
        for dim, column in zip(self._dims[1:], columns[1:], strict=True):
            joined = (joined[:, None] * dim.keys + column).flatten()
        return joined

    def _all(self, there: list[Tensor]) -> Tensor:
        joined = there[0]
        for one in there[1:]:
            joined = (joined[:, None] & one).flatten()
        return joined


def _pattern(size: Sequence[int], window: list[int], device: torch.device) -> _Pattern:
    """The pattern of queries of spatial size ``size``."""
    warn_of_missing_kernels(device)
    dims = zip(size, key_size(size, window), window_dims(window, len(size)), strict=True)
    return _Pattern([_Dim(*dim, device) for dim in dims])


def _kept(x: Tensor, present: Tensor | None) -> Tensor:
    """``x (*, N)``, with zeros for absent entries."""
    return x if present is None else x.where(present, 0)


def similarity(x: Tensor, y: Tensor, window: list[int], kind: int) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(x.shape[2:], window, x.device)
    values = x.new_empty(x.shape[0], pattern.pixels, pattern.offsets)
    rows, keys = rows_of(x), rows_of(y)
    for slot, (column, present) in enumerate(pattern.entries()):
        score = score_of(rows, keys.index_select(2, column), kind)
        values.select(-1, slot).copy_(_kept(score, present))
    return values


def adjacency(x: Tensor, y: Tensor, window: list[int], kind: int, scale: float) -> Tensor:
    """As the native op of this name."""
    scores = similarity(widened(x), widened(y), window, kind) * scale
    there = presence(window, x.shape[2:], x.device)
    if there is not None:
        scores = scores.masked_fill(~there, -torch.inf)
    return scores.softmax(-1).to(x.dtype)


def apply(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(query_size(x.shape[2:], window), window, x.device)
    features, entries = rows_of(x), widened(values)
    y = features.new_zeros(*x.shape[:2], pattern.pixels)
    for slot, (column, present) in enumerate(pattern.entries()):
        y += _kept(entries[:, None, :, slot] * features.index_select(2, column), present)
    return y.reshape(*x.shape[:2], *pattern.size).to(x.dtype)


def apply_transposed(values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(x.shape[2:], window, x.device)
    seen_by = pattern.transposed()
    features, entries = rows_of(x), widened(values).flatten(1)
    y = features.new_zeros(*x.shape[:2], seen_by.pixels)
    for (query, present), place in zip(seen_by.entries(), pattern.places(seen_by), strict=True):
        entry = entries.index_select(1, place)[:, None]
        y += _kept(entry * features.index_select(2, query), present)
    return y.reshape(*x.shape[:2], *seen_by.size).to(x.dtype)


def transpose(values: Tensor, spatial_size: list[int], window: list[int]) -> Tensor:
    """As the native op of this name."""
    pattern = _pattern(spatial_size, window, values.device)
    seen_by = pattern.transposed()
    entries, result = values.flatten(1), values.new_empty(values.shape)
    places = zip(seen_by.entries(), pattern.places(seen_by), strict=True)
    for slot, ((_, present), place) in enumerate(places):
        result.select(-1, slot).copy_(_kept(entries.index_select(1, place), present))
    return result


def attention(
    q: Tensor, k: Tensor, v: Tensor, window: list[int], kind: int, scale: float
) -> tuple[Tensor, Tensor]:
    """As the native op of this name."""
    warn_of_missing_kernels(q.device)
    return biased_attention(q, k, v, None, None, window, kind, scale)


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
) -> tuple[Tensor, ...]:
    """As the native op of this name."""
    warn_of_missing_kernels(q.device)
    no_biases = None, None
    gradients = biased_attention_backward(
        dy, q, k, v, *no_biases, y, lse, None, window, kind, scale
    )
    return gradients[:3]


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
