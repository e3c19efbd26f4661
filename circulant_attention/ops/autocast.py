"""Autocast, also on devices that do not know it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Asked once, because not every torch can trace the question.
_KNOWING = frozenset(
    kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)
)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast casts to on this device; None where it is off."""
    if device.type in _KNOWING and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the dtypes that are given."""
    if device.type in _KNOWING:
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts what torch.autocast would cast for a matrix product, when it is active.

    That is: floating tensors other than float64 go to the autocast dtype of their device.
    """
    dtype = autocast_dtype(tensors[0].device)
    if dtype is None:
        return tensors
    eligible = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(x.to(dtype) if x.dtype in eligible else x for x in tensors)
