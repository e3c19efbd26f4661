"""The ops for every supported dtype: promotion, and complex numbers as real channels.

``Re(x . conj(y))`` and ``|x - y|^2`` are the real dot product and distance of the real and
imaginary parts side by side, and a real linear map acts on each part: complex numbers need no
kernel of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.ops import attention as fused
from circulant_attention.ops import biased_attention as biased
from circulant_attention.ops import primitives
from circulant_attention.ops.adjacency import adjacency as real_adjacency
from circulant_attention.ops.adjacency import biased_adjacency
from circulant_attention.ops.precision import sum_dtype
from circulant_attention.ops.primitives import SimilarityKind

_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real part (``dtype.to_real()``, which torch.compile does not trace)."""
    return _REAL.get(dtype, dtype)


def promote(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in their common dtype, by torch's promotion."""
    if x.dtype == y.dtype:
        return x, y
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def complex_to_channels(x: Tensor) -> Tensor:
    """Complex ``(G, C, *spatial)`` as real ``(G, 2C, *spatial)``: real parts, imaginary parts."""
    return torch.cat([x.real, x.imag], 1) if x.is_complex() else x


def channels_to_complex(x: Tensor) -> Tensor:
    """The inverse of :func:`complex_to_channels`."""
    real, imag = x.chunk(2, 1)
    return torch.complex(real, imag)


def similarity(x: Tensor, y: Tensor, window: tuple[int, ...], kind: SimilarityKind) -> Tensor:
    """The similarities ``(G, N, K)`` of ``x`` and ``y``, in the real dtype of both."""
    x, y = promote(x, y)
    return primitives.similarity(complex_to_channels(x), complex_to_channels(y), list(window), kind)


def adjacency(
    x: Tensor,
    y: Tensor,
    window: tuple[int, ...],
    kind: SimilarityKind,
    scale: float,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
) -> Tensor:
    """The row softmax ``(G, N, K)`` of ``scale`` times the similarities, plus real biases."""
    x, y = (complex_to_channels(part) for part in promote(x, y))
    if bias is None and key_bias is None:
        return real_adjacency(x, y, list(window), kind, scale)
    bias, key_bias = in_sums(x.dtype, bias, key_bias)
    return biased_adjacency(x, y, bias, key_bias, list(window), kind, scale)


def in_sums(
    dtype: torch.dtype, bias: Tensor | None, key_bias: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Biases in the dtype in which numbers of ``dtype`` are summed."""
    dtype = sum_dtype(dtype)
    return (
        None if bias is None else bias.to(dtype),
        None if key_bias is None else key_bias.to(dtype),
    )


def apply(values: Tensor, x: Tensor, window: tuple[int, ...], *, transposed: bool) -> Tensor:
    """``A x`` or ``A^T x`` for every channel of ``x``."""
    op = primitives.apply_transposed if transposed else primitives.apply
    if values.dtype == x.dtype and not x.is_complex():
        return op(values, x, list(window))
    return _apply_mixed(op, values, x, list(window))


def _apply_mixed(op: primitives.Product, values: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """:func:`apply` for two dtypes or complex numbers, from real products."""
    dtype = real_dtype(torch.promote_types(values.dtype, x.dtype))
    channels = complex_to_channels(x).to(dtype)
    if not values.is_complex():
        y = op(values.to(dtype), channels, window)
        return channels_to_complex(y) if x.is_complex() else y
    real = op(values.real.to(dtype), channels, window)
    imag = op(values.imag.to(dtype), channels, window)
    if not x.is_complex():
        return torch.complex(real, imag)
    real_of_real, imag_of_real = real.chunk(2, 1)
    real_of_imag, imag_of_imag = imag.chunk(2, 1)
    return torch.complex(real_of_real - imag_of_imag, imag_of_real + real_of_imag)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: tuple[int, ...],
    kind: SimilarityKind,
    scale: float,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Fused attention ``(G, C_v, *spatial)``, in the common dtype of q, k and v; real biases."""
    complex_v = v.is_complex()
    if q.is_complex() or not q.dtype == k.dtype == v.dtype:
        dtype = real_dtype(torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype))
        q, k = promote(q, k)
        q, k, v = (complex_to_channels(x).to(dtype) for x in (q, k, v))
    if bias is None and key_bias is None:
        y = fused.attention(q, k, v, list(window), kind, scale)
    else:
        bias, key_bias = in_sums(q.dtype, bias, key_bias)
        y, _ = biased.biased_attention(q, k, v, bias, key_bias, list(window), kind, scale)
    return channels_to_complex(y) if complex_v else y
