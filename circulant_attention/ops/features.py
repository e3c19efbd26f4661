"""What enters the native ops: checks of feature tensors, autocast, complex numbers, heads."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.geometry import MAX_SPATIAL_DIMS, is_int
from circulant_attention.ops import attention as _fused
from circulant_attention.ops import primitives as ops

_DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)

_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real part (``dtype.to_real()``, which torch.compile does not know)."""
    return _REAL.get(dtype, dtype)


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """Raises TypeError unless ``dtype`` is one that the library computes in."""
    if dtype not in _DTYPES:
        expected = ", ".join(str(known).removeprefix("torch.") for known in _DTYPES)
        raise TypeError(f"expected {name} to be one of {expected}, got {dtype}")


def check_features(name: str, x: object) -> None:
    """Raises unless ``x`` is a tensor ``(B, C, *spatial)`` of a supported dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"expected {name} to be a dense tensor, got layout {x.layout}")
    check_dtype(name, x.dtype)
    if not 3 <= x.dim() <= 2 + MAX_SPATIAL_DIMS:
        raise ValueError(
            f"expected {name} of shape (B, C, *spatial) with 1 to {MAX_SPATIAL_DIMS} spatial dims, "
            f"got shape {tuple(x.shape)}"
        )
    if x.shape[1] < 1:
        raise ValueError(f"expected {name} to have channels, got shape {tuple(x.shape)}")


def check_alike(name: str, x: Tensor, other: str, y: Tensor, *, channels: bool = True) -> None:
    """Raises ValueError unless ``x`` matches ``y`` in device, batch and grid (and channels)."""
    if x.device != y.device:
        raise ValueError(
            f"expected {name} on the device of {other}, {y.device}, got {name} on {x.device}"
        )
    if x.dim() != y.dim() or x.shape[2:] != y.shape[2:]:
        raise ValueError(
            f"expected {name} with the spatial size of {other}, {tuple(y.shape[2:])}, "
            f"got {tuple(x.shape[2:])}"
        )
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"expected {name} with the batch size of {other}, {y.shape[0]}, got {x.shape[0]}"
        )
    if channels and x.shape[1] != y.shape[1]:
        raise ValueError(
            f"expected {name} with the channels of {other}, {y.shape[1]}, got {x.shape[1]}"
        )


def check_heads(name: str, x: Tensor, heads: object, what: str = "nheads") -> None:
    """Raises unless ``heads`` is a positive int that divides the channels of ``x``."""
    if not is_int(heads):
        raise TypeError(f"expected {what} to be an int, got {type(heads).__name__}")
    if heads < 1:
        raise ValueError(f"expected {what} to be at least 1, got {heads}")
    if x.shape[1] % heads:
        raise ValueError(
            f"expected the channels of {name} to divide by {what}, "
            f"got {x.shape[1]} channels for {heads} heads"
        )


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
