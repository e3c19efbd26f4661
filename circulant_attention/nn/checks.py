"""Checks of arguments that the attention modules share; each message names the argument."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circulant_attention.geometry import is_int


def check_positive(**numbers: int) -> None:
    """Raise unless every named argument is a positive int."""
    for name, number in numbers.items():
        if not is_int(number):
            raise TypeError(f"expected {name} to be an int, got {type(number).__name__}")
        if number < 1:
            raise ValueError(f"expected {name} to be at least 1, got {number}")


def check_odd(**numbers: int) -> None:
    """Raise unless every named argument is a positive odd int."""
    check_positive(**numbers)
    for name, number in numbers.items():
        if number % 2 == 0:
            raise ValueError(f"expected {name} to be odd, got {number}")


def positive_ints(name: str, value: object, wanted: str = "a sequence of ints") -> tuple[int, ...]:
    """The positive ints of a sequence; raises for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
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


def check_dropout(dropout: float) -> None:
    """Raise unless a dropout probability lies in [0, 1)."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"expected dropout to be a probability in [0, 1), got {dropout}")


def check_heads(name: str, channels: int, heads: int) -> None:
    """Raise unless ``heads`` divides the number of channels in the argument called ``name``."""
    check_positive(**{name: channels, "heads": heads})
    if channels % heads:
        raise ValueError(f"expected {name} to be divisible by heads={heads}, got {channels}")


def check_mask(mask: Tensor, shape: Sequence[int], symbols: str) -> None:
    """Raise unless ``mask`` is boolean, has this shape, and keeps something in every sample.

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
