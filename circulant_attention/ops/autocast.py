"""torch.autocast on every device, those without it included."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Queried at import: some releases of torch cannot trace the query.
_DEVICES = frozenset(
    kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)
)
_CAST = (torch.float32, torch.float16, torch.bfloat16)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that autocast casts to on this device; None where autocast is off."""
    if device.type in _DEVICES and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which ops keep the dtypes of their inputs."""
    if device.type in _DEVICES:
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts as torch.autocast does for a matrix product, if it is active.

    Floating tensors other than float64 go to the autocast dtype of their device.
    """
    dtype = autocast_dtype(tensors[0].device)
    if dtype is None:
        return tensors
    return tuple(x.to(dtype) if x.dtype in _CAST else x for x in tensors)
