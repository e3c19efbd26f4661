"""Attention and its matrix on the shards of a grid: each process computes the rows of its pixels.

Plain tensors in and out. Keys and values come with the halos that the window needs; queries are
never sent. A process without pixels takes part in the messages, and its results depend on its
inputs, so that it does in the backward pass, too.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from circulant_attention.distributed import overlap
from circulant_attention.distributed.grid import Halos
from circulant_attention.ops import dtypes
from circulant_attention.ops.adjacency import biased_scores
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.registration import transform_active
from circulant_attention.ops.softmax import softmax_or_zeros


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    halos: Halos,
    kind: SimilarityKind,
    scale: float,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The fused attention of a shard, and its keys with their halos.

    Args:
        q: Queries ``(G, C, *local)``.
        k: Keys of the same shape.
        v: Values ``(G, C_v, *local)``.
        halos: The grid and the window.
        kind: The similarity.
        scale: The factor of the similarities.
        bias: ``(heads, K)``, added to the scores by offset, or None.
        key_bias: ``(P, extended pixels)``, added to the scores by key, or None.

    Returns:
        ``(G, C_v, *local)``, and ``(G, C, *extended)`` for :func:`adjacency`, of real channels.
    """
    q, k = dtypes.promote(q, k)
    parts = tuple(dtypes.complex_to_channels(x) for x in (q, k, v))
    own = parts[0].dtype
    q_part, k_part = dtypes.promote(parts[0], parts[2])[0], dtypes.promote(parts[1], parts[2])[0]
    v_part = dtypes.promote(parts[2], k_part)[0]
    if halos.overlaps and not transform_active():
        terms = dtypes.in_sums(q_part.dtype, bias, key_bias)
        window, parts = list(halos.window), (q_part, k_part, v_part)
        y, keys = overlap.attention(*parts, *terms, window, kind, scale, halos.extensions)
        return (dtypes.channels_to_complex(y) if v.is_complex() else y), keys.to(own)
    keys, values = halos.extend(k_part, v_part)
    if halos.grid.empty:
        inputs = q_part, keys, values, *_given(bias, key_bias)
        y = nothing(v_part.new_empty(v_part.shape), *inputs)
    else:
        q_part = halos.pad(q_part)
        y = dtypes.attention(q_part, keys, values, halos.window, kind, scale, bias, key_bias)
        y = halos.crop(y)
    return (dtypes.channels_to_complex(y) if v.is_complex() else y), keys.to(own)


def adjacency(
    q: Tensor,
    keys: Tensor,
    halos: Halos,
    kind: SimilarityKind,
    scale: float,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
) -> Tensor:
    """The weights ``(G, n, K)`` of :func:`attention`, from its keys; sends nothing."""
    q = dtypes.complex_to_channels(q).to(keys.dtype)
    if halos.grid.empty:
        return _no_rows(halos, q, keys, *_given(bias, key_bias))
    if bias is None and key_bias is None:
        return halos.crop_rows(dtypes.adjacency(halos.pad(q), keys, halos.window, kind, scale))
    terms = dtypes.in_sums(q.dtype, bias, key_bias)
    scores = biased_scores(halos.pad(q), keys, *terms, list(halos.window), kind, scale)
    # The softmax adds in the order of one process.
    scores = halos.to_columns(halos.crop_rows(scores))
    return halos.to_offsets(softmax_or_zeros(scores).to(q.dtype))


def similarity(x: Tensor, y: Tensor, halos: Halos, kind: SimilarityKind) -> Tensor:
    """The similarities ``(G, n, K)`` of pixels of ``x`` with those of ``y (G, C, *local)``."""
    x, y = (dtypes.complex_to_channels(part) for part in dtypes.promote(x, y))
    (keys,) = halos.extend(y)
    if halos.grid.empty:
        return _no_rows(halos, x, keys)
    return halos.crop_rows(dtypes.similarity(halos.pad(x), keys, halos.window, kind))


def extended_keys(x: Tensor, y: Tensor, halos: Halos) -> Tensor:
    """The keys ``y`` with their halos, as :func:`adjacency` takes them."""
    (keys,) = halos.extend(dtypes.complex_to_channels(dtypes.promote(x, y)[1]))
    return keys


def apply(values: Tensor, x: Tensor, halos: Halos, *, transposed: bool) -> Tensor:
    """``A x`` or ``A^T x`` for every channel of ``x (G, C, *local)``.

    The transposed product of the shard's rows is on the grid of the keys with their halos; what it
    has there for the pixels of others goes to them.
    """
    dtype = torch.promote_types(values.dtype, x.dtype)
    if transposed:
        if halos.grid.empty:
            y = nothing(x.new_empty(x.shape, dtype=dtype), x, values)
        else:
            rows = halos.pad_rows(values)
            y = dtypes.apply(rows, halos.pad(x), halos.window, transposed=True)
        return halos.gather(y)[0]
    (x,) = halos.extend(x)
    if halos.grid.empty:
        size = (*x.shape[:2], *halos.grid.local_size)
        return nothing(x.new_empty(size, dtype=dtype), x, values)
    y = dtypes.apply(halos.pad_rows(values), x, halos.window, transposed=False)
    return halos.crop(y)


def _given(*terms: Tensor | None) -> list[Tensor]:
    return [term for term in terms if term is not None]


def nothing(empty: Tensor, *inputs: Tensor) -> Tensor:
    """A tensor without elements that depends on the inputs."""
    for x in inputs:
        empty = empty + (x.real if x.is_complex() else x).sum().to(empty.dtype)
    return empty


def _no_rows(halos: Halos, *inputs: Tensor) -> Tensor:
    like = inputs[0]
    return nothing(like.new_empty(like.shape[0], 0, prod(halos.geometry.lengths)), *inputs)
