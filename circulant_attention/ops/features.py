"""Dtype promotion, complex numbers as real ones, and heads as groups."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.ops import attention as _fused
from circulant_attention.ops import primitives as ops

_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real part (``dtype.to_real()``, which torch.compile does not know)."""
    return _REAL.get(dtype, dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, heads * C, *spatial)`` to ``(B * heads, C, *spatial)``, contiguous channel groups."""
    return x.reshape(x.shape[0] * heads, x.shape[1] // heads, *x.shape[2:])


def join_heads(x: Tensor, heads: int) -> Tensor:
    """``(B * heads, C, *spatial)`` to ``(B, heads * C, *spatial)``."""
    return x.reshape(x.shape[0] // heads, x.shape[1] * heads, *x.shape[2:])


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Converts tensors to their common dtype, by torch's promotion of dtypes."""
    dtype = tensors[0].dtype
    for x in tensors[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return tuple(x.to(dtype) for x in tensors)


def real_channels(x: Tensor) -> Tensor:
    """Complex ``(G, C, *spatial)`` as real ``(G, 2C, *spatial)``: real parts, imaginary parts.

    ``Re(x . conj(y))`` and ``|x - y|^2`` are the real dot product and distance of these, and a
    real linear map acts on them channel by channel: complex numbers need no kernel of their own.
    """
    return torch.cat([x.real, x.imag], 1) if x.is_complex() else x


def _complex_channels(x: Tensor) -> Tensor:
    """The inverse of :func:`real_channels`."""
    real, imag = x.chunk(2, 1)
    return torch.complex(real, imag)


def similarity(x: Tensor, y: Tensor, window: tuple[int, ...], kind: ops.Kind) -> Tensor:
    """``ops.similarity`` for any supported dtypes: the result is real."""
    x, y = promote(x, y)
    return ops.similarity(real_channels(x), real_channels(y), list(window), kind)


def apply(values: Tensor, x: Tensor, window: tuple[int, ...], *, transposed: bool) -> Tensor:
    """``ops.apply`` or ``ops.apply_transposed`` for any supported dtypes."""
    dtype = real_dtype(torch.promote_types(values.dtype, x.dtype))
    op = ops.apply_transposed if transposed else ops.apply

    def map_real(entries: Tensor) -> Tensor:
        return op(entries.to(dtype), real_channels(x).to(dtype), list(window))

    if not values.is_complex():
        y = map_real(values)
        return _complex_channels(y) if x.is_complex() else y
    real, imag = map_real(values.real), map_real(values.imag)
    if not x.is_complex():
        return torch.complex(real, imag)
    real_of_real, imag_of_real = real.chunk(2, 1)
    real_of_imag, imag_of_imag = imag.chunk(2, 1)
    return torch.complex(real_of_real - imag_of_imag, imag_of_real + real_of_imag)


def attention(
    q: Tensor, k: Tensor, v: Tensor, window: tuple[int, ...], kind: ops.Kind, scale: float
) -> Tensor:
    """``_fused.attention`` for any supported dtypes."""
    q, k = promote(q, k)
    dtype = real_dtype(torch.promote_types(q.dtype, v.dtype))
    real_q, real_k, real_v = (real_channels(x).to(dtype) for x in (q, k, v))
    y = _fused.attention(real_q, real_k, real_v, list(window), kind, scale)
    return _complex_channels(y) if v.is_complex() else y
