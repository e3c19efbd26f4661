"""Checks of arguments: each error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeGuard

import torch
from torch import Tensor

MAX_SPATIAL_DIMS = 3

DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)
"""The dtypes of features and of stored entries."""


def is_int(value: object) -> TypeGuard[int]:
    """True for Python, NumPy and symbolic ints, not for bools."""
    return isinstance(value, int | Integral | torch.SymInt) and not isinstance(value, bool)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """True for a list, a tuple and other sequences, not for strings and bytes."""
    # tuple includes torch.Size; the test of the abstract class is slow.
    return isinstance(value, tuple | list) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    )


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """Raises TypeError unless ``dtype`` is supported."""
    if dtype not in DTYPES:
        expected = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        raise TypeError(f"expected {name} to be one of {expected}, got {dtype}")


def check_features(name: str, x: object) -> None:
    """Raises unless ``x`` is a dense tensor ``(B, C, *spatial)`` of a supported dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"expected {name} to be a dense tensor, got layout {x.layout}")
    if x.dtype not in DTYPES:
        check_dtype(name, x.dtype)
    if not 3 <= x.dim() <= 2 + MAX_SPATIAL_DIMS:
        raise ValueError(
            f"expected {name} of shape (B, C, *spatial) with 1 to {MAX_SPATIAL_DIMS} spatial dims, "
            f"got shape {tuple(x.shape)}"
        )
    if x.shape[1] < 1:
        raise ValueError(f"expected {name} to have channels, got shape {tuple(x.shape)}")


def check_matches(name: str, x: Tensor, other: str, y: Tensor, *, channels: bool = True) -> None:
    """Raises ValueError unless ``x`` has the device, batch, grid (and channels) of ``y``."""
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


def check_pair(names: tuple[str, str], x: object, y: object) -> tuple[Tensor, Tensor]:
    """The two arguments, if they are feature tensors of one shape on one device; else raises."""
    check_features(names[0], x)
    check_features(names[1], y)
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    check_matches(names[1], y, names[0], x)
    return x, y


def check_heads(name: str, channels: int, heads: int, argument: str = "heads") -> None:
    """Raises unless ``heads`` is a positive int that divides ``channels``.

    Args:
        name: What has the channels, such as ``the channels of q``.
        channels: Their number.
        heads: The number of heads.
        argument: What gives the number of heads.
    """
    if type(heads) is int and heads > 0 and channels > 0 and channels % heads == 0:
        return
    check_positive(**{name: channels, argument: heads})
    if channels % heads:
        raise ValueError(f"expected {name} to be divisible by {argument}={heads}, got {channels}")


def check_attention(q: Tensor, k: Tensor, v: Tensor, nheads: int) -> None:
    """Raises unless queries, keys and values fit together and to the number of heads."""
    check_pair(("q", "k"), q, k)
    check_features("v", v)
    check_matches("v", v, "q", q, channels=False)
    check_heads("the channels of q", q.shape[1], nheads, "nheads")
    check_heads("the channels of v", v.shape[1], nheads, "nheads")


def check_positive(**numbers: int) -> None:
    """Raises unless every named argument is a positive int."""
    for name, number in numbers.items():
        if not is_int(number):
            raise TypeError(f"expected {name} to be an int, got {type(number).__name__}")
        if number < 1:
            raise ValueError(f"expected {name} to be at least 1, got {number}")


def check_odd(**numbers: int) -> None:
    """Raises unless every named argument is a positive odd int."""
    check_positive(**numbers)
    for name, number in numbers.items():
        if number % 2 == 0:
            raise ValueError(f"expected {name} to be odd, got {number}")


def positive_ints(name: str, value: object, wanted: str = "a sequence of ints") -> tuple[int, ...]:
    """The positive ints of a sequence; raises for anything else."""
    if not is_sequence(value):
        raise TypeError(f"expected {name} to be {wanted}, got {type(value).__name__}")
    check_positive(**{f"{name}[{i}]": size for i, size in enumerate(value)})
    return tuple(int(size) for size in value)


def per_dim(name: str, value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """One positive int per spatial dim, from an int for all of them or from as many ints."""
    if is_int(value):
        check_positive(**{name: value})
        return (int(value),) * dims
    wanted = f"an int or {dims} ints"
    values = positive_ints(name, value, wanted)
    if len(values) != dims:
        raise ValueError(f"expected {name} to be {wanted}, got {values}")
    return values


def check_matrix(shape: torch.Size, head: object, batch: object) -> None:
    """Raises unless ``head`` and ``batch`` number a matrix of a Circulant of this shape."""
    for name, at, size in (("head", head, shape[1]), ("batch", batch, shape[0])):
        if not is_int(at):
            raise TypeError(f"expected {name} to be an int, got {type(at).__name__}")
        if not 0 <= at < size:
            raise ValueError(f"expected {name} from 0 to {size - 1}, got {at}")


def check_dropout(dropout: float, name: str = "dropout") -> None:
    """Raises unless a dropout probability lies in [0, 1)."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"expected {name} to be a probability in [0, 1), got {dropout}")


def check_mask(mask: Tensor, shape: Sequence[int], symbols: str) -> None:
    """Raises unless ``mask`` is boolean, has this shape, and keeps something in every sample.

    The last check reads the mask's values, so a compiled graph leaves it out.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"expected mask to be a bool tensor (True = takes part), got {mask.dtype}")
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(
            f"expected mask to have shape {symbols} = {tuple(shape)}, got {tuple(mask.shape)}"
        )
    if torch.compiler.is_compiling():
        return
    empty = (~mask.flatten(1).any(dim=1)).nonzero().flatten().tolist()
    if empty:
        shown = ", ".join(map(str, empty[:8])) + (", ..." if len(empty) > 8 else "")
        raise ValueError(f"mask leaves nothing in sample(s) {shown} of {len(mask)}")


def bind(
    function: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name.

    Raises:
        TypeError: If one is missing, or there is one too many.
    """
    bound = dict(zip(names, args, strict=False))
    if len(args) > len(names) or bound.keys() & kwargs.keys() or {*bound, *kwargs} != {*names}:
        given = [type(x).__name__ for x in args] + [f"{name}=..." for name in kwargs]
        raise TypeError(
            f"expected {function}({', '.join(names)}), got {function}({', '.join(given)})"
        )
    return {**bound, **kwargs}
